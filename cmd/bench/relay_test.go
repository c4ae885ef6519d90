package main

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"
)

// echo is a server that says back what it hears; it counts its connections' ends.
func echo(t *testing.T) (addr string, ends chan struct{}) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	ends = make(chan struct{}, 10)
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				io.Copy(c, c)
				c.Close()
				ends <- struct{}{}
			}()
		}
	}()
	return ln.Addr().String(), ends
}

func startRelay(t *testing.T, target string) *relay {
	t.Helper()
	var p ports
	port, err := p.free()
	if err != nil {
		t.Fatal(err)
	}
	r, err := newRelay(loopback(port), target)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.close)
	return r
}

func connect(t *testing.T, r *relay) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// ask sends a word and gives what comes back within wait.
func ask(c net.Conn, word string, wait time.Duration) (string, error) {
	if _, err := c.Write([]byte(word)); err != nil {
		return "", err
	}
	c.SetReadDeadline(time.Now().Add(wait))
	buf := make([]byte, len(word))
	_, err := io.ReadFull(c, buf)
	return string(buf), err
}

func passes(t *testing.T, c net.Conn) {
	t.Helper()
	if got, err := ask(c, "hello", 5*time.Second); err != nil || got != "hello" {
		t.Fatalf("through an open relay came %q, %v", got, err)
	}
}

func TestRelayPasses(t *testing.T) {
	addr, ends := echo(t)
	c := connect(t, startRelay(t, addr))
	passes(t, c)
	c.(*net.TCPConn).CloseWrite()
	if b, err := io.ReadAll(c); err != nil || len(b) != 0 {
		t.Errorf("an orderly end came back as %q, %v", b, err)
	}
	<-ends
}

func TestRelayRefuses(t *testing.T) {
	addr, _ := echo(t)
	r := startRelay(t, addr)
	c := connect(t, r)
	passes(t, c)
	if err := r.set(relayRefuse); err != nil {
		t.Fatal(err)
	}
	c.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the connection ended with %v, want a reset", err)
	}
	if c, err := net.Dial("tcp", r.addr); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a new connection: %v %v, want refused", c, err)
	}
	if err := r.set(relayUp); err != nil {
		t.Fatal(err)
	}
	passes(t, connect(t, r))
}

func TestRelayIsSilent(t *testing.T) {
	addr, ends := echo(t)
	r := startRelay(t, addr)
	old := connect(t, r)
	passes(t, old)
	if err := r.set(relaySilent); err != nil {
		t.Fatal(err)
	}
	const moment = 100 * time.Millisecond
	if got, err := ask(old, "hello", moment); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("an old connection in silence: %q, %v, want nothing at all", got, err)
	}
	fresh := connect(t, r)
	if got, err := ask(fresh, "hello", moment); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a new connection in silence: %q, %v, want nothing at all", got, err)
	}
	if err := r.set(relayUp); err != nil {
		t.Fatal(err)
	}
	for _, c := range []net.Conn{old, fresh} {
		if got, err := ask(c, "hello", moment); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a forgotten connection after the silence: %q, %v, want nothing at all", got, err)
		}
	}
	passes(t, connect(t, r))
	old.Close()
	select {
	case <-ends:
		t.Error("the far side heard of the end of a forgotten connection")
	case <-time.After(moment):
	}
}

func TestRelayWithoutTarget(t *testing.T) {
	var p ports
	port, err := p.free()
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", startRelay(t, loopback(port)).addr)
	if err == nil { // else the end came even before the call returned
		defer c.Close()
		c.SetReadDeadline(time.Now().Add(5 * time.Second))
		_, err = c.Read(make([]byte, 1))
	}
	if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("with nobody at the far side: %v, want the end of the connection", err)
	}
}
