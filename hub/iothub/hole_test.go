package iothub

import (
	"bufio"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"holdfast.dev/holdfast/hub"
	"holdfast.dev/holdfast/hub/iothub/hubtest"
)

// hole is a way to a hub that can swallow all that goes through it. It takes
// connections all the time, and one that it has once swallowed bytes of stays
// silent for good: nobody is ever reset.
type hole struct {
	addr, to string
	ln       net.Listener
	wg       sync.WaitGroup

	mu     sync.Mutex
	silent bool
	pipes  map[*pipe]bool
	bytes  int // that were swallowed on the way up
}

type pipe struct {
	near, far net.Conn // far is nil for one that was made in silence
	dead      bool
}

func newHole(t *testing.T, to string) *hole {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := &hole{addr: ln.Addr().String(), to: to, ln: ln, pipes: map[*pipe]bool{}}
	h.wg.Go(h.accept)
	t.Cleanup(h.close)
	return h
}

func (h *hole) accept() {
	for {
		c, err := h.ln.Accept()
		if err != nil {
			return
		}
		h.wg.Go(func() { h.serve(c) })
	}
}

func (h *hole) serve(c net.Conn) {
	h.mu.Lock()
	p := &pipe{near: c, dead: h.silent}
	h.pipes[p] = true
	if !p.dead {
		p.far, _ = net.Dial("tcp", h.to)
	}
	h.mu.Unlock()
	defer c.Close()
	if p.far != nil {
		h.wg.Go(func() { h.pass(p, p.near, p.far) })
		defer p.far.Close()
	}
	h.pass(p, p.far, p.near)
}

func (h *hole) pass(p *pipe, to io.Writer, from io.Reader) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		h.mu.Lock()
		dead := p.dead
		if dead && from == io.Reader(p.near) {
			h.bytes += n
		}
		h.mu.Unlock()
		if err != nil {
			if from == io.Reader(p.far) && !dead {
				p.near.Close()
			}
			return
		}
		if !dead {
			to.Write(buf[:n])
		}
	}
}

// set makes the hole swallow, or pass what is new.
func (h *hole) set(silent bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.silent = silent
	if silent {
		for p := range h.pipes {
			p.dead = true
		}
	}
}

func (h *hole) close() {
	h.mu.Lock()
	h.ln.Close()
	for p := range h.pipes {
		p.near.Close()
		if p.far != nil {
			p.far.Close()
		}
	}
	h.mu.Unlock()
	h.wg.Wait()
}

// TestReturnFromSilence: the way back is noticed within 2 s of its return though
// an attempt hangs that began before. Mutations seen to fail: no escort; a probe
// that is content with a bare connection.
func TestReturnFromSilence(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	h := newHole(t, r.MQTTAddr())
	r.cfg.Address = h.addr
	u := newUpstream(t, r.cfg)
	u.set.timings.connect = 20 * time.Second
	start(t, u, newFakeHub(nil))
	until(t, "link up", 5*time.Second, u.Up)
	for i := range 2 {
		// d2's attempt hangs before the link is known to be down.
		h.set(true)
		o := &outcomes{t: t}
		o.publish(u, message("d2", 5*i))
		until(t, "link down", 15*time.Second, func() bool { return !u.Up() })
		attempts, probes := u.State().Attempts, u.counts.probes.Load()
		until(t, "an attempt and a probe in silence", 10*time.Second, func() bool {
			return u.State().Attempts > attempts && u.counts.probes.Load() > probes+1
		})
		h.set(false)
		back := time.Now()
		until(t, "link up", 10*time.Second, u.Up)
		if d := time.Since(back); d > 4*time.Second { // a busy machine has half of it
			t.Errorf("link up %v after the way came back, want 4 s at most", d)
		}
		repeatFrom(t, u, "d2", 5*i, 5*i+5, 10*time.Second)
		if d := time.Since(back); d > 5*time.Second {
			t.Errorf("messages of a device whose attempt hung were through %v after the way came back, want 5 s at most", d)
		}
	}
}

// TestLongSilence: what a way costs that takes connections and lets nothing
// through, while the first attempt hangs.
func TestLongSilence(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	h := newHole(t, r.MQTTAddr())
	r.cfg.Address = h.addr
	h.set(true)
	u := newUpstream(t, r.cfg)
	u.set.timings.connect = 20 * time.Second
	began := time.Now()
	start(t, u, newFakeHub(nil))
	until(t, "six probes", 15*time.Second, func() bool { return u.counts.probes.Load() == 6 })
	if d := time.Since(began); d < 6*probeLow {
		t.Errorf("six probes in %v, want at least %v", d, 6*probeLow)
	}
	h.mu.Lock()
	bytes := h.bytes
	h.mu.Unlock()
	if most := 6*350 + 2000; bytes > most {
		t.Errorf("six probes and one attempt sent %d bytes, want at most %d", bytes, most)
	}
	if n := u.State().Attempts; n != 1 {
		t.Errorf("%d attempts, want the first still to hang", n)
	}
}

