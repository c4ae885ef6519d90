package iothub

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"holdfast.dev/holdfast/hub"
)

func message(from string, n int) hub.Message {
	return hub.Message{ID: fmt.Sprintf("%s-%04d", from, n), From: hub.Identity(from), Body: []byte("x")}
}

// publish hands n messages of d1 over, one after the other.
func publish(o *outcomes, u *Upstream, n int) {
	for i := range n {
		o.publish(u, message("d1", i))
	}
}

// TestHonest is the measure for the liars.
func TestHonest(t *testing.T) {
	l := newLiar(t)
	u := l.upstream(t, nil)
	o := &outcomes{t: t}
	publish(o, u, 500)
	until(t, "all done", 10*time.Second, func() bool { return o.count() == 500 })
	for i, r := range o.all() {
		if r.err != nil {
			t.Errorf("message %d: %v, want nil", i, r.err)
		}
	}
	if got := l.ids(); len(got) != 500 || !slices.IsSorted(got) {
		t.Errorf("hub has %d messages, sorted %v; want 500 in order", len(got), slices.IsSorted(got))
	}
}

// TestLies: ten messages go to a hub that acknowledges in a way of its own. want
// is how many may be done without an error before the connection is given up.
//
// Mutations that were seen to fail here: settling on the library's tokens instead
// of the tap (tokens of "wrong kind" complete); settling the oldest open message
// on any PUBACK ("repeated", "invented", "reused"); calling done at once instead of from the front of the
// queue ("reordered", "first never"); no check of the age of the oldest ("none").
func TestLies(t *testing.T) {
	t.Parallel()
	type hears func(c *talk, n int, p packet) // n counts from 0
	tests := []struct {
		name   string
		lie    hears
		want   int  // done(nil)
		fails  bool // the rest gets ErrOffline; else all are done
		strays bool // acknowledgements that belong to nothing are counted
	}{
		{"none", func(*talk, int, packet) {}, 0, true, false},
		{"one never", func(c *talk, n int, p packet) {
			if n != 4 {
				c.puback(p.id)
			}
		}, 4, true, false},
		{"first never", func(c *talk, n int, p packet) {
			if n != 0 {
				c.puback(p.id)
			}
		}, 0, true, false},
		{"repeated", func(c *talk, n int, p packet) {
			if n < 3 {
				c.puback(p.id)
				c.puback(p.id)
				c.puback(p.id)
			}
		}, 3, true, true},
		{"reused", func(c *talk, n int, p packet) { c.puback(p.id - uint16(n)) }, 1, true, true}, // that of the first
		{"invented", func(c *talk, n int, p packet) { c.puback(p.id + 1000) }, 0, true, true},
		{"all reordered", reorder(10), 10, false, false},
		{"slow", func(c *talk, n int, p packet) {
			time.AfterFunc(time.Duration(n)*300*time.Millisecond, func() { c.puback(p.id) })
		}, 10, false, false},
		{"wrong kind", func(c *talk, _ int, p packet) {
			c.Write([]byte{pktUnsuback << 4, 2, byte(p.id >> 8), byte(p.id)})
			c.Write([]byte{pktSuback << 4, 3, byte(p.id >> 8), byte(p.id), 1})
		}, 0, true, true},
		{"PUBREC", func(c *talk, _ int, p packet) {
			c.Write([]byte{5 << 4, 2, byte(p.id >> 8), byte(p.id)})
		}, 0, true, false},
		{"PUBCOMP", func(c *talk, _ int, p packet) {
			c.Write([]byte{7 << 4, 2, byte(p.id >> 8), byte(p.id)})
		}, 0, true, false},
		{"hangs up", func(c *talk, n int, p packet) {
			if c.puback(p.id); n == 4 {
				c.Close()
			}
		}, 5, true, false},
		{"garbage", func(c *talk, n int, p packet) {
			if c.puback(p.id); n == 4 {
				c.Write([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
			}
		}, 5, true, false},
		{"huge", func(c *talk, n int, p packet) {
			c.Write([]byte{pktPublish << 4, 0xff, 0xff, 0xff, 0x7f})
		}, 0, true, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l := newLiar(t)
			l.talk = func(c *talk) { l.answer(c, after(10, c, tt.lie)) }
			u := l.upstream(t, nil)
			o := &outcomes{t: t}
			publish(o, u, 10)
			until(t, "all done", 10*time.Second, func() bool { return o.count() == 10 })
			for i, r := range o.all() {
				if i < tt.want && r.err != nil {
					t.Errorf("message %d: %v, want nil", i, r.err)
				}
				if i >= tt.want && !errors.Is(r.err, hub.ErrOffline) {
					t.Errorf("message %d: %v, want %v", i, r.err, hub.ErrOffline)
				}
			}
			if got := u.State().Strays; (got > 0) != tt.strays {
				t.Errorf("strays: %d, want some: %v", got, tt.strays)
			}
			if !u.Up() {
				t.Errorf("link went down with a leaf's connection")
			}
		})
	}
}

// after lies about the first n publishes of a connection when all have come. A
// connection that ends before is none: what was not yet handed to it goes on the
// next one and is rightly acknowledged there.
func after(n int, c *talk, lie func(c *talk, n int, p packet)) func(packet) {
	var came []packet
	return func(p packet) {
		if came = append(came, p); len(came) < n {
			return
		}
		for i, p := range came {
			lie(c, i, p)
		}
	}
}

// reorder answers n publishes backwards, when all have come.
func reorder(n int) func(*talk, int, packet) {
	var ids []uint16
	return func(c *talk, _ int, p packet) {
		if ids = append(ids, p.id); len(ids) < n {
			return
		}
		for _, id := range slices.Backward(ids) {
			c.puback(id)
		}
	}
}

// TestConnack: what a CONNACK means for messages. The library takes an unknown
// code for success, and tries a refused connection again with MQTT 3.1. Mutations
// seen to fail: believing the token of Connect instead of the code that the tap
// has read; no SetProtocolVersion.
func TestConnack(t *testing.T) {
	t.Parallel()
	tests := []struct {
		code     byte
		ok       bool // a CONNACK is sent at all
		want     error
		attempts int
	}{
		{3, true, hub.ErrOffline, 1},
		{4, true, hub.ErrRefused, 1},
		{5, true, hub.ErrRefused, 1},
		{1, true, hub.ErrOffline, 1},
		{0x86, true, hub.ErrOffline, 1},
		{0, false, hub.ErrOffline, 1},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("%#x %v", tt.code, tt.ok), func(t *testing.T) {
			t.Parallel()
			l := newLiar(t)
			all := make(chan struct{}) // what comes after the answer waits for another attempt
			l.ack = func(c *talk) (byte, bool) {
				if c.client == "d1" {
					<-all
					return tt.code, tt.ok
				}
				return 0, true
			}
			u := l.upstream(t, nil)
			o := &outcomes{t: t}
			publish(o, u, 3)
			close(all)
			until(t, "all done", 10*time.Second, func() bool { return o.count() == 3 })
			for _, r := range o.all() {
				if !errors.Is(r.err, tt.want) {
					t.Errorf("done: %v, want %v", r.err, tt.want)
				}
			}
			if got := l.count("d1"); got != tt.attempts {
				t.Errorf("attempts: %d, want %d", got, tt.attempts)
			}
			// The others go on.
			other := &outcomes{t: t}
			other.publish(u, message("d2", 0))
			until(t, "d2 done", 5*time.Second, func() bool { return other.count() == 1 })
			if r := other.all()[0]; r.err != nil {
				t.Errorf("d2: %v, want nil: one refused device holds up nobody", r.err)
			}
		})
	}
}

