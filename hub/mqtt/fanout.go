package mqtt

import (
	"context"
	"strings"
	"sync"
)

// fanout gives kept messages to other clients, in the order in which they were
// kept, on a goroutine of its own: neither the committer nor a publisher waits
// for a subscriber. Its list is bounded by the windows of the publishers, whose
// places are given back only when a message has gone through.
type fanout struct {
	wake chan struct{}

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
	seen := map[string]bool{}
	for key := range b.topics.Subscribers(m.topic).Subscriptions {
		key = strings.TrimSuffix(key, above)
		if seen[key] {
			continue
		}
		seen[key] = true
		if name, shared := strings.CutPrefix(key, shareKey); shared {
			b.gmu.Lock()
			g := b.groups[name]
			b.gmu.Unlock()
			if g != nil {
				g.spread(m)
			}
			continue
		}
		b.mu.RLock()
		s := b.sessions[key]
		b.mu.RUnlock()
		if s != nil {
			s.deliver(m)
		}
	}
}
