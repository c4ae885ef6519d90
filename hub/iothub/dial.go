package iothub

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/gorilla/websocket"
)

// socketPath is where IoT Hub takes MQTT over WebSocket; without the query it
// asks for a client certificate.
const socketPath = "/$iothub/websocket?iothub-no-client-cert=true"

// unreachableError is what dial returns, and an attempt at a connection that has
// not heard a single byte of the hub.
type unreachableError struct{ error }

func (e unreachableError) Unwrap() error { return e.error }

// dial opens a bare connection to addr, through the proxy where there is one.
func (s *settings) dial(ctx context.Context, addr string) (net.Conn, error) {
	conn, err := s.reach(ctx, addr)
	if err != nil {
		return nil, unreachableError{err}
	}
	return conn, nil
}

func (s *settings) reach(ctx context.Context, addr string) (net.Conn, error) {
	var d net.Dialer
	if s.proxy == "" {
		return d.DialContext(ctx, "tcp", addr)
	}
	conn, err := d.DialContext(ctx, "tcp", s.proxy)
	if err != nil {
		return nil, fmt.Errorf("[iothub] proxy: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	err = s.connectThrough(conn, addr)
	if !stop() {
		err = errors.Join(err, ctx.Err())
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("[iothub] proxy %s: %w", s.proxy, err)
	}
	return conn, nil
}

// connectThrough asks the proxy for a tunnel to addr.
func (s *settings) connectThrough(conn net.Conn, addr string) error {
	ask := "CONNECT " + addr + " HTTP/1.1\r\nHost: " + addr + "\r\n"
	if s.auth != "" {
		ask += "Proxy-Authorization: " + s.auth + "\r\n"
	}
	if _, err := io.WriteString(conn, ask+"\r\n"); err != nil {
		return err
	}
	in := bufio.NewReader(conn)
	res, err := http.ReadResponse(in, &http.Request{Method: http.MethodConnect})
	if err != nil {
		return err
	}
	res.Body.Close()
	switch {
	case res.StatusCode == http.StatusProxyAuthRequired && s.auth == "":
		return errors.New("wants a user name and password (407): write http://user:password@host:port")
	case res.StatusCode == http.StatusProxyAuthRequired:
		return errors.New("does not accept the user name and password (407)")
	case res.StatusCode != http.StatusOK:
		return fmt.Errorf("no way to %s: %s", addr, res.Status)
	case in.Buffered() > 0:
		return errors.New("spoke before it was spoken to")
	}
	return nil
}

// knock goes as far as the first bytes of the hub's TLS handshake, and no further:
// that somebody takes connections (a proxy, a mast, a router that keeps state)
// does not say that the hub is there. What it says is not looked at.
func (s *settings) knock(ctx context.Context, addr string) error {
	conn, err := s.dial(ctx, addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	door := &door{Conn: conn}
	err = tls.Client(door, s.hello).HandshakeContext(ctx)
	if door.answered {
		return nil
	}
	return err
}

// door ends a handshake at the first bytes that come back.
type door struct {
	net.Conn
	answered bool
}

func (d *door) Read(p []byte) (int, error) {
	n, err := d.Conn.Read(p)
	if n > 0 {
		d.answered = true
		return 0, io.EOF
	}
	return 0, err
}

// dialTLS opens a connection to addr, over l, and proves that it is the hub.
func (s *settings) dialTLS(ctx context.Context, addr string, l *line) (net.Conn, error) {
	raw, err := s.dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	conn := tls.Client(l.over(raw), s.tls)
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, fmt.Errorf("tls with %s: %w", addr, err)
	}
	return conn, nil
}

// dialMQTT opens the connection that MQTT is spoken on, over l.
func (s *settings) dialMQTT(ctx context.Context, l *line) (net.Conn, error) {
	if !s.ws {
		return s.dialTLS(ctx, s.mqtt, l)
	}
	d := websocket.Dialer{
		NetDialTLSContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return s.dialTLS(ctx, s.mqtt, l) },
		Subprotocols:      []string{"mqtt"},
	}
	ws, res, err := d.DialContext(ctx, "wss://"+s.host+socketPath, nil)
	if err != nil {
		if res != nil {
			return nil, fmt.Errorf("websocket with %s: %s: %w", s.mqtt, res.Status, err)
		}
		return nil, fmt.Errorf("websocket with %s: %w", s.mqtt, err)
	}
	ws.SetReadLimit(maxPacket)
	return &socket{Conn: ws}, nil
}

// socket makes a byte stream of a WebSocket. One reader and one writer at a time.
type socket struct {
	*websocket.Conn
	rest io.Reader  // of the message that is being read
	mu   sync.Mutex // between Write and SetWriteDeadline, which the library does not guard
}

func (s *socket) Read(p []byte) (int, error) {
	for {
		if s.rest == nil {
			_, r, err := s.NextReader()
			if err != nil {
				return 0, err
			}
			s.rest = r
		}
		n, err := s.rest.Read(p)
		if err == io.EOF {
			s.rest, err = nil, nil
		}
		if n > 0 || err != nil || len(p) == 0 {
			return n, err
		}
	}
}

func (s *socket) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.WriteMessage(websocket.BinaryMessage, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (s *socket) SetWriteDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.Conn.SetWriteDeadline(t)
}

func (s *socket) SetDeadline(t time.Time) error {
	return errors.Join(s.SetReadDeadline(t), s.SetWriteDeadline(t))
}