// TestRefusedThenTaken: a later Publish is a new trial.
func TestRefusedThenTaken(t *testing.T) {
	t.Parallel()
	l := newLiar(t)
	l.ack = func(c *talk) (byte, bool) {
		if c.client == "d1" && c.n == 1 {
			return 5, true
		}
		return 0, true
	}
	u := l.upstream(t, nil)
	o := &outcomes{t: t}
	publish(o, u, 1)
	until(t, "refused", 5*time.Second, func() bool { return o.count() == 1 })
	time.AfterFunc(2*u.set.timings.calm, func() { publish(o, u, 1) })
	until(t, "taken", 10*time.Second, func() bool { return o.count() == 2 })
	if r := o.all(); !errors.Is(r[0].err, hub.ErrRefused) || r[1].err != nil {
		t.Errorf("done: %v, %v; want %v, nil", r[0].err, r[1].err, hub.ErrRefused)
	}
}

// TestSilence: the hub stops to read and to write, without a reset. What is open
// fails in time and comes through on the next connection, both for a leaf and for
// the gateway itself; an idle own connection is found out by its pings.
func TestSilence(t *testing.T) {
	t.Parallel()
	silent := func(l *liar) func(c *talk) {
		return func(c *talk) {
			if c.n > 1 {
				l.honest(c)
				return
			}
			p, err := c.read()
			if err == nil && p.kind == pktPublish {
				c.puback(p.id) // the first, and then nothing
			}
			buf := make([]byte, 1)
			for err == nil { // until the far side gives up
				_, err = c.NetConn().Read(buf)
			}
		}
	}
	t.Run("leaf", func(t *testing.T) {
		t.Parallel()
		l := newLiar(t)
		l.talk = silent(l)
		u := l.upstream(t, nil)
		repeat(t, u, "d1", 20, 10*time.Second)
		if got := l.count("d1"); got < 2 {
			t.Errorf("connections: %d, want the silent one to be given up", got)
		}
	})
	t.Run("own", func(t *testing.T) {
		t.Parallel()
		l := newLiar(t)
		l.own = silent(l)
		u := l.upstream(t, nil)
		repeat(t, u, "gw/$edgeHub", 20, 15*time.Second)
	})
	t.Run("idle own", func(t *testing.T) {
		t.Parallel()
		l := newLiar(t)
		l.own = silent(l)
		u := l.upstream(t, nil)
		until(t, "link down", 10*time.Second, func() bool { return !u.Up() })
		until(t, "link up", 10*time.Second, u.Up)
		if got := l.count("gw/$edgeHub"); got < 2 {
			t.Errorf("connections: %d, want a second", got)
		}
	})
}

