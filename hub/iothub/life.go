package iothub

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"holdfast.dev/holdfast/hub"
)

const (
	hold     = 3 * time.Second // messages wait this long for a connection that is about to be tried
	slowMost = 5 * time.Minute
	ownMost  = 30 * time.Second
	leafMost = 15 * time.Second // the Forwarder's own back-off comes on top, both within 60 s
	farewell = time.Second      // for the last acknowledgements when the program ends
)

var errNoAck = errors.New("no acknowledgement in time")

// run is a session's life: wait until a connection is wanted, open it, serve it
// until it ends.
func (s *session) run(ctx context.Context) {
	for s.ready(ctx) {
		s.note("opening", nil)
		c, err := s.connect(ctx)
		if err == nil {
			err = s.serve(ctx, c)
		} else {
			c = nil
		}
		s.ended(ctx, c, err)
	}
	s.note("closed", nil)
}

// ready waits for the moment to open a connection. It is false when the session
// has ended: ctx has, or nobody has needed it for a while.
func (s *session) ready(ctx context.Context) bool {
	if s.own {
		if s.u.await(ctx, s) {
			s.u.tried = time.Now()
			return true
		}
	}
	for {
		if ctx.Err() != nil {
			s.fail(hub.ErrOffline)
			if s.close() {
				return false
			}
			s.sleep(context.Background(), time.Second, nil) // somebody is in done
			continue
		}
		up, _, changed := s.u.link.state()
		now := time.Now()
		s.mu.Lock()
		waiting, wanted, calm := len(s.queue) > 0, len(s.queue) > 0 || s.listens != 0, s.calm.Sub(now)
		wait, answer := s.due(waiting, now)
		s.mu.Unlock()
		switch {
		case calm > 0 || !up:
			if waiting {
				s.fail(hub.ErrOffline)
			}
			if calm <= 0 {
				calm = time.Minute
			}
			s.sleep(ctx, calm, changed)
		case !wanted:
			if s.idle(now) && s.u.forget(s) {
				return false
			}
			s.sleep(ctx, s.u.set.timings.idle/4, nil)
		case wait > 0:
			if waiting && wait > hold {
				s.fail(answer)
			}
			s.sleep(ctx, wait, changed)
		case s.turn(ctx, changed):
			return true
		}
	}
}

// due is how long the back-off still lasts, and what is to be said of it. What
// the cloud has refused is tried again soon for a message, for that is somebody's
// new trial, and rarely to listen. Called with mu held.
func (s *session) due(waiting bool, now time.Time) (time.Duration, error) {
	if s.refused && !waiting {
		return s.listen.Sub(now), hub.ErrRefused
	}
	return s.retry.Sub(now), hub.ErrOffline
}

// turn waits for the session's turn among all that want to open a connection.
func (s *session) turn(ctx context.Context, changed <-chan struct{}) bool {
	r := s.u.opens.Reserve()
	t := time.NewTimer(r.Delay())
	defer t.Stop()
	select {
	case <-t.C:
		up, _, _ := s.u.link.state()
		return up
	case <-changed:
	case <-ctx.Done():
	}
	r.Cancel()
	return false
}

// sleep waits until something changes, at most d.
func (s *session) sleep(ctx context.Context, d time.Duration, changed <-chan struct{}) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-s.poke:
	case <-changed:
	case <-ctx.Done():
	}
}

// serve keeps a connection until it is lost (the error says why), nobody needs it
// any more, or it is to be renewed (nil).
func (s *session) serve(ctx context.Context, c *conn) error {
	s.mu.Lock()
	s.conn = c
	s.mu.Unlock()
	s.note("connected", nil)
	if s.own {
		s.u.linkUp()
	}
	s.u.wg.Go(func() { c.send(ctx) })
	s.u.wg.Go(func() { c.listen(ctx) })
	s.u.wg.Go(func() { c.deliver(ctx) })
	s.u.wg.Go(c.attend)
	tick := time.NewTicker(max(10*time.Millisecond, s.u.set.timings.ack/20))
	defer tick.Stop()
	for {
		select {
		case <-c.down:
			return c.why
		case <-ctx.Done():
			c.finish(time.Now().Add(farewell))
			return ctx.Err()
		case <-s.wakeOwn():
			s.u.challenge(true)
		case now := <-tick.C:
			late := s.overdue(now)
			switch {
			case late != nil:
				c.lost(late)
			case s.idle(now), now.Sub(c.born) > c.old:
				c.finish(now.Add(tokenLife)) // or until overdue
			}
		}
	}
}

// wakeOwn: that a link came up while we are connected may mean that the
// connection went over another one that has died.
func (s *session) wakeOwn() <-chan struct{} {
	if s.own {
		return s.u.wake
	}
	return nil
}

