package main

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// relayMode is what the uplink does.
type relayMode int

const (
	relayUp     relayMode = iota // bytes pass
	relayRefuse                  // connections are reset and new ones refused: a cable pulled near by
	relaySilent                  // bytes vanish, nobody is told: a cable pulled far away
)

// relay is one TCP port of the uplink: it passes connections on to target until
// it is cut. A connection that has been silent stays silent for good, as behind a
// router that has forgotten it; only new ones pass after the cut. So a gateway
// that waits for a reset waits for ever.
type relay struct {
	addr, target string

	mu    sync.Mutex
	mode  relayMode
	ln    net.Listener
	pairs map[*pair]struct{}
	wg    sync.WaitGroup
}

// pair is one connection through the relay; hub is nil for one made in silence.
type pair struct {
	device, hub net.Conn
	dead        atomic.Bool // bytes are swallowed from here on
}

// newRelay listens on addr and passes connections on to target.
func newRelay(addr, target string) (*relay, error) {
	r := &relay{addr: addr, target: target, pairs: map[*pair]struct{}{}}
	if err := r.listen(); err != nil {
		return nil, err
	}
	return r, nil
}

// listen opens the port; the caller holds mu or is alone. The port may be busy
// for a moment after it was closed.
func (r *relay) listen() error {
	var err error
	for range 50 {
		if r.ln, err = net.Listen("tcp", r.addr); err == nil {
			r.wg.Add(1)
			go r.accept(r.ln)
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return fmt.Errorf("listen for the uplink: %w", err)
}

// set changes the mode.
func (r *relay) set(mode relayMode) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if mode == r.mode {
		return nil
	}
	r.mode = mode
	switch mode {
	case relayRefuse:
		r.closeListener()
		r.resetAll()
	case relaySilent:
		for p := range r.pairs {
			p.dead.Store(true)
		}
	}
	if r.ln == nil && mode != relayRefuse {
		return r.listen()
	}
	return nil
}

// close ends the relay and all its connections.
func (r *relay) close() {
	r.mu.Lock()
	r.mode = relayRefuse
	r.closeListener()
	r.resetAll()
	r.mu.Unlock()
	r.wg.Wait()
}

func (r *relay) closeListener() {
	if r.ln != nil {
		r.ln.Close()
		r.ln = nil
	}
}

func (r *relay) resetAll() {
	for p := range r.pairs {
		p.reset()
	}
}

// reset ends both sides with an RST: no bytes in flight are delivered any more.
func (p *pair) reset() {
	for _, c := range []net.Conn{p.device, p.hub} {
		if t, ok := c.(*net.TCPConn); ok {
			t.SetLinger(0)
		}
	}
	p.close()
}

func (p *pair) close() {
	p.device.Close()
	if p.hub != nil {
		p.hub.Close()
	}
}

func (r *relay) accept(ln net.Listener) {
	defer r.wg.Done()
	for {
		c, err := ln.Accept()
		if err != nil {
			return // closed by set or close
		}
		r.wg.Add(1)
		go func() {
			defer r.wg.Done()
			r.serve(c)
		}()
	}
}

func (r *relay) serve(c net.Conn) {
	p := &pair{device: c}
	r.mu.Lock()
	mode := r.mode
	r.mu.Unlock()
	if mode == relayUp {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		hub, err := (&net.Dialer{}).DialContext(ctx, "tcp", r.target)
		cancel()
		if err != nil {
			p.reset() // nobody there: what the kernel would have said
			return
		}
		p.hub = hub
	}
	if !r.add(p) {
		p.reset()
		return
	}
	back := make(chan struct{})
	go func() {
		defer close(back)
		if p.hub != nil {
			p.copy(p.device, p.hub)
		}
	}()
	p.copy(p.hub, p.device)
	<-back // in silence the far side never hears of the end; close ends it
	p.close()
	r.mu.Lock()
	delete(r.pairs, p)
	r.mu.Unlock()
}

// add registers p, under the mode of this instant: the cut may have come while
// the hub was dialled.
func (r *relay) add(p *pair) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mode == relayRefuse {
		return false
	}
	if r.mode == relaySilent || p.hub == nil {
		p.dead.Store(true)
	}
	r.pairs[p] = struct{}{}
	return true
}

// copy moves bytes until either side ends, or swallows them once the pair is dead.
func (p *pair) copy(to, from net.Conn) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 && !p.dead.Load() {
			if _, werr := to.Write(buf[:n]); werr != nil {
				err = werr
			}
		}
		if err != nil {
			if t, ok := to.(*net.TCPConn); ok && !p.dead.Load() {
				t.CloseWrite() // an orderly end passes as one
			}
			return
		}
	}
}
