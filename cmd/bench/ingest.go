package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"
)

const ingestText = `Messages a second that are durable before they are acknowledged, from 1, 16 and 256
producers that wait for each acknowledgement, and from 16 that have 100 under way. A reader
follows and settles what it has read, in each store that can give something back. All
stores take turns on the same disk; ratios are of one round each.

Flushes a commit and bytes written a payload byte are counted by a loop device; that needs
root, and is skipped without.`

func ingestCommand() *cobra.Command {
	return trialCommand("ingest", "Durable before acknowledged: producers against one store", ingestText, nil,
		func(ctx context.Context, t *trial) error {
			all := demands()
			if t.tiny {
				all = all[1:2]
			}
			return errors.Join(
				ingestRates(ctx, t, plainBed(t.work), rivals(), all),
				ingestCounts(ctx, t, all))
		})
}

// demand is a number of producers, each with a window of messages under way.
type demand struct {
	name              string
	producers, window int
}

func demands() []demand {
	return []demand{{"1 producer", 1, 1}, {"16 producers", 16, 1}, {"256 producers", 256, 1}, {"16 × 100 in flight", 16, 100}}
}

// ingest is a contender under load.
type ingest struct {
	name string
	c    contender
	a    asker
	s    *source
	stop func()

	acked atomic.Uint64
	taken uint64
	wake  chan struct{}
}

func openIngest(r rival, dir string) (*ingest, error) {
	c, err := r.open(dir, ingestBytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r.name, err)
	}
	in := &ingest{name: r.name, c: c, s: newSource(bodyBytes), wake: make(chan struct{}, 1)}
	in.a, in.stop = asks(c)
	return in, nil
}

// ingestBytes is room for a reader that lags while the disk is fast.
const ingestBytes = 64 << 20

func (in *ingest) close() error {
	in.stop()
	return in.c.close()
}

// drive runs a load for a while and gives the messages a second. Whoever reads has
// then read everything.
func (in *ingest) drive(ctx context.Context, l demand, length time.Duration) (rate float64, err error) {
	done := make(chan struct{})
	read := make(chan error, 1)
	if d, ok := in.c.(drainer); ok {
		go func() { read <- in.follow(d, done) }()
	} else {
		read <- nil
	}
	before, start := in.acked.Load(), time.Now()
	var faults sync.Map
	var producers sync.WaitGroup
	for range l.producers {
		producers.Go(func() {
			if err := in.produce(ctx, l.window, start.Add(length)); err != nil {
				faults.Store(err.Error(), err)
			}
		})
	}
	producers.Wait()
	rate = float64(in.acked.Load()-before) / time.Since(start).Seconds()
	close(done)
	err = <-read
	faults.Range(func(_, fault any) bool { err = errors.Join(err, fault.(error)); return true })
	if err != nil {
		return 0, fmt.Errorf("%s, %s: %w", in.name, l.name, err)
	}
	return rate, ctx.Err()
}

// produce keeps window messages under way until the time has come, and waits for all.
func (in *ingest) produce(ctx context.Context, window int, end time.Time) error {
	answers := make(chan error, window)
	done := func(err error) {
		if err == nil {
			in.acked.Add(1)
			select {
			case in.wake <- struct{}{}:
			default:
			}
		}
		answers <- err
	}
	way, first := 0, error(nil)
	for first == nil && time.Now().Before(end) && ctx.Err() == nil {
		in.a.put(in.s.one(), done)
		if way++; way == window {
			first = <-answers
			way--
		}
	}
	for ; way > 0; way-- {
		if err := <-answers; first == nil {
			first = err
		}
	}
	return first
}

// follow takes what comes until the producers are done and everything acknowledged
// was read.
func (in *ingest) follow(d drainer, done <-chan struct{}) error {
	last := false
	for {
		messages, err := d.take(1024)
		if err != nil {
			return err
		}
		for _, m := range messages {
			if _, err := in.s.numberOf(m); err != nil {
				return err
			}
		}
		in.taken += uint64(len(messages))
		switch {
		case len(messages) > 0:
		case last:
			if acked := in.acked.Load(); in.taken != acked {
				return fmt.Errorf("%d messages came back of %d that were acknowledged", in.taken, acked)
			}
			return nil
		default:
			select {
			case <-in.wake:
			case <-done:
				last = true
			}
		}
	}
}

// ingestRates compares all rivals under each load; the first are us and R.
func ingestRates(ctx context.Context, t *trial, bed *bed, rivals []rival, all []demand) error {
	for i, l := range all {
		rates, err := ingestLoad(ctx, t, bed, fmt.Sprintf("ingest-%d", i), rivals, l)
		if err != nil {
			return err
		}
		t.add(rates[0].figure("ingest", l.name+": "+rivals[0].name, "messages/s"))
		for i, r := range rivals[1:] {
			t.add(rates[i+1].figure("ingest", l.name+": "+r.name, "messages/s"))
			t.add(rates[0].over(rates[i+1]).figure("ingest", l.name+": Holdfast against "+r.name, "x"))
		}
	}
	return nil
}

// ingestLoad gives each rival's messages a second in each round.
func ingestLoad(ctx context.Context, t *trial, bed *bed, name string, rivals []rival, l demand) (rates []series, err error) {
	open := make([]*ingest, len(rivals))
	for i, r := range rivals {
		if open[i], err = openIngest(r, bed.room(fmt.Sprintf("%s-%d", name, i))); err != nil {
			return nil, err
		}
		defer closing(&err, open[i].close)
	}
	rates = make([]series, len(rivals))
	return rates, turns(t.rounds(), len(rivals), func(_, i int) error {
		rate, err := open[i].drive(ctx, l, t.slice())
		rates[i] = append(rates[i], rate)
		return err
	})
}

// ingestCounts counts what each asks of its disk for a commit.
func ingestCounts(ctx context.Context, t *trial, all []demand) error {
	return t.counting(size[int64](t, 768, 2048), func(bed *bed) error {
		for _, l := range all {
			for _, r := range rivals() {
				a, err := ingestCount(ctx, r, bed, l, t.slice())
				if err != nil {
					return fmt.Errorf("on %s: %w", bed.name, err)
				}
				what := l.name + ": " + r.name
				t.add(a.honest(a.perCommit("ingest", what)), a.amplification("ingest", what))
			}
		}
		return nil
	}, "ingest")
}

func ingestCount(ctx context.Context, r rival, bed *bed, l demand, length time.Duration) (a bill, err error) {
	store := bed.room("store")
	defer os.RemoveAll(store)
	in, err := openIngest(r, store)
	if err != nil {
		return a, err
	}
	defer closing(&err, in.close)
	if _, err := in.drive(ctx, l, length/10); err != nil {
		return a, err
	}
	a.Counts, err = bed.counted(func() error {
		commits, acked := in.c.commits(), in.acked.Load()
		_, err := in.drive(ctx, l, length)
		a.commits, a.payload = in.c.commits()-commits, (in.acked.Load()-acked)*bodyBytes
		return err
	})
	return a, err
}
