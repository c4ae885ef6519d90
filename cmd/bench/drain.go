package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
)

const drainText = `A backlog is read and settled, at full speed, by one reader that checks every message;
the reference R reads the same backlog out of a plain log, a group at a call, and settles
nothing. Both take turns. Then the disk has a second to come back.`

// The most that a drained store may take: the ring's eight segments, a state and a
// generation.
const drainedBytes = 8*16<<20 + 1<<20 + 16<<20

func drainCommand() *cobra.Command {
	var n int
	return trialCommand("drain", "A backlog is drained", drainText, backlogFlag(&n),
		func(ctx context.Context, t *trial) error { return drain(ctx, t, backlogOf(t, n)) })
}

func drain(ctx context.Context, t *trial, n int) (err error) {
	us, r, err := besideR(plainBed(t.work), n)
	if err != nil {
		return err
	}
	defer closing(&err, us.close)
	defer closing(&err, r.close)
	lanes := []*lane{us, r}
	if _, err := pileInTurns(ctx, t, lanes, n); err != nil {
		return err
	}
	dir := filepath.Join(t.work, "ours")
	before, err := usedIn(dir)
	if err != nil {
		return err
	}
	rates, err := drainInTurns(ctx, t, lanes)
	if err != nil {
		return err
	}
	what := thousands(int64(us.read)) + " drained: "
	t.add(rates[0].over(rates[1]).figure("drain", what+"Holdfast against reading R", "x"),
		rates[0].figure("drain", what+"Holdfast storage, read and settled", "messages/s"),
		rates[1].figure("drain", what+"R, a plain log, read", "messages/s"),
		figure{ID: "drain", What: "on disk before", Value: before / 1e6, Unit: "MB"})
	return drained(ctx, t, dir)
}

// drainInTurns takes all there is, an equal part in each round.
func drainInTurns(ctx context.Context, t *trial, lanes []*lane) ([]series, error) {
	rates := make([]series, len(lanes))
	rounds := t.rounds()
	err := turns(rounds, len(lanes), func(round, i int) error {
		l := lanes[i]
		begin, start := l.read, time.Now()
		end := l.s.next.Load() * uint64(round+1) / uint64(rounds)
		for l.read < end {
			if err := errors.Join(ctx.Err(), l.follow(min(end, l.read+1024))); err != nil {
				return fmt.Errorf("drain a backlog: %s: %w", l.name, err)
			}
		}
		rates[i] = append(rates[i], float64(l.read-begin)/time.Since(start).Seconds())
		return nil
	})
	return rates, err
}

// drained looks at the disk a second after the last message was settled.
func drained(ctx context.Context, t *trial, dir string) error {
	if !pause(ctx, time.Second) {
		return ctx.Err()
	}
	used, err := usedIn(dir)
	if err != nil {
		return err
	}
	f := figure{ID: "S6", What: "on disk one second after the last was settled", Value: used / 1e6, Unit: "MB"}.judged(fmt.Sprintf("<= %.0f", drainedBytes/1e6))
	if !*f.OK {
		for range 10 {
			if !pause(ctx, time.Second) {
				return ctx.Err()
			}
			later, err := usedIn(dir)
			if err != nil {
				return err
			}
			f = f.because(fmt.Sprintf("%.0f MB ten seconds later", later/1e6))
		}
	}
	t.add(f)
	return nil
}
