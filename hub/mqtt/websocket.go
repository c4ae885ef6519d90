package mqtt

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/gorilla/websocket"
)

// WebSocket is the handler of MQTT over WebSocket, for IoT Hub's path
// /$iothub/websocket and for ordinary clients alike. The server that it is
// mounted in brings TLS.
func (b *Broker) WebSocket() http.Handler {
	up := websocket.Upgrader{
		Subprotocols:     []string{"mqtt"},
		HandshakeTimeout: connectTimeout,
		ReadBufferSize:   4 << 10,
		WriteBufferSize:  4 << 10,
		// Credentials are MQTT's, not cookies: no page can borrow a visitor's.
		CheckOrigin: func(*http.Request) bool { return true },
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !slices.Contains(websocket.Subprotocols(r), "mqtt") {
			http.Error(w, "open a WebSocket with the subprotocol mqtt here", http.StatusBadRequest)
			return
		}
		leave, p, err := b.comesByWeb(r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		defer leave()
		ws, err := up.Upgrade(w, r, nil)
		if err != nil {
			b.log.Debug("websocket not opened", "error", err) // the client has its answer
			return
		}
		ws.SetReadLimit(maxPacket + 1<<10)
		nc := &wsConn{Conn: ws}
		p.begin(nc)
		b.serve(nc, p)
	})
}

var errCrowd = errors.New("too many connections: try again later")

// comesByWeb is for a WebSocket what receive is for the other ways in.
func (b *Broker) comesByWeb(r *http.Request) (leave func(), p *place, err error) {
	from, err := net.ResolveTCPAddr("tcp", r.RemoteAddr) // the server's own word, never a name
	if err != nil {
		return nil, nil, errCrowd
	}
	gone, ok := b.comesFrom(from)
	if !ok {
		return nil, nil, errCrowd
	}
	ctx, cancel := context.WithTimeout(r.Context(), connectTimeout)
	defer cancel()
	if p = b.strangers.enter(ctx); p == nil {
		gone()
		return nil, nil, errCrowd
	}
	return func() { p.leave(); gone() }, p, nil
}

// wsConn makes a stream of binary messages, whose bounds mean nothing to MQTT
// [MQTT-6.0.0-1..4].
type wsConn struct {
	*websocket.Conn
	r io.Reader // of the message that is being read, or nil
}

func (w *wsConn) Read(p []byte) (int, error) {
	for {
		if w.r == nil {
			kind, r, err := w.NextReader()
			if err != nil {
				return 0, err
			}
			if kind != websocket.BinaryMessage {
				return 0, errors.New("websocket message is not binary")
			}
			w.r = r
		}
		n, err := w.r.Read(p)
		if err == io.EOF {
			w.r, err = nil, nil
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

func (w *wsConn) Write(p []byte) (int, error) {
	if err := w.WriteMessage(websocket.BinaryMessage, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (w *wsConn) SetDeadline(t time.Time) error {
	return errors.Join(w.SetReadDeadline(t), w.SetWriteDeadline(t))
}

var _ net.Conn = (*wsConn)(nil)
