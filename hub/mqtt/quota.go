package mqtt

import (
	"cmp"
	"errors"
	"slices"
)

// put queues d and minds the quota; s.mu is held. What is over the quota costs a
// connected client its connection, and a sleeping one its oldest messages.
func (s *session) put(d *delivery) {
	switch {
	case d.greets && s.box.greets >= maxGreetings:
		s.tooSlow()
		return
	case d.greets:
	case d.qos == 0 && (s.conn == nil || s.box.crowded()):
		s.b.stats.droppedQoS0.Add(1)
		return
	case s.box.full():
		s.tooSlow()
		for s.box.full() && s.shed() {
		}
	}
	s.box.put(d)
	if s.conn != nil {
		s.conn.poke()
	}
}

// tooSlow hangs up on a client that loses messages: it must not believe that it
// has all. s.mu is held.
func (s *session) tooSlow() {
	if s.conn != nil && !s.conn.doomed() {
		s.b.stats.slow.Add(1)
		s.conn.hangUp(cause{"slow", codeQuota, errors.New("client takes messages too slowly: its queue is full")})
	}
}

// tellEvicted hangs up on clients whose queue has lost its oldest messages to its quota
// or a full disk since it was looked at last: they must not believe that they have all.
func (b *Broker) tellEvicted() {
	b.mu.RLock()
	var kept []*session
	for _, s := range b.sessions {
		if s.feed.q != nil {
			kept = append(kept, s)
		}
	}
	b.mu.RUnlock()
	for _, s := range kept {
		n := s.feed.q.Evicted()
		s.mu.Lock()
		lost := n - s.evicted
		s.evicted = n
		if lost > 0 {
			b.stats.dropped.Add(lost)
			s.tooSlow()
		}
		s.mu.Unlock()
	}
}

// shed drops the oldest message that was never sent, and says whether there was
// one. s.mu is held.
func (s *session) shed() bool {
	d := s.box.evict()
	switch {
	case d == nil:
		return false
	case d.qos == 0:
		s.b.stats.droppedQoS0.Add(1)
	default:
		s.b.stats.dropped.Add(1)
	}
	return true
}

// relieve makes room when all sessions together hold too much. Those that hold
// most lose half of it, one after the other: who sleeps or reads too slowly makes
// room for those who read what they get, never the other way round.
func (b *Broker) relieve() {
	if b.queued.Load() <= maxQueued {
		return
	}
	type load struct {
		s     *session
		bytes int
	}
	var loads []load
	b.mu.RLock()
	for _, s := range b.sessions {
		s.mu.Lock()
		loads = append(loads, load{s, s.box.bytes})
		s.mu.Unlock()
	}
	b.mu.RUnlock()
	slices.SortFunc(loads, func(x, y load) int { return cmp.Compare(y.bytes, x.bytes) })
	const enough = maxQueued / 8 * 7 // not again for each message
	for _, l := range loads {
		if b.queued.Load() <= enough {
			return
		}
		l.s.mu.Lock()
		for l.s.box.bytes > l.bytes/2 && b.queued.Load() > enough && l.s.shed() {
			l.s.tooSlow()
		}
		l.s.mu.Unlock()
	}
}
