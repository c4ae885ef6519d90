package mqtt

import (
	"context"
	"net"
	"sync"
	"time"
)

// strangers are the connections that have not proven who they are. They have a
// fixed number of places, beside those of clients. When all are taken, newcomers
// wait in the kernel's queue, which costs nothing, until somebody has proven who he
// is, has gone, or is sent away to make room:
//
//	first   the oldest whose credential was wrong and who only waits to be told
//	then    the oldest who has not said CONNECT, once he has had minStay for it
//	never   one who is being judged
//
// So connections that say nothing, or stop in the middle of TLS, hold up a client by
// seconds, however many they are. Without minStay a thousand devices that come back
// at once after a power cut would push each other out, over and over.
type strangers struct {
	freed chan struct{} // a place may be free

	mu   sync.Mutex
	list []*place // in the order in which they came
}

// most strangers at a time, and how long one may take for TLS and CONNECT when
// others wait: a small device needs a second or two for a handshake.
const (
	maxStrangers = 128
	minStay      = 2 * time.Second
)

// place is one stranger's. All methods may be called on nil: connections that come
// by another way than a listener have none.
type place struct {
	s     *strangers
	since time.Time

	// guarded by s.mu
	nc    net.Conn // nil: cannot be sent away yet
	state placeState
}

type placeState byte

const (
	silent    placeState = iota // has not said CONNECT
	judged                      // has, and is looked at
	lingering                   // was refused, and waits to be told
	departed                    // has no place any more
)

func newStrangers() *strangers { return &strangers{freed: make(chan struct{}, 1)} }

// enter waits for a place; it is nil when ctx ends first.
func (s *strangers) enter(ctx context.Context) *place {
	for {
		p, wait := s.try(time.Now())
		if p != nil {
			return p
		}
		timer := time.NewTimer(wait)
		select {
		case <-s.freed:
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
		timer.Stop()
	}
}

// try gives a place, or says after which time to look again.
func (s *strangers) try(now time.Time) (p *place, wait time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.list) >= maxStrangers {
		if wait := s.makeRoom(now); wait > 0 {
			return nil, wait
		}
	}
	p = &place{s: s, since: now}
	s.list = append(s.list, p)
	if len(s.list) < maxStrangers {
		s.poke() // for the next who waits
	}
	return p, 0
}

// makeRoom sends one away, or says how long it will take until one may be; mu is
// held.
func (s *strangers) makeRoom(now time.Time) (wait time.Duration) {
	var out *place
	for _, p := range s.list {
		if p.nc == nil || p.state == judged {
			continue
		}
		if p.state == lingering {
			out = p
			break
		}
		if out == nil {
			out = p
		}
	}
	if out == nil {
		return minStay
	}
	if wait := out.since.Add(minStay).Sub(now); out.state == silent && wait > 0 {
		return wait
	}
	nc := out.nc
	s.remove(out)
	go nc.Close() // over TLS it may take a while
	return 0
}

// remove takes p's place; mu is held.
func (s *strangers) remove(p *place) {
	for i, x := range s.list {
		if x == p {
			s.list = append(s.list[:i], s.list[i+1:]...)
			break
		}
	}
	p.state, p.nc = departed, nil
}

func (s *strangers) poke() {
	select {
	case s.freed <- struct{}{}:
	default:
	}
}

// begin says by which connection the stranger is: from here on he may be sent away.
func (p *place) begin(nc net.Conn) { p.set(silent, nc) }

// speaks says that CONNECT has come and is being judged.
func (p *place) speaks() { p.set(judged, nil) }

// lingers says that there is nothing left but to tell him no.
func (p *place) lingers(nc net.Conn) { p.set(lingering, nc) }

func (p *place) set(state placeState, nc net.Conn) {
	if p == nil {
		return
	}
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	if p.state != departed {
		p.state, p.nc = state, nc
		p.s.poke()
	}
}

// leave gives the place back: he has proven who he is, or has gone.
func (p *place) leave() {
	if p == nil {
		return
	}
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	if p.state != departed {
		p.s.remove(p)
		p.s.poke()
	}
}
