package main

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/spf13/cobra"
)

// trial is one run of a measuring subcommand: what it is told, where it works, and
// the figures it has so far.
type trial struct {
	*measure
	*report
	work string // its folder
}

// trialCommand makes a measuring subcommand. flags adds to --json, --quick and --dir;
// nil: nothing. What was measured before an error is printed all the same.
func trialCommand(use, short, long string, flags func(*cobra.Command), run func(context.Context, *trial) error) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Long: long, Args: cobra.NoArgs}
	m := measureFlags(cmd)
	if flags != nil {
		flags(cmd)
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		dir, temporary, err := workDir(m.dir)
		if err != nil {
			return err
		}
		if temporary {
			defer os.RemoveAll(dir)
		}
		t := &trial{measure: m, report: newReport(cmd, short), work: dir}
		if inMemory(dir) {
			t.note("%s is in memory, where a flush costs nothing: give a folder on a disk with --dir.", dir)
		}
		err = run(cmd.Context(), t)
		return errors.Join(err, t.print(cmd.OutOrStdout()))
	}
	return cmd
}

// size gives the quick value or the full one.
func size[T any](t *trial, quick, full T) T {
	if t.quick {
		return quick
	}
	return full
}

// pick does so for an amount or a duration, of which a test wants still less.
func pick[T ~int | ~int64](t *trial, quick, full T) T {
	if t.tiny {
		return quick / 10
	}
	return size(t, quick, full)
}

// rounds and slice are how often contestants take turns, and how long each turn is.
func (t *trial) rounds() int {
	if t.tiny {
		return 1
	}
	return size(t, 3, 7)
}

func (t *trial) slice() time.Duration { return pick(t, 100*time.Millisecond, time.Second) }

// closing ends what a measurement has opened, and passes its error on.
func closing(err *error, end func() error) { *err = errors.Join(*err, end()) }
