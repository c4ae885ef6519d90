package mqtt

import (
	"context"
	"strings"
	"sync"
	"time"
)

// Limits of the retained messages, which are in memory.
const (
	maxRetained      = 10_000
	maxRetainedBytes = 16 << 20
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

// spread gives m to all who subscribe to it.
func (b *Broker) spread(m *message) {
	if m.retain {
		if !b.retained.set(m) {
			b.stats.dropped.Add(1)
			b.warn(m.from, "retained messages are full", nil)
		}
	}
	seen := map[string]bool{}
	for key := range b.topics.Subscribers(m.topic).Subscriptions {
		key = strings.TrimSuffix(key, above)
		if seen[key] {
			continue
		}
		seen[key] = true
		b.mu.RLock()
		s := b.sessions[key]
		b.mu.RUnlock()
		if s != nil {
			s.deliver(m)
		}
	}
}

// retained are the messages that new subscribers get: the newest of each topic.
type retained struct {
	mu    sync.RWMutex
	m     map[string]*message
	bytes int
}

// set keeps m, or removes what is kept where m is empty. It says whether there
// was room.
func (r *retained) set(m *message) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if old := r.m[m.topic]; old != nil {
		r.bytes -= old.size()
		delete(r.m, m.topic)
	}
	if len(m.body) == 0 {
		return true
	}
	if !r.fits(m) {
		r.expire(time.Now())
	}
	if !r.fits(m) {
		return false
	}
	r.m[m.topic] = m
	r.bytes += m.size()
	return true
}

func (r *retained) fits(m *message) bool {
	return len(r.m) < maxRetained && r.bytes+m.size() <= maxRetainedBytes
}

// expire removes what nobody would get any more.
func (r *retained) expire(now time.Time) {
	for t, m := range r.m {
		if m.over(now) {
			r.bytes -= m.size()
			delete(r.m, t)
		}
	}
}

func (r *retained) matching(filter string) (found []*message) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	now := time.Now()
	for t, m := range r.m {
		if matches(filter, t) && !m.over(now) {
			found = append(found, m)
		}
	}
	return found
}

func (r *retained) len() int {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return len(r.m)
}
