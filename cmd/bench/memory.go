package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/spf13/cobra"
)

const memoryText = `A process of its own keeps a backlog that nobody drains, and is then killed (kill -9);
another one opens it. What counts is anonymous memory, which is what a small board runs
out of: heap, stacks and the allocator's slack, not the page cache, not files that are
mapped. A backlog of 10,000 shows that it does not grow.`

func memoryCommand() *cobra.Command {
	var n int
	return trialCommand("memory", "Anonymous memory with a backlog", memoryText,
		func(cmd *cobra.Command) {
			cmd.Flags().IntVar(&n, "n", 0, "`messages` in the backlog; 5,000,000 (200,000 with --quick) if not given")
		},
		func(ctx context.Context, t *trial) error {
			if n == 0 {
				n = pick(t, 200_000, 5_000_000)
			}
			return memory(ctx, t, n)
		})
}

// few is the small backlog that the large one is held against.
const few = 10_000

func memory(ctx context.Context, t *trial, n int) error {
	if n <= few {
		return fmt.Errorf("--n is %d: want more than %d, which it is held against", n, few)
	}
	small, err := holdAndReopen(ctx, t, filepath.Join(t.work, "few"), few)
	if err != nil {
		return err
	}
	large, err := holdAndReopen(ctx, t, filepath.Join(t.work, "many"), n)
	if err != nil {
		return err
	}
	row := func(what string, mb float64) figure { return figure{ID: "S4", What: what, Value: mb, Unit: "MB"} }
	many := thousands(int64(n))
	t.add(row("filling "+many+", most", large.filling).judged("<= 48"),
		row(many+" pending, held", large.pending).judged("<= 48"),
		row(many+" pending, reopened after kill -9, most", large.opening).judged("<= 48"),
		row(many+" pending, reopened, held", large.opened).judged("<= 48"),
		row(thousands(few)+" pending, held", small.pending),
		row(thousands(few)+" pending, reopened, held", small.opened),
		row(many+" against "+thousands(few)+" pending, more by", large.pending-small.pending).judged("<= 10"),
		row(many+" against "+thousands(few)+" pending, reopened, more by", large.opened-small.opened).judged("<= 10"))
	t.note("Anonymous memory of the whole process, /proc/self/smaps_rollup; held: a second later, garbage given back. 1 MB is 10^6 bytes.")
	return nil
}

// memories are megabytes of anonymous memory.
type memories struct {
	filling, pending float64 // most while filling; at rest then
	opening, opened  float64
}

func holdAndReopen(ctx context.Context, t *trial, dir string, n int) (m memories, err error) {
	defer os.RemoveAll(dir)
	h, err := holdIn(ctx, dir, n)
	if err != nil {
		return m, err
	}
	h.kill()
	m.filling, m.pending = h.said.Most, h.said.Rest
	if h, err = openIn(ctx, dir); err != nil {
		return m, err
	}
	h.kill()
	m.opening, m.opened = h.said.Most, h.said.Rest
	return m, nil
}

// anonymous gives the anonymous memory of this process in bytes.
func anonymous() (float64, error) {
	b, err := os.ReadFile("/proc/self/smaps_rollup")
	if err != nil {
		return 0, err
	}
	return parseAnonymous(b)
}

// parseAnonymous finds the line "Anonymous:  1234 kB" (proc_pid_smaps(5)).
func parseAnonymous(b []byte) (float64, error) {
	for lines := bufio.NewScanner(bytes.NewReader(b)); lines.Scan(); {
		f := bytes.Fields(lines.Bytes())
		if len(f) == 3 && string(f[0]) == "Anonymous:" {
			kb, err := strconv.ParseUint(string(f[1]), 10, 64)
			return float64(kb) * 1024, err
		}
	}
	return 0, errors.New("read memory: no line Anonymous in smaps_rollup")
}

// gauge samples this process's anonymous memory.
type gauge struct {
	quit, ended chan struct{}

	mu   sync.Mutex
	most float64
	last float64
	err  error
}

func newGauge() *gauge {
	g := &gauge{quit: make(chan struct{}), ended: make(chan struct{})}
	g.sample()
	go func() {
		defer close(g.ended)
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				g.sample()
			case <-g.quit:
				return
			}
		}
	}()
	return g
}

func (g *gauge) sample() {
	v, err := anonymous()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.err = errors.Join(g.err, err)
	g.last, g.most = v, max(g.most, v)
}

// stop gives the most since the beginning, and what it is now, in MB.
func (g *gauge) stop() (most, last float64, err error) {
	close(g.quit)
	<-g.ended
	g.sample()
	return g.most / 1e6, g.last / 1e6, g.err
}
