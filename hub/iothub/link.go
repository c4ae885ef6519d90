package iothub

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"holdfast.dev/holdfast/hub"
)

// While the link is down the way back is looked for with a probe every probeLow to
// probeHigh, so that it is noticed within 2 s, and half as often when it has been
// down for longer than probeLong. What that costs on the wire, a minute, headers
// counted:
//
//	                                                 a probe   first 10 min   later
//	packets vanish (three SYNs)                      0.2 KB    10 KB          5 KB
//	connections are refused                          0.1 KB     5 KB          2.5 KB
//	connections are taken, the hub does not answer   0.7 KB    34 KB          17 KB
//	the hub answers                                  5 KB      once
//
// Attempts that hang in silence add 3 KB a minute at most.
//
// Once the hub can be reached and still does not answer as it should, a probe is a
// bare connection; it serves only to see the hub go away again and comes rarely.
const (
	probeLow     = 1000 * time.Millisecond
	probeHigh    = 1500 * time.Millisecond
	probeLong    = 10 * time.Minute
	probeRare    = 5 * time.Second
	probeTimeout = 4 * time.Second  // probes overlap: one that began before the way came back does not delay the next
	wakePause    = time.Second      // between two attempts for Wake
	firmAfter    = 10 * time.Second // a connection that lasted so long was a good one
)

var (
	errOutrun   = errors.New("no answer, while a later probe got one")
	errNoAnswer = fmt.Errorf("no answer for %v", probeTimeout)
	errLinkLost = errors.New("the gateway's own connection was lost meanwhile")
)

// link is whether the way is up, for all who want to know.
type link struct {
	mu      sync.Mutex
	up      bool
	since   time.Time
	changed chan struct{}
}

func newLink() *link { return &link{since: time.Now(), changed: make(chan struct{})} }

func (l *link) set(up bool) (changed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.up == up {
		return false
	}
	l.up, l.since = up, time.Now()
	close(l.changed)
	l.changed = make(chan struct{})
	return true
}

func (l *link) state() (up bool, since time.Time, changed <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.up, l.since, l.changed
}

// await waits, while the link is down, for the moment of the next attempt at the
// gateway's own connection. Whatever is to be sent meanwhile is told at once that
// there is no way. It is false when ctx ended.
//
//	what happens                              attempt
//	first of all                              at once
//	the way has come back (see scout)         at once
//	Wake                                      at once, at most one a second
//	probe succeeds, attempt had not           back-off, 1 s to 30 s
//	cloud refused the credential              30 s to 5 min; Wake counts
func (u *Upstream) await(ctx context.Context, s *session) bool {
	for {
		s.mu.Lock()
		waiting, refused, wait := len(s.queue) > 0, s.refused, max(time.Until(s.retry), time.Until(s.calm))
		s.mu.Unlock()
		if wait <= 0 {
			return ctx.Err() == nil
		}
		if waiting {
			s.fail(hub.ErrOffline)
		}
		due := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-due.C:
		case <-s.poke:
		case <-u.wake:
			u.mayTry(s, wakePause)
		case <-u.back:
			if !refused {
				u.mayTry(s, 0)
			}
		}
		due.Stop()
		if ctx.Err() != nil {
			return false
		}
	}
}

// escort watches an attempt at a connection. An attempt that began while packets
// vanished can hang for as long as its deadline allows, for nobody resets it. So
// the gateway's own is abandoned when a probe that began later gets an answer and
// it has heard nothing; or nothing since a probe went unanswered. A hub that is
// merely slow to say CONNACK was heard and answers all probes: it gets its time.
// Another identity's is abandoned when the link goes down; one that takes long is
// a reason to ask whether the link is there.
func (s *session) escort(ctx context.Context, abandon context.CancelCauseFunc, l *line) {
	silent := time.NewTimer(probeTimeout)
	defer silent.Stop()
	if !s.own {
		up, _, changed := s.u.link.state()
		for up {
			select {
			case <-ctx.Done():
				return
			case <-silent.C:
				s.u.askOwn()
			case <-changed:
				up = false
			}
		}
		abandon(errLinkLost)
		return
	}
	began := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case probe := <-s.u.back:
			last := l.heard.Load()
			if last == 0 && probe.After(began) || last != 0 && s.u.missed.Load() > last {
				abandon(errOutrun)
				return
			}
		case <-silent.C: // then it is as good as a probe that went unanswered
			if last := time.Unix(0, l.heard.Load()); time.Since(last) < probeTimeout {
				silent.Reset(time.Until(last.Add(probeTimeout)))
				continue
			}
			s.u.far()
			if up, _, _ := s.u.link.state(); up { // the last one was to be renewed: there is no way
				abandon(errNoAnswer)
				return
			}
		}
	}
}