// NetConn is the TCP connection under a talk.
func (c *talk) NetConn() net.Conn { return c.Conn.(interface{ NetConn() net.Conn }).NetConn() }

// repeat hands n messages over as a Forwarder does: in order, many at a time, and
// after a failure again from the first that failed, after a pause. It fails if not
// all are done in time.
func repeat(t *testing.T, u *Upstream, from string, n int, d time.Duration) {
	t.Helper()
	repeatFrom(t, u, from, 0, n, d)
}

func repeatFrom(t *testing.T, u *Upstream, from string, next, n int, d time.Duration) {
	t.Helper()
	end := time.Now().Add(d)
	for next < n {
		if time.Now().After(end) {
			t.Fatalf("%s: %d of %d done within %v", from, next, n, d)
		}
		o := &outcomes{t: t}
		for i := next; i < n; i++ {
			o.publish(u, message(from, i))
		}
		until(t, "an answer for each", d, func() bool { return o.count() == n-next })
		all := o.all()
		bad := slices.IndexFunc(all, func(r result) bool { return r.err != nil })
		if bad < 0 {
			return
		}
		for _, r := range all[bad:] {
			if r.err == nil {
				t.Errorf("%s: done without an error after one that failed", r.id)
			}
		}
		next += bad
		<-time.After(2 * u.set.timings.calm) // a Forwarder's pause
	}
}

// TestNothingFalse: a Forwarder's loop through a hub that hangs up, drops and
// reorders: every message arrives, first copies in order, none is done that the
// hub has not got.
func TestNothingFalse(t *testing.T) {
	t.Parallel()
	l := newLiar(t)
	l.talk = func(c *talk) {
		n := 0
		l.answer(c, func(p packet) {
			n++
			switch {
			case c.n < 6 && n == 7*c.n:
				c.Close()
			case c.n%2 == 0 && n%5 == 0: // never acknowledged
			default:
				c.puback(p.id)
				c.puback(p.id)
			}
		})
	}
	u := l.upstream(t, nil)
	repeat(t, u, "d1", 60, 60*time.Second)
	first, seen := []string{}, map[string]bool{}
	for _, id := range l.ids() {
		if !seen[id] {
			first, seen[id] = append(first, id), true
		}
	}
	if len(first) != 60 || !slices.IsSorted(first) {
		t.Errorf("hub has %d messages, first copies in order: %v; want 60, true", len(first), slices.IsSorted(first))
	}
	t.Logf("%d copies of %d messages over %d connections", len(l.ids()), len(first), l.count("d1"))
}

// TestNoSecrets: neither state nor errors hold the key or a token.
func TestNoSecrets(t *testing.T) {
	l := newLiar(t)
	l.ack = func(*talk) (byte, bool) { return 5, true }
	u := newUpstream(t, l.config())
	start(t, u, newFakeHub(nil))
	until(t, "refused", 5*time.Second, failed(u))
	st := fmt.Sprintf("%+v", u.State())
	if strings.Contains(st, "c2VjcmV0") || strings.Contains(st, "sig=") {
		t.Errorf("state holds a secret: %s", st)
	}
	if !strings.Contains(st, "[iothub] connection") {
		t.Errorf("state %s: want a hint at [iothub] connection", st)
	}
	if u.Up() {
		t.Errorf("up although refused")
	}
}
