package mqtt

import (
	"context"
	"sync"
)

// fanout gives kept messages to other clients, in the order in which they were
// kept, on a goroutine of its own: neither the committer nor a publisher waits
// for a subscriber. Its list is bounded by the windows of the publishers, whose
// places are given back only when a message has gone through.
type fanout struct {
	wake chan struct{}
	hits []hit // used again

	mu   sync.Mutex
	jobs []job
}

type job struct {
	m    *message
	done func()
}

func (f *fanout) add(j job) {
	f.mu.Lock()
	f.jobs = append(f.jobs, j)
	f.mu.Unlock()
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

func (f *fanout) run(ctx context.Context, b *Broker) {
	for {
		select {
		case <-f.wake:
		case <-ctx.Done():
			return
		}
		f.mu.Lock()
		jobs := f.jobs
		f.jobs = nil
		f.mu.Unlock()
		for _, j := range jobs {
			b.relieve()
			b.spread(j.m)
			j.done()
		}
	}
}

// spread gives m to all who subscribe to it and whose queue does not have it.
func (b *Broker) spread(m *message) {
	if m.retain && !b.retained.set(m) {
		b.stats.dropped.Add(1)
		b.warn(m.from, "retained messages are full", nil)
	}
	hits, mixed := b.topics.match(m.topic, b.fan.hits[:0])
	b.fan.hits = hits
	for _, g := range grants(hits, mixed, m.from, m.qos, m.retain) {
		switch who := g.who.(type) {
		case *group:
			who.spread(m)
		case *session:
			who.deliver(m, g.note)
		}
	}
	clear(hits)
}
