package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
)

const reopenText = `A process is killed (kill -9) when it has kept a backlog; another one opens the store,
and what counts is the time from the call of Open until the first message was read.
It is killed in its turn, and so on. Warm: the kernel still has the files in memory, as
after a crash of the process. Cold: it was made to forget them (needs root; slows down
whatever else runs here for a moment), as after a boot, and the time to read the journal's
files once stands beside it.`

func reopenCommand() *cobra.Command {
	var n int
	var cold bool
	return trialCommand("reopen", "From kill -9 with a backlog to the first message", reopenText,
		func(cmd *cobra.Command) {
			cmd.Flags().IntVar(&n, "n", 0, "`messages` in the backlog; 5,000,000 (100,000 with --quick) if not given")
			cmd.Flags().BoolVar(&cold, "cold", true, "measure with dropped caches, too")
		},
		func(ctx context.Context, t *trial) error {
			if n == 0 {
				n = pick(t, 100_000, 5_000_000)
			}
			return reopen(ctx, t, n, cold)
		})
}

func reopen(ctx context.Context, t *trial, n int, cold bool) error {
	dir := filepath.Join(t.work, "store")
	h, err := holdIn(ctx, dir, n)
	if err != nil {
		return err
	}
	h.kill()
	warm, open, err := reopenings(ctx, dir, size(t, 3, 9), func() error { return nil })
	if err != nil {
		return err
	}
	disk, err := usedIn(dir)
	if err != nil {
		return err
	}
	t.add(warm.figure("S5", thousands(int64(n))+" pending, warm: until the first message", "ms").judged("<= 200").
		because("what is in the journal alone has to be read and checked"),
		open.figure("reopen", "of these, Open", "ms"),
		figure{ID: "reopen", What: "on disk", Value: disk / 1e6, Unit: "MB"})
	if !cold {
		return nil
	}
	return reopenCold(ctx, t, dir, n)
}

func reopenCold(ctx context.Context, t *trial, dir string, n int) error {
	if os.Geteuid() != 0 {
		t.skip("S5", thousands(int64(n))+" pending, with dropped caches", "it needs root, to write to /proc/sys/vm/drop_caches")
		return nil
	}
	rounds := size(t, 1, 3)
	cold, _, err := reopenings(ctx, dir, rounds, dropCaches)
	if err != nil {
		return err
	}
	var raw series
	for range rounds {
		if err := dropCaches(); err != nil {
			return err
		}
		begin := time.Now()
		if err := readAll(filepath.Join(dir, "journal")); err != nil {
			return err
		}
		raw = append(raw, milliseconds(time.Since(begin)))
	}
	t.add(cold.figure("S5", thousands(int64(n))+" pending, with dropped caches: until the first message", "ms"),
		raw.figure("reopen", "reading the journal's files, with dropped caches", "ms"),
		cold.over(raw).figure("S5", "with dropped caches, against reading the journal's files", "x"))
	return nil
}

// reopenings opens a store that was killed, kills who has opened it, and so on.
func reopenings(ctx context.Context, dir string, rounds int, before func() error) (first, open series, err error) {
	for range rounds {
		if err := before(); err != nil {
			return nil, nil, err
		}
		h, err := openIn(ctx, dir)
		if err != nil {
			return nil, nil, err
		}
		h.kill()
		if h.said.DamagedHere > 0 {
			return nil, nil, fmt.Errorf("reopen %s: %d parts were damaged, though only a process was killed", dir, h.said.DamagedHere)
		}
		first, open = append(first, h.said.FirstMS), append(open, h.said.OpenMS)
	}
	return first, open, nil
}

// readAll reads every file of a folder once.
func readAll(dir string) error {
	return filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, bufio.NewReaderSize(struct{ io.Reader }{f}, 1<<20))
		return errors.Join(err, f.Close())
	})
}
