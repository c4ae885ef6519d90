package iothub

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"holdfast.dev/holdfast/hub"
)

// entry is one message in a session.
type entry struct {
	topic   string
	body    []byte
	size    int // what it counts in the total window, bytes
	done    func(error)
	sent    time.Time // when it was handed to the library; zero before
	acked   time.Time // when its acknowledgement came; zero before
	settled bool      // its end is known: err
	err     error
}

// session is one identity's end of the way up: its messages in order, from
// Publish to done, and at most one connection at a time.
//
// The queue is one list. Its first next entries have been handed to the
// connection (or were settled before), the others wait. Entries are settled in
// any order and leave in order, from the front, and only then done is called: so
// done comes in the order of Publish whatever the hub does. At most a window of
// entries is handed over at a time, and so many at most can be repeated.
//
//	phase      what ends it                          next       what is done
//	waiting    needed, link up, its turn             opening
//	waiting    not needed for a while                closed
//	opening    CONNACK 0                             connected  subscriptions are said again
//	opening    CONNACK 4, 5                          refused    all that wait get ErrRefused
//	opening    anything else                         waiting    all that wait get ErrOffline; back-off
//	refused    a message, after 1 to 2 s             opening    (to listen: after 30 s to 5 min)
//	connected  lost, silent                          waiting    all get ErrOffline if any was under way
//	connected  not needed for a while, to be renewed waiting    after what is under way is settled
type session struct {
	u    *Upstream
	id   hub.Identity
	own  bool   // the gateway itself: its connection is the link
	work signal // something is to be sent
	poke signal // something has changed
	hear signal // what it listens for has changed

	mu       sync.Mutex
	queue    []*entry
	next     int
	moved    time.Time     // when an acknowledged entry last left
	room     chan struct{} // closed when an entry leaves; nil if nobody waits
	settling bool          // somebody is in settle
	closed   bool          // nothing is taken any more
	listens  kinds
	conn     *conn
	used     time.Time // when it was last needed
	calm     time.Time // until when everything is failed; see fail
	calmed   time.Time // since when

	phase    string // for the page
	since    time.Time
	lastErr  string
	failures int
	thrown   int // connections in a row that the hub has closed soon; see throw
	refused  bool
	outrun   bool      // the last attempt was overtaken by a probe
	retry    time.Time // next attempt
	listen   time.Time // next attempt if it is only for listening
}

func newSession(u *Upstream, id hub.Identity) *session {
	now := time.Now()
	return &session{
		u: u, id: id, own: id == u.Gateway(), work: newSignal(), poke: newSignal(), hear: newSignal(),
		phase: "waiting", since: now, used: now,
	}
}

// lanes is how many windows the queue has room for: a Forwarder has a window of
// its own for each priority, and must not be held up by one device.
const lanes = 10

// push puts a message into the queue, and waits while it is full. It is false if
// the session has ended and the message is not in it.
func (s *session) push(ctx context.Context, e *entry) bool {
	s.mu.Lock()
	for !s.closed && !e.settled && len(s.queue) >= lanes*s.u.set.window {
		if s.room == nil {
			s.room = make(chan struct{})
		}
		room := s.room
		s.mu.Unlock()
		select {
		case <-room:
			s.mu.Lock()
		case <-ctx.Done():
			// It still takes its place: what came before it ends before it.
			s.mu.Lock()
			e.settled, e.err = true, hub.ErrOffline
		}
	}
	if s.closed {
		s.mu.Unlock()
		return false
	}
	s.queue = append(s.queue, e)
	s.used = time.Now()
	ended := e.settled
	s.mu.Unlock()
	if ended {
		s.settle()
	}
	s.work.send()
	s.poke.send()
	return true
}

// first is the next message to be sent on c, or nil.
func (s *session) first(c *conn) *entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn != c || c.halted {
		return nil
	}
	for s.next < len(s.queue) && s.queue[s.next].settled {
		s.next++
	}
	if s.next == len(s.queue) || s.next >= s.u.set.window {
		return nil
	}
	return s.queue[s.next]
}

// hand moves e, which first has given, to the connection. It is false if e has
// been failed since, or the connection has gone.
func (s *session) hand(c *conn, e *entry) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn != c || c.halted || e.settled {
		return false
	}
	e.sent = time.Now()
	s.next++
	c.handed = append(c.handed, e)
	s.u.counts.sent.Add(1)
	return true
}

// settle lets the settled entries at the front of the queue leave. One goroutine
// does it at a time, without the lock while it calls done, so that done may call
// Publish.
func (s *session) settle() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.settling {
		return // who is at it will see it
	}
	s.settling = true
	for len(s.queue) > 0 && s.queue[0].settled {
		e := s.queue[0]
		s.queue[0] = nil
		s.queue = s.queue[1:]
		s.next = max(0, s.next-1)
		if e.err == nil {
			s.moved = time.Now()
		}
		if s.room != nil {
			close(s.room)
			s.room = nil
		}
		s.mu.Unlock()
		s.leave(e)
		s.mu.Lock()
	}
	s.settling = false
	s.work.send()
	if len(s.queue) == 0 {
		s.poke.send()
	}
}

