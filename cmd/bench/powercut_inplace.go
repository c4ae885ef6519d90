package main

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"

	"github.com/dgraph-io/badger/v4"
	"github.com/spf13/cobra"
)

// The control: badger as most programs use it, written in place, every transaction
// flushed before it is acknowledged. Its files are as small as it lets them be.
func inPlaceOptions(dir string) badger.Options {
	return badger.DefaultOptions(dir).WithSyncWrites(true).WithLoggingLevel(badger.ERROR).
		WithMemTableSize(1 << 20).WithValueLogFileSize(4 << 20).WithValueThreshold(1 << 10).
		WithNumCompactors(2).WithBlockCacheSize(1 << 20).WithIndexCacheSize(1 << 20)
}

func inPlaceCommand() *cobra.Command {
	var dir, marks string
	var seed uint64
	var steps int
	cmd := &cobra.Command{
		Use: "inplace", Short: "Use badger and say what it answers", Hidden: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			go func() { // whoever started it has gone
				_, _ = io.Copy(io.Discard, cmd.InOrStdin())
				os.Exit(3)
			}()
			return workInPlace(dir, marks, seed, steps)
		},
	}
	f := cmd.Flags()
	f.StringVar(&dir, "dir", "", "`folder` of the store")
	f.StringVar(&marks, "marks", "", "`file` to say it to")
	f.Uint64Var(&seed, "seed", 0, "of its decisions")
	f.IntVar(&steps, "steps", 0, "how long it works")
	return cmd
}

// workInPlace writes transactions of some keys each, a mark behind each.
func workInPlace(dir, marks string, seed uint64, steps int) error {
	f, err := os.OpenFile(marks, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	db, err := badger.Open(inPlaceOptions(dir))
	if err != nil {
		return err
	}
	say, lot := sayer{f: f}, rand.New(rand.NewPCG(seed, 9))
	for n := range steps {
		body := cutBody{sender: "inplace", n: n, queues: []string{"q"}, size: 100 + lot.IntN(300)}
		if lot.IntN(10) == 0 {
			body.size = 2000
		}
		err := db.Update(func(tx *badger.Txn) error {
			for i := range 1 + n%8 {
				if err := tx.Set(inPlaceKey(n, i), body.bytes()); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("write to badger: %w", err)
		}
		say.say("%d", n)
	}
	return errors.Join(say.failed(), db.Close())
}

func inPlaceKey(n, i int) []byte { return fmt.Appendf(nil, "%08d-%d", n, i) }

// judgeInPlace looks whether all that badger acknowledged is there.
func judgeInPlace(dir string, marks []string) (f findings, err error) {
	db, err := badger.Open(inPlaceOptions(dir))
	if err != nil {
		return findings{Shut: err.Error()}, nil
	}
	for _, m := range marks {
		var n int
		if _, err := fmt.Sscan(strings.TrimSpace(m), &n); err != nil {
			return f, fmt.Errorf("mark %q: %w", m, err)
		}
		err := db.View(func(tx *badger.Txn) error { return inPlaceHas(tx, n) })
		if err != nil {
			f.lost("transaction %d: %v", n, err)
		}
	}
	return f, db.Close()
}

func inPlaceHas(tx *badger.Txn, n int) error {
	for i := range 1 + n%8 {
		item, err := tx.Get(inPlaceKey(n, i))
		if err != nil {
			return err
		}
		v, err := item.ValueCopy(nil)
		if err != nil {
			return err
		}
		b, err := parseCutBody(v)
		if err == nil && b.n != n {
			err = fmt.Errorf("it is of transaction %d", b.n)
		}
		if err != nil {
			return fmt.Errorf("value of %s: %w", inPlaceKey(n, i), err)
		}
	}
	return nil
}
