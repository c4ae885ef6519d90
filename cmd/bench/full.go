package main

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/spf13/cobra"
)

const fullText = `A process of its own keeps messages at full speed in a small file system until that is
full, and goes on trying. Then a file that somebody else had left there is removed, and
the process has to get on without being started again; until the disk is full once more.
Then it is killed, and another one reads and settles everything on the disk that is still
full: what was acknowledged must be there, and nothing twice.

It needs root and loop devices, for a file system that can be filled.`

func fullCommand() *cobra.Command {
	return trialCommand("full", "A disk that runs full under load", fullText, nil,
		func(ctx context.Context, t *trial) error {
			return t.counting(t.fullMB(), func(b *bed) error { return full(ctx, t, b) }, "S8")
		})
}

const (
	resumption = 10_000           // so many more messages mean that it has resumed, and are not the last crumbs of room
	fullWait   = 60 * time.Second // for anything to happen
)

// fullMB is the size of a disk that holds a ring and little more, or, for a test, less.
func (t *trial) fullMB() int64 {
	if t.tiny {
		return 144
	}
	return size[int64](t, 192, 384)
}

// ballast is how many bytes on the disk are somebody else's.
func (t *trial) ballast() int {
	if t.tiny {
		return 40 << 20
	}
	return 48 << 20
}

func full(ctx context.Context, t *trial, bed *bed) error {
	if err := os.WriteFile(bed.room("ballast"), make([]byte, t.ballast()), 0o644); err != nil {
		return err
	}
	f, err := flood(ctx, bed.room("store"))
	if err != nil {
		return err
	}
	defer f.kill()
	if err := f.stalled(ctx); err != nil {
		return err
	}
	if !f.refused() {
		return errors.New("fill a disk: nothing more was acknowledged, and nothing refused")
	}
	pause(ctx, pick(t, time.Second, 10*time.Second)) // it goes on trying
	first, begin := f.count(), time.Now()
	if err := os.Remove(bed.room("ballast")); err != nil {
		return err
	}
	resumed := f.reached(ctx, first+resumption)
	took := time.Since(begin).Seconds()
	stalled := f.stalled(ctx)
	crashes := f.crashes()
	acked := f.kill()
	seen, err := accounted(ctx, bed.room("store"))
	if err != nil {
		crashes++
		t.note("The store could not be read on the full disk: %v.", err)
	}
	lost, twice := compare(acked, seen)
	t.add(figure{ID: "S8", What: "disk full under load: crashes", Value: float64(crashes)}.judged("= 0"),
		figure{ID: "S8", What: "disk full under load: acknowledged and lost", Value: float64(lost), Unit: "messages"}.judged("= 0"),
		figure{ID: "full", What: "came back twice", Value: float64(twice), Unit: "messages"}.judged("= 0"),
		figure{ID: "full", What: "acknowledged until the disk was full", Value: float64(first), Unit: "messages"},
		figure{ID: "full", What: "acknowledged when it was full again", Value: float64(len(acked)), Unit: "messages"})
	back := figure{ID: "S8", What: "resumed by itself when space came back, after", Value: took, Unit: "s"}.judged("<= 15")
	if err := errors.Join(resumed, stalled); err != nil {
		no := false
		back.OK, back.Why = &no, err.Error()
	}
	t.add(back)
	return ctx.Err()
}

// compare counts what was acknowledged and is not there, and what is there twice.
func compare(acked, seen map[uint64]int) (lost, twice int) {
	for n := range acked {
		if seen[n] == 0 {
			lost++
		}
	}
	for _, times := range seen {
		twice += times - 1
	}
	return lost, twice
}