// finish sends nothing more, waits for what is under way, as long as it moves and
// until end, and closes.
func (c *conn) finish(end time.Time) {
	s := c.s
	s.mu.Lock()
	c.halted = true
	s.mu.Unlock()
	tick := time.NewTicker(max(10*time.Millisecond, s.u.set.timings.ack/20))
	defer tick.Stop()
	for {
		s.mu.Lock()
		n := s.underway()
		s.mu.Unlock()
		if n == 0 {
			c.part(nil)
			return
		}
		select {
		case <-s.poke:
		case <-c.down:
			return
		case now := <-tick.C:
			late := s.overdue(now)
			if late == nil && now.After(end) {
				late = errNoAck
			}
			if late != nil {
				c.lost(late)
				return
			}
		}
	}
}

// ended draws the consequences of a connection that ended or did not come about.
func (s *session) ended(ctx context.Context, c *conn, err error) {
	if ctx.Err() != nil { // we are leaving: nothing went wrong
		s.mu.Lock()
		s.conn = nil
		s.mu.Unlock()
		s.note("waiting", nil)
		s.fail(hub.ErrOffline)
		return
	}
	now := time.Now()
	lasted := c != nil && now.Sub(c.born) > firmAfter
	s.mu.Lock()
	s.conn = nil
	lasted = lasted || c != nil && c.useful
	s.refused = errors.Is(err, hub.ErrRefused)
	if err == nil || lasted {
		s.failures = 0
	}
	switch {
	case err == nil:
		s.retry = now
	case s.refused:
		s.failures++
		s.listen = now.Add(backoff(s.failures, s.u.set.timings.slow, slowMost) + s.u.set.timings.slow)
		s.retry = now.Add(jitter(time.Second, 2*time.Second))
		if s.own {
			s.retry = s.listen // nobody's trial, and every message waits for it alone
		}
	case errors.Is(err, errOutrun) && !s.outrun:
		s.failures++
		s.retry = now // the second in a row backs off: something is odd with that way
	default:
		s.failures++
		most := leafMost
		if s.own {
			most = ownMost
		}
		s.retry = now.Add(backoff(s.failures, time.Second, most))
		s.listen = s.retry
	}
	s.outrun = errors.Is(err, errOutrun)
	// What waits may go on waiting if nothing was under way: no order is at stake.
	broken := err != nil && (c == nil || s.underway() > 0)
	err = s.throw(now, c, err)
	s.mu.Unlock()
	s.tell(c, err)
	if broken {
		answer := hub.ErrOffline
		if s.refused && !s.own {
			answer = hub.ErrRefused
		}
		s.fail(answer)
	}
	if s.own && err != nil {
		// Where the attempt got as far as a probe would, a probe that succeeds says
		// nothing new.
		var unreachable unreachableError
		if lasted || errors.As(err, &unreachable) {
			s.u.far()
		} else {
			s.u.near.Store(true)
		}
		s.u.linkDown(err)
	}
}

const (
	thrownAfter = time.Minute // a connection that lasted for longer was not thrown out by a rival
	thrownOften = 3
	rivals      = "another gateway may be using this identity: look whether its connection string is in use twice; or the hub closes on what is sent"
)

// throw notices a hub that closes one connection after the other soon after it was
// opened: it does so when somebody else connects with the same identity, and two
// such take turns for ever. The error says so then. Called with mu held.
func (s *session) throw(now time.Time, c *conn, err error) error {
	closed := errors.Is(err, errClosed) || errors.Is(err, syscall.ECONNRESET)
	if c == nil || !closed || now.Sub(c.born) > thrownAfter {
		s.thrown = 0
		return err
	}
	s.thrown++
	if s.thrown < thrownOften {
		return err
	}
	return fmt.Errorf("%w %v after it was opened, the %d. time in a row: %s", err, now.Sub(c.born).Round(100*time.Millisecond), s.thrown, rivals)
}

// tell writes down how a connection ended.
func (s *session) tell(c *conn, err error) {
	if err == nil {
		s.note("waiting", nil)
		return
	}
	s.u.counts.lost.Add(1)
	log := s.u.deps.Log.With("identity", s.id, "reason", err)
	switch {
	case s.refused && s.own:
		err = fmt.Errorf("%w; look at [iothub] connection (device, key), at the clock, and whether the device is enabled", err)
		log.Error("cloud refuses the gateway", "hint", "look at [iothub] connection, at the clock, and whether the device is enabled")
		s.note("refused", err)
	case s.refused:
		log.Warn("cloud refuses a device")
		s.note("refused", err)
	default:
		if s.thrown == thrownOften && !s.own { // of the gateway's own linkDown tells
			log.Warn("cloud closes a device's connection again and again")
		}
		log.Debug("connection ended", "was_open", c != nil)
		s.note("waiting", err)
	}
}