// TestSilenceFound: a connection that has something under way and has gone silent
// is given up long before ack_timeout, and the gateway's own idle one with it. One
// whose acknowledgements alone are late is not. Mutation seen to fail: no attend;
// attend that does not look at what was heard.
func TestSilenceFound(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	h := newHole(t, r.MQTTAddr())
	r.cfg.Address, r.cfg.AckTimeout = h.addr, hub.Duration(30*time.Second)
	u := newUpstream(t, r.cfg)
	u.set.timings.ask, u.set.timings.grace = time.Second, time.Second
	start(t, u, newFakeHub(nil))
	until(t, "link up", 5*time.Second, u.Up)
	repeat(t, u, "d1", 5, 5*time.Second)

	r.Fault(hubtest.Faults{PubackDelay: 4 * time.Second})
	o := &outcomes{t: t}
	o.publish(u, message("d1", 5))
	until(t, "done", 10*time.Second, func() bool { return o.count() == 1 })
	if err := o.all()[0].err; err != nil || r.Connects("d1") != 1 {
		t.Errorf("acknowledged late: %v over %d connections, want nil over one", err, r.Connects("d1"))
	}
	r.Fault(hubtest.Faults{})

	h.set(true)
	began := time.Now()
	o.publish(u, message("d1", 6))
	until(t, "done", 10*time.Second, func() bool { return o.count() == 2 })
	if err, d := o.all()[1].err, time.Since(began); !errors.Is(err, hub.ErrOffline) || d < 1500*time.Millisecond || d > 4*time.Second {
		t.Errorf("silent: %v after %v, want %v after 2 s or so", err, d, hub.ErrOffline)
	}
	until(t, "link down", 2*time.Second, func() bool { return !u.Up() })
	h.set(false)
	repeatFrom(t, u, "d1", 6, 10, 10*time.Second)
}

// TestRenewInSilence: that the gateway's own connection cannot be renewed is known
// long before the attempt's deadline, and nothing is stuck afterwards.
func TestRenewInSilence(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	h := newHole(t, r.MQTTAddr())
	r.cfg.Address, r.cfg.AckTimeout = h.addr, hub.Duration(30*time.Second)
	u := newUpstream(t, r.cfg)
	u.set.timings.renew = 500 * time.Millisecond
	start(t, u, newFakeHub(nil))
	until(t, "link up", 5*time.Second, u.Up)
	h.set(true)
	until(t, "link down", 10*time.Second, func() bool { return !u.Up() })
	if got := u.State().LastError; !strings.Contains(got, "no answer for 4s") {
		t.Errorf("last error %q, want the silence in it", got)
	}
	h.set(false)
	until(t, "link up", 5*time.Second, u.Up)
	repeat(t, u, "d1", 5, 5*time.Second)
}

// TestThinUplink: a far kernel that goes on taking bytes, slowly, is a sign of life
// as long as the ping stands in line behind them. Mutation seen to fail: an arrived that
// takes what was written for confirmed.
func TestThinUplink(t *testing.T) {
	t.Parallel()
	l := newLiar(t)
	raw, err := l.ln.(*net.TCPListener).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) { // those that are accepted inherit it
		err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 16<<10)
	})
	if err != nil {
		t.Fatal(err)
	}
	l.talk = func(c *talk) {
		l.honest(&talk{Conn: c.Conn, in: bufio.NewReader(thin{c.in}), client: c.client, n: c.n})
	}
	cfg := l.config()
	cfg.AckTimeout = hub.Duration(30 * time.Second)
	u := newUpstream(t, cfg)
	u.set.timings.ask, u.set.timings.grace = 500*time.Millisecond, 2*time.Second
	start(t, u, newFakeHub(nil))
	until(t, "link up", 5*time.Second, u.Up)
	o := &outcomes{t: t}
	for i := range 2 {
		m := message("d1", i)
		m.Body = make([]byte, 250<<10)
		o.publish(u, m)
	}
	until(t, "done", 30*time.Second, func() bool { return o.count() == 2 })
	for i, r := range o.all() {
		if r.err != nil {
			t.Errorf("message %d: %v, want nil", i, r.err)
		}
	}
}

// thin reads 50 KB a second.
type thin struct{ io.Reader }

func (r thin) Read(p []byte) (int, error) {
	<-time.After(40 * time.Millisecond)
	return r.Reader.Read(p[:min(len(p), 2<<10)])
}
