package iothub

import (
	"context"
	"errors"
	"sync"
	"time"

	"holdfast.dev/holdfast/hub"
)

// The way back is looked for with a bare TCP connection every probeLow to
// probeHigh, so that it is noticed within 2 s and costs the hub nothing. Once the
// hub can be reached and still does not answer as it should, the probe serves
// only to see it go away again and comes rarely.
const (
	probeLow     = 1000 * time.Millisecond
	probeHigh    = 1500 * time.Millisecond
	probeRare    = 5 * time.Second
	probeTimeout = 4 * time.Second  // probes overlap: one that began before the way came back does not delay the next
	wakePause    = time.Second      // between two attempts for Wake
	firmAfter    = 10 * time.Second // a connection that lasted so long was a good one
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
//	probe succeeds that had failed before     at once
//	Wake                                      at once, at most one a second
//	probe succeeds, attempt had not           back-off, 1 s to 30 s
//	cloud refused the credential              30 s to 5 min; Wake counts
func (u *Upstream) await(ctx context.Context, s *session) bool {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	reached := make(chan bool, 8)
	next := time.NewTimer(0)
	defer next.Stop()
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
		case <-next.C:
			u.wg.Go(func() { u.probe(ctx, reached) })
			next.Reset(u.pause())
		case ok := <-reached:
			if ok && !u.near.Swap(true) && !refused {
				u.mayTry(s, 0)
			} else if !ok && u.near.Swap(false) {
				next.Reset(u.pause())
			}
		}
		due.Stop()
		if ctx.Err() != nil {
			return false
		}
	}
}

func (u *Upstream) pause() time.Duration {
	if u.near.Load() {
		return probeRare
	}
	return jitter(probeLow, probeHigh)
}

// mayTry brings the next attempt forward, to pause after the last one at best.
func (u *Upstream) mayTry(s *session, pause time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if at := u.tried.Add(pause); at.Before(s.retry) {
		s.retry = at
	}
}

// probe tries a bare connection, through the proxy where there is one.
func (u *Upstream) probe(ctx context.Context, reached chan<- bool) {
	u.counts.probes.Add(1)
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	conn, err := u.set.dial(ctx, u.set.mqtt)
	if err == nil {
		conn.Close()
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return // an attempt is being made
	}
	select {
	case reached <- err == nil:
	default:
	}
}

// linkUp tells everybody that the way is there, and forgets what failed without it.
func (u *Upstream) linkUp() {
	if !u.link.set(true) {
		return
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
	if changed := u.link.set(false); changed || !u.told {
		u.told = true
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
			u.wg.Go(c.challenge)
		}
	}
}
