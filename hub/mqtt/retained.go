package mqtt

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"holdfast.dev/holdfast/hub"
	"holdfast.dev/holdfast/storage"
)

// Limits of the retained messages, which are on disk and in memory.
const (
	maxRetained      = 10_000
	maxRetainedBytes = 16 << 20
)

// retained are the messages that new subscribers get: the newest of each topic. On
// disk they are records of a queue of their own, so a message that is retained is one
// more copy of what is kept anyway; the record of an older one is settled when there
// is a newer, and one with no body ends both.
type retained struct {
	q *storage.Queue

	mu    sync.RWMutex
	m     map[string]*message
	bytes int

	// Of the queue; only run and load use them.
	seen storage.Position
	at   map[string]storage.Position
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

// current says whether the message with that id is what is retained on topic.
func (r *retained) current(topic, id string) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	m := r.m[topic]
	return m != nil && m.id == id
}

func (r *retained) len() int {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return len(r.m)
}

// follow goes on through the queue and settles what has been replaced. each, if not
// nil, is shown every record in order.
func (r *retained) follow(each func(it *storage.Item, m *hub.Message)) error {
	for {
		seen, next, err := r.q.Look(r.seen, storage.Limit{Records: feedChunk, Bytes: feedBytes}, nil)
		if err != nil {
			return fmt.Errorf("read retained messages: %w", err)
		}
		if next == r.seen {
			return nil
		}
		r.seen = next
		var over []storage.Position
		for i := range seen {
			over = append(over, r.replace(&seen[i], each)...)
		}
		if len(over) > 0 {
			r.q.Settle(over, storage.Discarded, nil)
		}
	}
}

// replace notes where a record is and gives those that are over by it.
func (r *retained) replace(it *storage.Seen, each func(it *storage.Item, m *hub.Message)) (over []storage.Position) {
	if it.Err != nil || it.Parked {
		return nil
	}
	m, err := hub.Decode(&it.Item)
	if err != nil {
		r.q.ParkRecord(it.Position, err.Error())
		return nil
	}
	if old, ok := r.at[m.Topic]; ok {
		over = append(over, old)
	}
	r.at[m.Topic] = it.Position
	if len(m.Body) == 0 {
		delete(r.at, m.Topic)
		over = append(over, it.Position)
	}
	if each != nil {
		each(&it.Item, &m)
	}
	return over
}

// loadRetained reads what is retained from the disk.
func (b *Broker) loadRetained() error {
	r := &b.retained
	r.q = b.store.Queue(hub.Lane(retainedQueue, usualPriority))
	r.at = map[string]storage.Position{}
	var refused []error
	err := r.follow(func(it *storage.Item, m *hub.Message) {
		l, err := letter(m)
		if err != nil {
			r.q.ParkRecord(it.Position, err.Error())
			return
		}
		l.expires = b.expires(it.Stamp, it.TTL)
		if !l.over(time.Now()) && !r.set(l) {
			refused = append(refused, fmt.Errorf("topic %q", m.Topic))
		}
	})
	if len(refused) > 0 {
		b.log.Warn("retained messages are full; some are not given to new subscribers", "error", errors.Join(refused[:min(len(refused), 5)]...))
	}
	return err
}