// scout looks for the way back whenever the link is down, during attempts too, and
// says so in back when a probe is answered after none was, or after a connection
// that was good.
func (u *Upstream) scout(ctx context.Context) {
	for ctx.Err() == nil {
		up, since, changed := u.link.state()
		if !up {
			u.seek(ctx, since, changed)
			continue
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

func (u *Upstream) seek(ctx context.Context, since time.Time, changed <-chan struct{}) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	next := time.NewTimer(jitter(probeLow, probeHigh)) // whatever near says: that was before the link went down
	defer next.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-changed:
			return
		case <-u.doubt:
		case <-next.C:
			u.wg.Go(func() { u.probe(ctx) })
		}
		next.Reset(u.pause(since))
	}
}

func (u *Upstream) pause(since time.Time) time.Duration {
	switch {
	case u.near.Load():
		return probeRare
	case time.Since(since) > probeLong:
		return 2 * jitter(probeLow, probeHigh)
	}
	return jitter(probeLow, probeHigh)
}

// far: the hub is not to be heard any more.
func (u *Upstream) far() {
	if u.near.Swap(false) {
		u.doubt.send()
	}
}

// mayTry brings the next attempt forward, to pause after the last one at best.
func (u *Upstream) mayTry(s *session, pause time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if at := u.tried.Add(pause); at.Before(s.retry) {
		s.retry = at
	}
}

// probe asks once whether the hub can be reached, through the proxy where there is
// one.
func (u *Upstream) probe(ctx context.Context) {
	u.counts.probes.Add(1)
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	began := time.Now()
	err := u.reach(ctx)
	switch {
	case errors.Is(ctx.Err(), context.Canceled): // nobody wants to know any more
	case err != nil:
		if at := began.UnixNano(); at > u.missed.Load() {
			u.missed.Store(at)
		}
		u.far()
	case !u.near.Swap(true):
		select {
		case u.back <- began:
		default:
		}
	}
}

func (u *Upstream) reach(ctx context.Context) error {
	if !u.near.Load() {
		return u.set.knock(ctx, u.set.mqtt)
	}
	conn, err := u.set.dial(ctx, u.set.mqtt)
	if err == nil {
		conn.Close()
	}
	return err
}

// linkUp tells everybody that the way is there, and forgets what failed without it.
func (u *Upstream) linkUp() {
	if !u.link.set(true) {
		return
	}
	select {
	case <-u.back: // no news any more
	default:
	}
	u.deps.Log.Info("cloud is connected", "host", u.set.host)
	for _, s := range u.all() {
		s.mu.Lock()
		if !s.refused && !s.own {
			s.failures, s.retry, s.listen = 0, time.Time{}, time.Time{}
		}
		s.mu.Unlock()
		s.poke.send()
	}
}

// linkDown tells everybody that the way is gone. The other connections may live
// on (the hub may have closed this one alone), but must show it soon.
func (u *Upstream) linkDown(why error) {
	if changed := u.link.set(false); u.told.CompareAndSwap(false, true) || changed {
		u.deps.Log.Warn("cloud is not connected", "host", u.set.host, "reason", why)
	}
	u.challenge(false)
}

// challenge asks all connections for a sign of life.
func (u *Upstream) challenge(own bool) {
	for _, s := range u.all() {
		s.mu.Lock()
		c := s.conn
		s.mu.Unlock()
		if c != nil && (own || !s.own) {
			u.wg.Go(c.tap.ping) // attend judges the answer
		}
	}
}
