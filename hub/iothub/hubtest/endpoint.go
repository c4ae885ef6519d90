package hubtest

import (
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"
)

// endpoint is a listener that can be shut and opened again on the same port, and
// whose connections all pass one gate. It stays a net.Listener all the while:
// Accept waits while it is shut, so servers need not know.
type endpoint struct {
	addr string // host:port, the same after a reopening
	gate *gate
	log  *slog.Logger

	mu      sync.Mutex
	ln      net.Listener // nil while shut
	closed  bool
	changed chan struct{} // closed when ln or closed change
	conns   map[*gated]struct{}
}

func listen(addr string, g *gate, log *slog.Logger) (*endpoint, error) {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	return &endpoint{
		addr: ln.Addr().String(), gate: g, log: log, ln: ln,
		changed: make(chan struct{}), conns: map[*gated]struct{}{},
	}, nil
}

// Accept waits for the next connection, through any number of shuts and openings.
func (e *endpoint) Accept() (net.Conn, error) {
	for {
		e.mu.Lock()
		ln, closed, changed := e.ln, e.closed, e.changed
		e.mu.Unlock()
		if closed {
			return nil, net.ErrClosed
		}
		if ln == nil {
			<-changed
			continue
		}
		c, err := ln.Accept()
		if err == nil {
			if g := e.track(ln, c); g != nil {
				return g, nil
			}
			c.Close()
			continue
		}
		if e.current(ln) {
			return nil, fmt.Errorf("accept on %s: %w", e.addr, err)
		}
	}
}

func (e *endpoint) current(ln net.Listener) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.ln == ln && !e.closed
}

// track wraps a connection, or gives nil if the door was shut in the meantime.
func (e *endpoint) track(ln net.Listener, c net.Conn) *gated {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ln != ln || e.closed {
		return nil
	}
	g := &gated{Conn: c, gate: e.gate, closed: make(chan struct{})}
	g.forget = func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.conns, g)
	}
	e.conns[g] = struct{}{}
	return g
}

// shut closes the listening socket and every connection.
func (e *endpoint) shut() { e.leave(false) }

// Close shuts the endpoint for good.
func (e *endpoint) Close() error { e.leave(true); return nil }

// Addr is where it listens, or did.
func (e *endpoint) Addr() net.Addr {
	a, _ := net.ResolveTCPAddr("tcp", e.addr)
	return a
}

func (e *endpoint) leave(forGood bool) {
	e.mu.Lock()
	ln := e.ln
	e.ln, e.closed = nil, e.closed || forGood
	var conns []*gated
	for c := range e.conns {
		conns = append(conns, c)
	}
	e.wake()
	e.mu.Unlock()
	if ln != nil {
		ln.Close()
	}
	for _, c := range conns {
		c.Close()
	}
}

// open listens again on the same port. Another program may have taken it for an
// outgoing connection just now, so a few attempts are made.
func (e *endpoint) open() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for attempt := 0; e.ln == nil && !e.closed; attempt++ {
		ln, err := net.Listen("tcp", e.addr)
		if err == nil {
			e.ln = ln
			e.wake()
			return
		}
		if attempt == 50 {
			e.log.Error("listen again", "addr", e.addr, "error", err)
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func (e *endpoint) wake() {
	close(e.changed)
	e.changed = make(chan struct{})
}

// gate holds up all traffic while it is shut, as a network does that drops every
// packet: nobody is told anything.
type gate struct {
	mu   sync.Mutex
	open chan struct{} // closed while traffic passes
}

func newGate() *gate {
	g := &gate{open: make(chan struct{})}
	close(g.open)
	return g
}

// set shuts or opens the gate.
func (g *gate) set(shut bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-g.open:
		if shut {
			g.open = make(chan struct{})
		}
	default:
		if !shut {
			close(g.open)
		}
	}
}

func (g *gate) wait(closed <-chan struct{}) error {
	for {
		g.mu.Lock()
		open := g.open
		g.mu.Unlock()
		select {
		case <-open:
			return nil
		case <-closed:
			return net.ErrClosed
		}
	}
}

// writeWait is how long a peer may keep us from writing before it counts as gone.
const writeWait = 30 * time.Second

// gated is a connection behind the gate. What was read when the gate shut is held
// back too, and so is the news of an end of file: a silent network reports nothing.
type gated struct {
	net.Conn
	gate   *gate
	once   sync.Once
	closed chan struct{}
	forget func()
}

func (c *gated) Read(p []byte) (int, error) {
	if err := c.gate.wait(c.closed); err != nil {
		return 0, err
	}
	n, err := c.Conn.Read(p)
	if err := c.gate.wait(c.closed); err != nil {
		return 0, err
	}
	return n, err
}

func (c *gated) Write(p []byte) (int, error) {
	if err := c.gate.wait(c.closed); err != nil {
		return 0, err
	}
	// The time runs from here, not from before the gate.
	if err := c.Conn.SetWriteDeadline(time.Now().Add(writeWait)); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

func (c *gated) Close() error {
	var err error
	c.once.Do(func() {
		close(c.closed)
		err = c.Conn.Close()
		c.forget()
	})
	return err
}
