package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
)

const steadyText = `Groups of 64 messages are kept, read and settled in step, as they are while the
uplink keeps up: a reader follows the writer one group behind. The reference R
does the same on a plain log of pre-written segments. They run in turns, once on a
device that is as slow as an SD card and once on the disk of the work folder, and only
what one round gives of each is compared.

Flushes a commit and bytes written a payload byte are counted by a loop device with
direct I/O. That, and the card, need root, loop devices and /dev/fuse, and are skipped
without.`

func steadyCommand() *cobra.Command {
	return trialCommand("steady", "The uplink keeps up: groups of 64 kept, read and settled in step", steadyText, nil,
		func(ctx context.Context, t *trial) error {
			return errors.Join(
				t.card(1024, func(b *bed) error {
					return steadyRates(ctx, t, b, rivals()[:3], pick(t, 400*time.Millisecond, 2*time.Second))
				}, "S1"),
				steadyRates(ctx, t, plainBed(t.work), rivals()[:4], t.slice()),
				steadyCounts(ctx, t, rivals()[:3]))
		})
}

// lane is a contender with its writer's and its reader's end.
type lane struct {
	name string
	c    drainer
	a    asker
	stop func()
	s    *source
	read uint64 // the next number that has to come out
}

// steadyBytes is what a contender holds at a time: next to nothing.
const steadyBytes = 4 << 20

func openLane(r rival, dir string, bytes int64) (*lane, error) {
	c, err := r.open(dir, bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r.name, err)
	}
	d, ok := c.(drainer)
	if !ok {
		return nil, errors.Join(fmt.Errorf("%s gives nothing back", r.name), c.close())
	}
	l := &lane{name: r.name, c: d, s: newSource(bodyBytes)}
	l.a, l.stop = asks(c)
	return l, nil
}

func (l *lane) close() error {
	l.stop()
	return l.c.close()
}

// follow takes messages up to a number, checking that each is the next one. A take
// may give more than that: other stores' unit is their group.
func (l *lane) follow(end uint64) error {
	for l.read < end {
		messages, err := l.c.take(int(end - l.read))
		if err != nil {
			return err
		}
		if len(messages) == 0 {
			return fmt.Errorf("message %d was acknowledged and is not there", l.read)
		}
		for _, m := range messages {
			switch number, err := l.s.numberOf(m); {
			case err != nil:
				return err
			case number != l.read:
				return fmt.Errorf("message %d came where %d was to come", number, l.read)
			}
			l.read++
		}
	}
	return nil
}

// step hands over groups while more says so, and gives the messages a second: all of
// them kept, and read again. A group is handed over when the one before it (or, with
// two under way, the one before that) has been acknowledged; the reader is at most one
// behind.
func (l *lane) step(ctx context.Context, under int, more func(groups int) bool) (rate float64, err error) {
	kept := make(chan uint64, 1)
	ended := make(chan error, 1)
	go func() {
		var err error
		for end := range kept {
			if err == nil {
				err = l.follow(end)
			}
		}
		ended <- err
	}()
	var way []*batch
	oldest := func() {
		if e := way[0].wait(); err == nil {
			err = e
		}
		if err == nil {
			kept <- way[0].end
		}
		way = way[1:]
	}
	start, n := time.Now(), 0
	for ; err == nil && more(n) && ctx.Err() == nil; n++ {
		if way = append(way, l.hand()); len(way) == under {
			oldest()
		}
	}
	for len(way) > 0 {
		oldest()
	}
	close(kept)
	err = errors.Join(err, <-ended, ctx.Err())
	return float64(n*groupSize) / time.Since(start).Seconds(), err
}

// hand hands one group over.
func (l *lane) hand() *batch {
	b := newBatch(groupSize)
	group := l.s.group(groupSize)
	if g, ok := l.a.(*grouper); ok {
		g.putAll(group, b.done)
	} else {
		for _, m := range group {
			l.a.put(m, b.done)
		}
	}
	b.end = l.s.next.Load()
	return b
}

// lasting is a step's more for a time.
func lasting(length time.Duration) func(int) bool {
	end := time.Now().Add(length)
	return func(int) bool { return time.Now().Before(end) }
}

// times is a step's more for a number of groups.
func times(groups int) func(int) bool { return func(n int) bool { return n < groups } }

