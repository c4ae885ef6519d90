package mqtt

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"holdfast.dev/holdfast/hub"
	"holdfast.dev/holdfast/storage"
)

// graves are the queues of sessions and groups that have ended: what is still in
// them is discarded, counted, and they are removed.
type graves struct {
	mu   sync.Mutex
	list []*storage.Queue
}

func (g *graves) add(q *storage.Queue) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.list = append(g.list, q)
}

func (g *graves) take() []*storage.Queue {
	g.mu.Lock()
	defer g.mu.Unlock()
	l := g.list
	g.list = nil
	return l
}

// buryAll works on the graves until ctx ends. Now and then it looks for queues that
// belong to nobody: a message that was on its way when its session ended makes one.
func (b *Broker) buryAll(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for n := 0; ; n++ {
		if n%60 == 0 {
			b.findOrphans()
		}
		for _, q := range b.graves.take() {
			if err := bury(ctx, q); err != nil && ctx.Err() == nil && !errors.Is(err, storage.ErrRemoved) {
				b.log.Warn("queue of an ended session cannot be removed yet", "queue", q.Name(), "error", err)
				b.graves.add(q)
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// bury discards what is in q and removes it.
func bury(ctx context.Context, q *storage.Queue) error {
	done := make(chan error, 1)
	wait := func() error {
		select {
		case err := <-done:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	const chunk = 4096
	for {
		st := q.Stats()
		if st.Pending+st.Parked == 0 {
			break
		}
		for p := st.Checkpoint + 1; p <= st.Last; {
			var ps []storage.Position
			for ; p <= st.Last && len(ps) < chunk; p++ {
				ps = append(ps, p)
			}
			q.Settle(ps, storage.Discarded, func(err error) { done <- err })
			if err := wait(); err != nil {
				return err
			}
		}
	}
	q.Remove(func(err error) { done <- err })
	return wait()
}

func (b *Broker) findOrphans() {
	queues := b.store.Queues() // before it is asked whose they are: a session has its queue before it is in the table
	owned := map[string]bool{}
	b.mu.RLock()
	for _, s := range b.sessions {
		if s.feed.q != nil {
			owned[s.lane()] = true
		}
	}
	b.mu.RUnlock()
	b.gmu.Lock()
	for _, g := range b.groups {
		owned[hub.Lane(g.queue(), usualPriority)] = true
	}
	b.gmu.Unlock()
	for _, q := range queues {
		name := q.Name()
		if (strings.HasPrefix(name, queuePrefix) || strings.HasPrefix(name, sharePrefix)) && !owned[name] {
			b.graves.add(q)
		}
	}
}
