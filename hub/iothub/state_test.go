package iothub

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"holdfast.dev/holdfast/hub"
)

// TestLeaveQuietly: who stops on purpose has nothing to warn of, whether it was
// connected or in the middle of an attempt.
func TestLeaveQuietly(t *testing.T) {
	t.Parallel()
	for name, ack := range map[string]func(*talk) (byte, bool){
		"connected": nil,
		"opening":   func(*talk) (byte, bool) { return 0, false },
	} {
		l := newLiar(t)
		l.ack = ack
		cfg := l.config()
		cfg.AckTimeout = hub.Duration(20 * time.Second)
		log := &lines{}
		u, err := New(cfg, Deps{Log: slog.New(slog.NewTextHandler(log, nil))})
		if err != nil {
			t.Fatal(err)
		}
		stop := start(t, u, newFakeHub(nil))
		until(t, "an attempt", 5*time.Second, func() bool { return l.count("gw/$edgeHub") == 1 && (ack != nil || u.Up()) })
		stop()
		if n := log.count("level=WARN"); n != 0 {
			t.Errorf("%s: %d warnings, want none: %s", name, n, log)
		}
		if n := log.count("cloud is disconnected"); ack == nil && n != 1 {
			t.Errorf("said %d times that the cloud is disconnected, want once", n)
		}
	}
}

// TestErrorForgotten: a connection that is there and well shows no error.
func TestErrorForgotten(t *testing.T) {
	t.Parallel()
	l := newLiar(t)
	l.ack = func(c *talk) (byte, bool) {
		if c.n == 1 {
			return 3, true
		}
		return 0, true
	}
	u := newUpstream(t, l.config())
	start(t, u, newFakeHub(nil))
	until(t, "an error", 5*time.Second, func() bool { return strings.Contains(fmt.Sprint(u.State()), "CONNACK 3") })
	until(t, "link up", 5*time.Second, u.Up)
	if st := u.State(); st.LastError != "" || st.Connections[0].LastError != "" {
		t.Errorf("last error %q, of the connection %q; want none", st.LastError, st.Connections[0].LastError)
	}
}

// TestSilentState: a hub that says nothing is to be seen long before it is given
// up, whether it leaves CONNECT, a message or a ping without an answer.
func TestSilentState(t *testing.T) {
	t.Parallel()
	silent := func(u *Upstream, id hub.Identity) Connection {
		st := u.State()
		for _, c := range st.Connections {
			if c.ID == id && st.Silent >= c.Silent {
				return c
			}
		}
		return Connection{}
	}
	const some = 200 * time.Millisecond

	l := newLiar(t)
	l.ack = func(c *talk) (byte, bool) { return 0, c.client != "mute" }
	l.own = func(c *talk) { // answers no ping
		for {
			if _, err := c.read(); err != nil {
				return
			}
		}
	}
	l.talk = func(c *talk) { l.answer(c, func(packet) {}) }
	u := l.upstream(t, func(c *Config) { c.AckTimeout = hub.Duration(20 * time.Second) })
	if c := silent(u, u.Gateway()); c.State != "connected" || c.Silent != 0 || c.Oldest != 0 {
		t.Errorf("idle: %+v, want no silence", c)
	}
	o, mute := &outcomes{t: t}, &outcomes{t: t}
	o.publish(u, message("d1", 0))
	mute.publish(u, message("mute", 0))
	until(t, "no acknowledgement", 5*time.Second, func() bool { c := silent(u, "d1"); return c.Silent > some && c.Oldest > some })
	until(t, "no CONNACK", 5*time.Second, func() bool { return silent(u, "mute").Silent > some })
	u.Wake()
	until(t, "no answer to a ping", 5*time.Second, func() bool { c := silent(u, u.Gateway()); return c.Silent > some && c.Oldest == 0 })
	if !u.Up() {
		t.Errorf("link is down, want it still to be waited for")
	}
}

// TestConnecting: the first attempt says what it is at.
func TestConnecting(t *testing.T) {
	t.Parallel()
	l := newLiar(t)
	l.ack = func(*talk) (byte, bool) { return 0, false }
	u := newUpstream(t, l.config())
	start(t, u, newFakeHub(nil))
	until(t, "an attempt", 5*time.Second, func() bool { return l.count("gw/$edgeHub") == 1 })
	if got, want := u.State().LastError, "connecting to "+l.addr; got != want {
		t.Errorf("last error %q, want %q", got, want)
	}
	until(t, "its end", 5*time.Second, func() bool { return strings.Contains(u.State().LastError, "no answer to CONNECT") })
}

// failed says whether an attempt at the gateway's own connection has failed.
func failed(u *Upstream) func() bool {
	return func() bool { st := u.State(); return len(st.Connections) > 0 && st.Connections[0].LastError != "" }
}

// TestRivals: a hub that closes the connection soon, again and again, as it does
// when two use one identity: log and state say what may be behind it, also while
// the connection is there.
func TestRivals(t *testing.T) {
	t.Parallel()
	l := newLiar(t)
	stay := make(chan struct{})
	l.own = func(c *talk) {
		if c.n <= 3 {
			return // which closes it
		}
		<-stay
	}
	t.Cleanup(func() { close(stay) })
	log := &lines{}
	u, err := New(l.config(), Deps{Log: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	u.set.timings.grace = time.Minute
	start(t, u, newFakeHub(nil))
	until(t, "the fourth connection", 20*time.Second, func() bool { return l.count("gw/$edgeHub") == 4 && u.Up() })
	const want = "another gateway may be using this identity"
	if st := u.State(); !strings.Contains(st.Hint, want) || !strings.Contains(st.Connections[0].Hint, want) {
		t.Errorf("state: hint %q, of the connection %q; want %q", st.Hint, st.Connections[0].Hint, want)
	}
	if n := log.count(want); n != 1 {
		t.Errorf("said %d times that there may be another, want once, at the third: %s", n, log)
	}
}

// TestLeftOut: a hub that leaves one acknowledgement out and sends later ones is
// not waited for as long as one that sends none, and the reason is said.
func TestLeftOut(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		lie  func(c *talk, n int, p packet)
		most time.Duration
		want string
	}{
		{"one", func(c *talk, n int, p packet) {
			if n != 1 {
				c.puback(p.id)
			}
		}, 3 * time.Second, "left a message out"},
		{"all", func(*talk, int, packet) {}, 6 * time.Second, "acknowledged nothing"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l := newLiar(t)
			l.talk = func(c *talk) { l.answer(c, after(10, c, tt.lie)) }
			u := l.upstream(t, func(c *Config) { c.AckTimeout = hub.Duration(4 * time.Second) })
			o := &outcomes{t: t}
			began := time.Now()
			publish(o, u, 10)
			until(t, "all done", 10*time.Second, func() bool { return o.count() == 10 })
			if d := time.Since(began); d > tt.most {
				t.Errorf("given up after %v, want %v at most", d, tt.most)
			}
			until(t, "the reason", time.Second, func() bool { return strings.Contains(fmt.Sprint(u.State()), tt.want) })
		})
	}
}