// steadyRates compares on one disk; rivals are us, R and the others. The others run
// with one group under way alone.
func steadyRates(ctx context.Context, t *trial, bed *bed, rivals []rival, slice time.Duration) (err error) {
	lanes := make([]*lane, len(rivals))
	for i, r := range rivals {
		if lanes[i], err = openLane(r, bed.room(fmt.Sprintf("steady-%d", i)), steadyBytes); err != nil {
			return err
		}
		defer closing(&err, lanes[i].close)
	}
	what := "steady on " + bed.name + ": "
	rates, size, err := stepInTurns(ctx, t, lanes, 1, slice)
	if err != nil {
		return fmt.Errorf("%s%w", what, err)
	}
	f := rates[0].over(rates[1]).figure("S1", what+"Holdfast against R", "x")
	t.add(f.judged(">= 0.95").because(steadyWhy(bed)),
		figure{ID: "S1", What: what + "Holdfast against R, worst round", Value: f.Low, Unit: "x"}.judged(">= 0.85").because("the worst of the rounds above"),
		size.figure("steady", what+"Holdfast's groups", "messages"))
	for i, r := range rivals {
		t.add(rates[i].figure("steady", what+r.name, "messages/s"))
		if i > 1 {
			t.add(rates[i].over(rates[1]).figure("steady", what+r.name+", against R", "x"))
		}
	}
	if rates, size, err = stepInTurns(ctx, t, lanes[:2], 2, slice); err != nil {
		return fmt.Errorf("%s%w", what, err)
	}
	t.add(rates[0].over(rates[1]).figure("steady", what+"two groups under way, Holdfast against R", "x"),
		size.figure("steady", what+"two groups under way, Holdfast's groups", "messages"))
	return nil
}

// stepInTurns gives each lane's messages a second, and how many messages the first
// has put into a commit.
func stepInTurns(ctx context.Context, t *trial, lanes []*lane, under int, slice time.Duration) (rates []series, size series, err error) {
	rates = make([]series, len(lanes))
	err = turns(t.rounds(), len(lanes), func(_, i int) error {
		commits, read := lanes[i].c.commits(), lanes[i].read
		rate, err := lanes[i].step(ctx, under, lasting(slice))
		if err != nil {
			return fmt.Errorf("%s: %w", lanes[i].name, err)
		}
		rates[i] = append(rates[i], rate)
		if i == 0 {
			size = append(size, float64(lanes[i].read-read)/float64(lanes[i].c.commits()-commits))
		}
		return nil
	})
	return rates, size, err
}

// steadyWhy says where the time goes that R has to spare.
func steadyWhy(b *bed) string {
	if b.disk != nil {
		return "a commit waits up to 1 ms or a tenth of its time for company, and none comes here"
	}
	return "R keeps no ledger, no index and no deadlines; where a flush is as cheap as here, what is done for each message counts"
}

// steadyCounts counts what a disk is asked for, by one contender after the other.
func steadyCounts(ctx context.Context, t *trial, rivals []rival) error {
	return t.counting(size[int64](t, 768, 2048), func(bed *bed) error {
		for i, r := range rivals {
			a, err := steadyCount(ctx, t, r, bed, pick(t, 300, 6000))
			if err != nil {
				return fmt.Errorf("%s on %s: %w", r.name, bed.name, err)
			}
			id2, id3 := "S2", "S3"
			if i > 0 {
				id2, id3 = "steady", "steady"
			}
			flushes, wa := a.perCommit(id2, "steady: "+r.name), a.amplification(id3, "steady: "+r.name)
			if i == 0 {
				flushes, wa = flushes.judged("<= 1.02"), wa.judged("<= 1.7")
			}
			t.add(a.honest(flushes), wa)
		}
		return nil
	}, "S2", "S3")
}

func steadyCount(ctx context.Context, t *trial, r rival, bed *bed, groups int) (a bill, err error) {
	store := bed.room("store")
	defer os.RemoveAll(store)
	l, err := openLane(r, store, steadyBytes)
	if err != nil {
		return a, err
	}
	defer closing(&err, l.close)
	if _, err := l.step(ctx, 2, times(pick(t, 20, 8000))); err != nil { // once round the ring
		return a, err
	}
	a.Counts, err = bed.counted(func() error {
		commits := l.c.commits()
		_, err := l.step(ctx, 2, times(groups))
		a.commits = l.c.commits() - commits
		return err
	})
	a.payload = uint64(groups * groupSize * bodyBytes)
	return a, err
}