func (s *session) leave(e *entry) {
	if !e.sent.IsZero() {
		s.u.window.give(e.size)
	}
	switch {
	case e.err == nil:
		s.u.counts.acked.Add(1)
	case errors.Is(e.err, hub.ErrRefused):
		s.u.counts.refused.Add(1)
	default:
		s.u.counts.failed.Add(1)
	}
	e.done(e.err)
}

// fail ends everything in the queue with err, in order.
//
// A message whose acknowledgement came while an older one was still open fails
// too: that one will be handed over again, and after this one it would be out of
// order. The repeat carries the same holdfast-id.
//
// For a moment afterwards (the calm) whatever comes is failed as well: a message
// that was on its way into Publish while those before it failed must not get
// ahead of their repeats.
func (s *session) fail(err error) {
	s.mu.Lock()
	failed := false
	for _, e := range s.queue {
		if !e.settled {
			e.settled, e.err, failed = true, err, true
		} else if failed && e.err == nil {
			e.err = err
		}
	}
	s.next = len(s.queue)
	if now := time.Now(); failed {
		if now.After(s.calm) {
			s.calmed = now
		}
		// Somebody who never pauses must not prolong it for ever.
		if end := now.Add(s.u.set.timings.calm); end.Before(s.calmed.Add(10 * s.u.set.timings.calm)) {
			s.calm = end
		}
	}
	s.mu.Unlock()
	s.settle()
}

// close ends the session if nothing is left in it.
func (s *session) close() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) > 0 || s.settling {
		return false
	}
	s.closed = true
	if s.room != nil {
		close(s.room)
		s.room = nil
	}
	return true
}

// front is the message whose acknowledgement is next in order, nil if none is
// under way. Called with mu held.
func (s *session) front() *entry {
	for _, e := range s.queue[:min(s.next, len(s.queue))] {
		if !e.settled {
			return e
		}
	}
	return nil
}

// overdue says why a connection is to be given up for want of an acknowledgement,
// nil if it is not. The hub acknowledges in order, so while it is merely slow (IoT
// Hub throttles so) there is progress at the front; where it has left one out there
// is none, whatever comes behind. That later ones have come is evidence enough to
// wait no longer than skip.
func (s *session) overdue(now time.Time) error {
	set := s.u.set.timings
	switch late := s.waits(now); {
	case late > set.ack:
		return fmt.Errorf("%w: the hub has acknowledged nothing for %v", errNoAck, late.Round(100*time.Millisecond))
	case late > set.skip && s.skipped(now) > set.skip:
		return fmt.Errorf("%w: the hub has left a message out, and acknowledged later ones for %v", errNoAck, set.skip)
	}
	return nil
}

// skipped is how long ago a message was acknowledged although an earlier one was
// not; 0 if none was.
func (s *session) skipped(now time.Time) (d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	open := false
	for _, e := range s.queue[:min(s.next, len(s.queue))] {
		open = open || !e.settled
		if open && !e.acked.IsZero() {
			d = max(d, now.Sub(e.acked))
		}
	}
	return d
}

// underway is the number of messages handed to the connection and not settled.
func (s *session) underway() int {
	n := 0
	for _, e := range s.queue[:min(s.next, len(s.queue))] {
		if !e.settled {
			n++
		}
	}
	return n
}

// idle says whether nobody has needed the session for a while.
func (s *session) idle(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.own || s.listens != 0 || len(s.queue) > 0 {
		s.used = now
		return false
	}
	return now.Sub(s.used) > s.u.set.timings.idle
}

// note keeps what the page shows. What went wrong before is forgotten once all is
// well.
func (s *session) note(phase string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.phase != phase {
		s.phase, s.since = phase, time.Now()
	}
	switch {
	case err != nil:
		s.lastErr = err.Error()
	case phase == "connected":
		s.lastErr = ""
	}
}

// jitter is a random duration between lo and hi.
func jitter(lo, hi time.Duration) time.Duration {
	if hi <= lo {
		return lo
	}
	return lo + rand.N(hi-lo)
}

// backoff is a wait before another attempt: between 0.1 s and 1 s after the
// first failure, doubling to 30 s, wholly random below that so that a thousand
// connections do not come back together.
func backoff(failures int, first, most time.Duration) time.Duration {
	d := most
	if failures < 16 {
		d = min(most, first<<max(0, failures-1))
	}
	return jitter(first/10, d)
}

// signal wakes one who waits; signals that nobody waited for are one.
type signal chan struct{}

func newSignal() signal { return make(signal, 1) }

func (s signal) send() {
	select {
	case s <- struct{}{}:
	default:
	}
}
