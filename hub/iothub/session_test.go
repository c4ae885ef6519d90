package iothub

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"holdfast.dev/holdfast/hub"
)

// TestNotRunning: before Run and after it there is no way.
func TestNotRunning(t *testing.T) {
	l := newLiar(t)
	u := newUpstream(t, l.config())
	o := &outcomes{t: t}
	publish(o, u, 2)
	stop := start(t, u, newFakeHub(nil))
	until(t, "link up", 5*time.Second, u.Up)
	stop()
	publish(o, u, 2)
	for _, r := range o.all() {
		if !errors.Is(r.err, hub.ErrOffline) {
			t.Errorf("%s: %v, want %v", r.id, r.err, hub.ErrOffline)
		}
	}
	if o.count() != 4 || u.Up() {
		t.Errorf("%d answers, up %v; want 4, false", o.count(), u.Up())
	}
}

// lines is where a log goes.
type lines struct {
	mu sync.Mutex
	strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Builder.Write(p)
}

func (l *lines) count(what string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.String(), what)
}

// TestStartDown: a gateway that starts without its cloud says so, once.
func TestStartDown(t *testing.T) {
	t.Parallel()
	l := newLiar(t)
	l.ack = func(*talk) (byte, bool) { return 3, true }
	log := &lines{}
	u, err := New(l.config(), Deps{Log: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	stop := start(t, u, newFakeHub(nil))
	until(t, "three attempts", 20*time.Second, func() bool { return u.State().Attempts >= 3 })
	stop()
	if n := log.count("cloud is not connected"); n != 1 {
		t.Errorf("said %d times that the cloud is not connected, want once", n)
	}
}

// TestBadInTurn: a message that cannot go is answered in its turn, not before
// those ahead of it.
func TestBadInTurn(t *testing.T) {
	l := newLiar(t)
	u := l.upstream(t, nil)
	o := &outcomes{t: t}
	o.publish(u, message("d1", 0))
	bad := message("d1", 1)
	bad.Body = make([]byte, 300<<10)
	o.publish(u, bad)
	o.publish(u, message("d1", 2))
	until(t, "all done", 5*time.Second, func() bool { return o.count() == 3 })
	got := o.all()
	if got[0].err != nil || !errors.Is(got[1].err, hub.ErrBad) || got[2].err != nil {
		t.Errorf("done: %v, want nil, %v, nil", got, hub.ErrBad)
	}
}

// TestWindow: never more than a device's window is under way. Publish blocks when
// its queue is full, that device alone, until ctx ends.
func TestWindow(t *testing.T) {
	l := newLiar(t)
	free := make(chan struct{})
	var open, most atomic.Int32
	l.talk = func(c *talk) {
		var pending []uint16
		var freed bool
		var mu sync.Mutex
		go func() {
			<-free
			mu.Lock()
			defer mu.Unlock()
			for _, id := range pending {
				open.Add(-1)
				c.puback(id)
			}
			pending, freed = nil, true
		}()
		l.answer(c, func(p packet) {
			mu.Lock()
			defer mu.Unlock()
			if c.client != "d1" {
				c.puback(p.id)
				return
			}
			most.Store(max(most.Load(), open.Add(1)))
			if pending = append(pending, p.id); freed {
				open.Add(-1)
				c.puback(p.id)
			}
		})
	}
	u := l.upstream(t, func(c *Config) { c.Window, c.AckTimeout = 5, hub.Duration(20*time.Second) })
	o := &outcomes{t: t}
	publish(o, u, lanes*5)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	late := make(chan error, 1)
	u.Publish(ctx, message("d1", lanes*5), func(err error) { late <- err })
	if ctx.Err() == nil {
		t.Errorf("Publish beyond the window did not wait for ctx")
	}
	select {
	case err := <-late:
		t.Errorf("done of the last before the first: %v", err)
	default:
	}
	other := &outcomes{t: t}
	other.publish(u, message("d2", 0))
	until(t, "d2 done", 5*time.Second, func() bool { return other.count() == 1 })
	until(t, "five under way", 5*time.Second, func() bool { return open.Load() == 5 })
	close(free)
	if err := <-late; !errors.Is(err, hub.ErrOffline) {
		t.Errorf("done of the last: %v, want %v", err, hub.ErrOffline)
	}
	if o.count() != lanes*5 || most.Load() != 5 {
		t.Errorf("%d done, %d under way at most; want %d, 5", o.count(), most.Load(), lanes*5)
	}
}

// TestTotalWindow: the limits over all devices hold.
func TestTotalWindow(t *testing.T) {
	l := newLiar(t)
	var open, most atomic.Int32
	l.talk = func(c *talk) {
		l.answer(c, func(p packet) {
			for n := open.Add(1); n > most.Load(); {
				most.Store(n)
			}
			time.AfterFunc(5*time.Millisecond, func() { open.Add(-1); c.puback(p.id) })
		})
	}
	u := l.upstream(t, func(c *Config) { c.WindowTotal, c.AckTimeout = 7, hub.Duration(20*time.Second) })
	var wg sync.WaitGroup
	for i := range 5 {
		wg.Go(func() { repeat(t, u, fmt.Sprintf("d%d", i), 40, 20*time.Second) })
	}
	wg.Wait()
	if n := most.Load(); n > 7 || n < 3 {
		t.Errorf("%d under way at most, want 7 or little less", n)
	}
}

// TestRate: a drain is paced.
func TestRate(t *testing.T) {
	l := newLiar(t)
	u := l.upstream(t, func(c *Config) { c.Rate = 100 })
	began := time.Now()
	repeat(t, u, "d1", 60, 20*time.Second)
	if d := time.Since(began); d < 490*time.Millisecond {
		t.Errorf("60 messages at 100/s with 10 at once took %v, want 0.5 s", d)
	}
}

// TestConnectionsPerSecond: no more connections are opened in a second than allowed.
func TestConnectionsPerSecond(t *testing.T) {
	t.Parallel()
	l := newLiar(t)
	u := l.upstream(t, func(c *Config) { c.ConnectionsPerSecond, c.AckTimeout = 10, hub.Duration(20*time.Second) })
	o := make([]*outcomes, 25)
	for i := range o {
		o[i] = &outcomes{t: t}
		o[i].publish(u, message(fmt.Sprintf("d%d", i), 0))
	}
	for i := range o {
		until(t, "done", 10*time.Second, func() bool { return o[i].count() == 1 })
		if r := o[i].all()[0]; r.err != nil {
			t.Errorf("%s: %v, want nil", r.id, r.err)
		}
	}
	l.mu.Lock()
	times := l.times[1:] // without the gateway's own
	l.mu.Unlock()
	slices.SortFunc(times, time.Time.Compare)
	for i := range times {
		if i+12 < len(times) && times[i+12].Sub(times[i]) < time.Second { // two of tolerance for a busy machine
			t.Errorf("12 connections within %v, want at most 10 in a second", times[i+12].Sub(times[i]))
		}
	}
}

// TestIdle: a connection that nobody needs is closed, and opened again for a
// message; a listening one and the gateway's own stay.
func TestIdle(t *testing.T) {
	l := newLiar(t)
	u := newUpstream(t, l.config())
	u.set.timings.idle = 200 * time.Millisecond
	h := newFakeHub(nil)
	h.Attach("d2", nil, hub.Method)
	start(t, u, h)
	until(t, "link up", 5*time.Second, u.Up)
	repeat(t, u, "d1", 1, 5*time.Second)
	until(t, "d1 forgotten", 5*time.Second, func() bool { return len(u.State().Connections) == 2 })
	repeat(t, u, "d1", 1, 5*time.Second)
	if got := l.count("d1"); got != 2 {
		t.Errorf("d1: %d connections, want 2", got)
	}
	for _, id := range []string{"d2", "gw/$edgeHub"} {
		if got := l.count(id); got != 1 {
			t.Errorf("%s: %d connections, want 1", id, got)
		}
	}
}

// TestRenew: a connection is renewed before its token ends, without a message
// failing and without the link going down.
func TestRenew(t *testing.T) {
	l := newLiar(t)
	u := newUpstream(t, l.config())
	u.set.timings.renew = 150 * time.Millisecond
	start(t, u, newFakeHub(nil))
	until(t, "link up", 5*time.Second, u.Up)
	changed := u.Changed()
	o := &outcomes{t: t}
	n := 0
	for l.count("d1") < 4 || l.count("gw/$edgeHub") < 4 {
		o.publish(u, message("d1", n))
		n++
		until(t, "done", 5*time.Second, func() bool { return o.count() >= n-20 })
	}
	until(t, "all done", 5*time.Second, func() bool { return o.count() == n })
	for _, r := range o.all() {
		if r.err != nil {
			t.Errorf("%s: %v, want nil", r.id, r.err)
		}
	}
	select {
	case <-changed:
		t.Errorf("link went down while it was renewed")
	default:
	}
}

// TestOwnLost: when the gateway's own connection is lost, others must show that
// they live, and go on if they do.
func TestOwnLost(t *testing.T) {
	t.Parallel()
	l := newLiar(t)
	cut := make(chan struct{})
	l.own = func(c *talk) {
		if c.n == 1 {
			<-cut
			return
		}
		l.honest(c)
	}
	l.talk = func(c *talk) {
		if c.client == "dead" && c.n == 1 { // answers to the publish, to nothing else
			for {
				p, err := c.read()
				if err != nil {
					return
				}
				if p.kind == pktPublish {
					c.puback(p.id)
				}
			}
		}
		l.honest(c)
	}
	u := l.upstream(t, func(c *Config) { c.AckTimeout = hub.Duration(3 * time.Second) })
	repeat(t, u, "dead", 1, 5*time.Second)
	repeat(t, u, "alive", 1, 5*time.Second)
	close(cut)
	until(t, "link down", 5*time.Second, func() bool { return !u.Up() })
	state := func(id hub.Identity) string {
		for _, c := range u.State().Connections {
			if c.ID == id {
				return c.State
			}
		}
		return ""
	}
	until(t, "dead connection given up", 2*time.Second, func() bool { return state("dead") != "connected" })
	if got := state("alive"); got != "connected" {
		t.Errorf("connection that answers: %s, want connected", got)
	}
	until(t, "link up", 5*time.Second, u.Up)
}

// TestLeaves: after Run nothing of all this is left behind.
func TestLeaves(t *testing.T) {
	l := newLiar(t)
	before := runtime.NumGoroutine()
	u := newUpstream(t, l.config())
	h := newFakeHub(nil)
	h.Attach("d1", nil, hub.Method, hub.CloudToDevice)
	stop := start(t, u, h)
	until(t, "link up", 5*time.Second, u.Up)
	for i := range 5 {
		repeat(t, u, fmt.Sprintf("d%d", i), 10, 5*time.Second)
	}
	stop()
	until(t, "goroutines ended", 5*time.Second, func() bool { return runtime.NumGoroutine() <= before })
}

// TestWake: a link that came up is tried at once, often only once.
func TestWake(t *testing.T) {
	t.Parallel()
	l := newLiar(t)
	l.ack = func(*talk) (byte, bool) { return 3, true }
	u := newUpstream(t, l.config())
	start(t, u, newFakeHub(nil))
	until(t, "an attempt", 5*time.Second, func() bool { return u.State().Attempts > 0 })
	began, attempts := time.Now(), u.State().Attempts
	for time.Since(began) < 2500*time.Millisecond {
		u.Wake()
		<-time.After(5 * time.Millisecond)
	}
	if n := u.State().Attempts - attempts; n < 1 || n > 5 {
		t.Errorf("%d attempts in 2.5 s of waking, want 1 to 5", n)
	}
}

// TestCalm: what comes right after a failure fails too, even if the connection is
// back at once: it must not get ahead of what is to be repeated. Mutation seen to
// fail: no calm in fail.
func TestCalm(t *testing.T) {
	t.Parallel()
	l := newLiar(t)
	l.talk = func(c *talk) {
		l.answer(c, func(p packet) {
			if c.n == 1 {
				c.Close()
				return
			}
			c.puback(p.id)
		})
	}
	u := l.upstream(t, nil)
	o := &outcomes{t: t}
	publish(o, u, 1)
	until(t, "the first failed", 5*time.Second, func() bool { return o.count() == 1 })
	o.publish(u, message("d1", 1))
	until(t, "an answer", 10*time.Second, func() bool { return o.count() == 2 })
	if err := o.all()[1].err; !errors.Is(err, hub.ErrOffline) {
		t.Errorf("message right after one that failed: %v, want %v", err, hub.ErrOffline)
	}
	repeat(t, u, "d1", 2, 10*time.Second)
}
