package mqtt

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"
	"time"
)

// listener is one address that clients come to.
type listener struct {
	name string // for the log
	key  string // of the configuration
	want string
	tls  *tls.Config

	mu sync.Mutex
	l  net.Listener // nil when closed
	at net.Addr
}

func listenersOf(cfg Config, t *tls.Config) (ls []*listener) {
	add := func(name, key, want, usual string, t *tls.Config) {
		if want == "" {
			want = usual
		}
		if want != "off" {
			ls = append(ls, &listener{name: name, key: key, want: want, tls: t})
		}
	}
	add("mqtt", "listen", cfg.Listen, ":1883", nil)
	if t != nil {
		add("mqtts", "tls_listen", cfg.TLSListen, ":8883", t)
	}
	return ls
}

// listen opens the listeners that are not open.
func (b *Broker) listen() error {
	for _, l := range b.listeners {
		if err := l.open(); err != nil {
			for _, l := range b.listeners {
				l.close()
			}
			return err
		}
	}
	return nil
}

func (l *listener) open() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.l != nil {
		return nil
	}
	nl, err := net.Listen("tcp", l.want)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("listen on %s: address already in use: another broker may be running; stop it or set [mqtt] %s", l.want, l.key)
	case err != nil:
		return fmt.Errorf("listen on %s ([mqtt] %s): %w", l.want, l.key, err)
	}
	l.l, l.at = nl, nl.Addr()
	return nil
}

func (l *listener) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.l != nil {
		l.l.Close()
		l.l = nil
	}
}

// Close closes the listeners of a Broker that does not run. Run closes them itself.
func (b *Broker) Close() error {
	for _, l := range b.listeners {
		l.close()
	}
	return nil
}

func (l *listener) addr() net.Addr {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.at
}

func (l *listener) accept(ctx context.Context, b *Broker) {
	l.mu.Lock()
	nl := l.l
	l.mu.Unlock()
	if nl == nil {
		return // Run ended before this goroutine began
	}
	for {
		nc, err := nl.Accept()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			// Too many open files, most likely: clients wait until some have gone.
			b.log.Warn("connection not accepted", "address", l.want, "error", err)
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
				return
			}
			continue
		}
		b.receive(ctx, nc, l.tls)
	}
}

// receive serves a connection, where there is room for one from its address. It
// waits for a place among the strangers, and with it the listener: those who come
// meanwhile stand in the kernel's queue.
func (b *Broker) receive(ctx context.Context, nc net.Conn, t *tls.Config) {
	leave, ok := b.comesFrom(nc.RemoteAddr())
	if !ok {
		nc.Close()
		return
	}
	p := b.strangers.enter(ctx)
	if p == nil {
		leave()
		nc.Close()
		return
	}
	if t != nil {
		nc = tls.Server(nc, t)
	}
	p.begin(nc)
	go func() {
		defer leave()
		defer p.leave()
		b.serve(nc, p)
	}()
}

// Addr is where plain MQTT is spoken, or nil.
func (b *Broker) Addr() net.Addr { return b.addr("mqtt") }

// TLSAddr is where MQTT over TLS is spoken, or nil.
func (b *Broker) TLSAddr() net.Addr { return b.addr("mqtts") }

func (b *Broker) addr(name string) net.Addr {
	for _, l := range b.listeners {
		if l.name == name {
			return l.addr()
		}
	}
	return nil
}
