package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/spf13/cobra"
)

const latencyText = `How long an acknowledgement takes. A lone client that waits for each one, against the
bare flush of a page that was written over, in turns; and on a device that is as slow as
an SD card, 16 producers with 100 messages under way each, against the time that a commit
takes: first while a reader keeps up, then, without --quick, while messages move out of
the journal.

The slow device needs root, loop devices and /dev/fuse, and is skipped without.`

func latencyCommand() *cobra.Command {
	return trialCommand("latency", "How long an acknowledgement takes", latencyText, nil,
		func(ctx context.Context, t *trial) error {
			return errors.Join(
				lone(ctx, t, plainBed(t.work), pick(t, 200, 2000)),
				t.card(1024, func(b *bed) error { return lone(ctx, t, b, pick(t, 20, 100)) }, "S12"),
				t.card(1024, func(b *bed) error { return loaded(ctx, t, b) }, "S9"))
		})
}

// lone compares one message at a time with one flush at a time.
func lone(ctx context.Context, t *trial, bed *bed, each int) (err error) {
	us, r, err := besideR(bed, 1)
	if err != nil {
		return err
	}
	defer closing(&err, us.close)
	defer closing(&err, r.close)
	lanes := []*lane{us, r}
	medians, tails := make([]series, 2), make([]series, 2)
	err = turns(t.rounds(), len(lanes), func(_, i int) error {
		waits, err := lanes[i].waits(ctx, each)
		medians[i] = append(medians[i], quantile(waits, 0.5))
		tails[i] = append(tails[i], quantile(waits, 0.99))
		return err
	})
	if err != nil {
		return fmt.Errorf("one message at a time on %s: %w", bed.name, err)
	}
	what := "a lone client on " + bed.name + ": "
	t.add(medians[0].over(medians[1]).figure("S12", what+"p50 against the bare flush", "x").judged("<= 1.15"),
		medians[0].figure("latency", what+"p50", "ms"), tails[0].figure("latency", what+"p99", "ms"),
		medians[1].figure("latency", what+"the bare flush, p50", "ms"), tails[1].figure("latency", what+"the bare flush, p99", "ms"))
	return nil
}

// waits keeps messages one by one, reads them, and gives the time of each.
func (l *lane) waits(ctx context.Context, n int) ([]time.Duration, error) {
	out := make([]time.Duration, 0, n)
	for range n {
		group := l.s.group(1)
		begin := time.Now()
		err := l.c.keep(group)
		out = append(out, time.Since(begin))
		if err = errors.Join(err, l.follow(l.s.next.Load()), ctx.Err()); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// loaded measures each acknowledgement's time under load.
func loaded(ctx context.Context, t *trial, bed *bed) (err error) {
	in, err := openIngest(holdfastRival(), bed.room("store"))
	if err != nil {
		return err
	}
	defer closing(&err, in.close)
	w := &waiting{}
	w.asker, in.a = in.a, w
	l := demands()[3]
	if _, err := in.drive(ctx, l, time.Second); err != nil { // the linger learns the disk
		return err
	}
	length := pick(t, 3*time.Second, 15*time.Second)
	if err := w.measure(t, "16 × 100 in flight on the SD model", 3, func() error {
		_, err := in.drive(ctx, l, length)
		return err
	}); err != nil {
		return err
	}
	if t.quick {
		t.skip("S9", "16 × 100 in flight on the SD model while messages move", "the ring is filled too slowly for --quick")
		return nil
	}
	if err := in.unread(ctx, l, func() bool { return in.c.(*holdfast).db.Stats().Moved > 0 }); err != nil {
		return err
	}
	return w.measure(t, "16 × 100 in flight on the SD model while messages move", 6, func() error {
		end := time.Now().Add(length)
		return in.unread(ctx, l, func() bool { return time.Now().After(end) })
	})
}

// unread drives without a reader until enough says so.
func (in *ingest) unread(ctx context.Context, l demand, enough func() bool) error {
	for limit := time.Now().Add(5 * time.Minute); !enough(); {
		if time.Now().After(limit) {
			return errors.New("nothing has moved in five minutes")
		}
		var producers sync.WaitGroup
		errs := make([]error, l.producers)
		end := time.Now().Add(time.Second)
		for i := range l.producers {
			producers.Go(func() { errs[i] = in.produce(ctx, l.window, end) })
		}
		producers.Wait()
		if err := errors.Join(append(errs, ctx.Err())...); err != nil {
			return err
		}
	}
	return nil
}

// waiting is a door with a clock.
type waiting struct {
	asker

	mu      sync.Mutex
	waits   []time.Duration // until each acknowledgement
	last    time.Time       // one came
	begun   time.Time       // the first of a commit came
	commits []time.Duration // from commit to commit
}

// Acknowledgements of one commit come at once; a commit of the slow device takes 9 ms
// at least.
const atOnce = 3 * time.Millisecond

func (w *waiting) put(m message, done func(error)) {
	begin := time.Now()
	w.asker.put(m, func(err error) {
		now := time.Now()
		w.mu.Lock()
		w.waits = append(w.waits, now.Sub(begin))
		if now.Sub(w.last) > atOnce {
			if !w.begun.IsZero() {
				w.commits = append(w.commits, now.Sub(w.begun))
			}
			w.begun = now
		}
		w.last = now
		w.mu.Unlock()
		done(err)
	})
}

// measure runs something and holds the times of its acknowledgements against the time
// of a commit, the median; p99 may be so many times as long.
func (w *waiting) measure(t *trial, what string, most float64, run func() error) error {
	w.waits, w.commits = nil, nil
	if err := run(); err != nil {
		return err
	}
	commit := quantile(w.commits, 0.5)
	p50, p99 := quantile(w.waits, 0.5), quantile(w.waits, 0.99)
	t.add(figure{ID: "S9", What: what + ": p50 against a commit", Value: p50 / commit, Unit: "x"}.judged("<= 1.4"),
		figure{ID: "S9", What: what + ": p99 against a commit", Value: p99 / commit, Unit: "x"}.judged(fmt.Sprintf("<= %v", most)),
		figure{ID: "latency", What: what + ": a commit", Value: commit, Unit: "ms"},
		figure{ID: "latency", What: what + ": p50", Value: p50, Unit: "ms"},
		figure{ID: "latency", What: what + ": p99", Value: p99, Unit: "ms"},
		figure{ID: "latency", What: what + ": acknowledged", Value: float64(len(w.waits)), Unit: "messages"})
	return nil
}
