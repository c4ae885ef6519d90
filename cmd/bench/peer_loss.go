package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// loss is what became of what a broker had acknowledged when it was killed.
type loss struct {
	acked, lost int
	strangers   int // arrived, and was never published
}

func (l loss) share() float64 { return 100 * float64(l.lost) / float64(l.acked) }

const killed = "kill -9" // head of the rows

// measureLosses kills each broker with SIGKILL while clients publish, starts it
// again on what is in its folder, and counts what the subscriber that was away
// gets of what was acknowledged.
func (p *peersRun) measureLosses(ctx context.Context) error {
	for _, id := range p.lossy() {
		p.tell("kill -9: %s …", brokerNames[id])
		l, err := p.measureLoss(ctx, id)
		if err == nil {
			p.report.add(l.row(id))
		} else if len(p.brokers) > 0 {
			err = p.giveUp(ctx, p.brokers[0], killed, err)
		}
		if err := errors.Join(err, p.stop()); err != nil {
			return err
		}
	}
	p.report.note("kill -9: a process dies, the machine lives. What had reached the kernel survives it, flushed or not, so a broker\n" +
		"that loses nothing here may still lose all of it in a power cut; one that loses something here does not keep it at all.")
	return nil
}

// lossy are the brokers that are killed: all that could keep anything, in the
// quick form two of them.
func (p *peersRun) lossy() []string {
	ids := slices.DeleteFunc(p.present(), func(id string) bool { return strings.HasPrefix(id, "sink") })
	if p.quick {
		ids = ids[:min(2, len(ids))]
	}
	return ids
}

func (l loss) row(id string) figure {
	f := figure{ID: "peer-" + id, Unit: "% lost", Value: l.share(),
		What: fmt.Sprintf(killed+": %s, lost of %s acknowledged", brokerNames[id], thousands(int64(l.acked)))}
	if l.strangers > 0 {
		f.What += fmt.Sprintf("; %d came that nobody had sent", l.strangers)
	}
	if id == "holdfast" {
		return f.judged("= 0").because(fmt.Sprintf("%d acknowledged messages did not come", l.lost))
	}
	return f
}

func (p *peersRun) measureLoss(ctx context.Context, id string) (loss, error) {
	b, err := p.broker(id, filepath.Join(p.dir, "kill-"+id))
	if err != nil {
		return loss{}, err
	}
	p.brokers = append(p.brokers, b)
	if err := b.begin(ctx); err != nil {
		return loss{}, fmt.Errorf("start %s: %w", b.name, err)
	}
	acked, err := b.publishUntilKilled(ctx, load{most, 100}, p.paces)
	if err != nil {
		return loss{}, err
	}
	if err := b.again(ctx); err != nil {
		return loss{}, fmt.Errorf("start %s after the kill: %w", b.name, err)
	}
	t := newTaken(acked)
	ctx, cancel := context.WithTimeoutCause(ctx, tooLong, errTooLong)
	defer cancel()
	err = b.collect(ctx, p.paces.quiet, t.take)
	if err != nil {
		return loss{}, fmt.Errorf("%s: %w", b.name, errors.Join(err, context.Cause(ctx)))
	}
	return t.loss(), nil
}

// tooLong is more than any broker may need to give back what it has kept.
const tooLong = 5 * time.Minute

var errTooLong = errors.New("what it has kept is still coming after " + tooLong.String())

// publishUntilKilled kills the broker in the middle of a load, and gives the
// numbers that were acknowledged, by client.
func (b *broker) publishUntilKilled(ctx context.Context, l load, pace peersPaces) ([][]int, error) {
	r := &run{stop: make(chan struct{})}
	all, err := b.publishers(ctx, r, l, 0)
	if err != nil {
		return nil, err
	}
	counting, ended := context.WithCancel(ctx)
	defer ended()
	var wg sync.WaitGroup
	for _, p := range all {
		wg.Go(func() {
			defer ended() // with the broker
			_ = p.publish(l.window)
		})
	}
	n := r.count(counting, peersPaces{warm: pace.warm, length: pace.publish}, l)
	select {
	case <-b.child.done:
		err = b.child.obituary()
	default:
		b.child.kill()
	}
	wg.Wait()
	if err != nil || ctx.Err() != nil {
		return nil, errors.Join(err, ctx.Err())
	}
	if n.acked == 0 {
		return nil, fmt.Errorf("%s: nothing acknowledged in %.1f s", b.name, n.seconds)
	}
	acked := make([][]int, len(all))
	for i, p := range all {
		acked[i] = p.acked
	}
	return acked, nil
}

// taken compares what comes with what was acknowledged.
type taken struct {
	missing   []map[int]bool // acknowledged and not come yet, by client
	acked     int
	strangers int
}

func newTaken(acked [][]int) *taken {
	t := &taken{missing: make([]map[int]bool, len(acked))}
	for i, numbers := range acked {
		t.missing[i] = make(map[int]bool, len(numbers))
		for _, n := range numbers {
			t.missing[i][n] = true
		}
		t.acked += len(t.missing[i])
	}
	return t
}

// take files one arrival. One that was not acknowledged may come, too: the
// acknowledgement died with the broker.
func (t *taken) take(body []byte) {
	client, n, ok := whose(body)
	if !ok || client >= len(t.missing) {
		t.strangers++
		return
	}
	delete(t.missing[client], n)
}

func (t *taken) loss() loss {
	l := loss{acked: t.acked, strangers: t.strangers}
	for _, m := range t.missing {
		l.lost += len(m)
	}
	return l
}
