package hubtest

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/gorilla/websocket"
)

// tlsTransport is MQTT straight over TLS. The handshake is done by the first read.
type tlsTransport struct {
	*tls.Conn
	raw net.Conn
}

func newTLSTransport(raw net.Conn, cfg *tls.Config) transport {
	return tlsTransport{tls.Server(raw, cfg), raw}
}

// abort leaves TLS's closing alert out: sending it would wait for the peer.
func (t tlsTransport) abort() { t.raw.Close() }

// webSocket is MQTT in binary WebSocket messages, whose boundaries mean nothing.
type webSocket struct {
	ws  *websocket.Conn
	raw net.Conn
	r   io.Reader // the rest of the message being read, or nil
}

const webSocketPath = "/$iothub/websocket"

func (t *webSocket) Read(p []byte) (int, error) {
	for {
		if t.r == nil {
			_, r, err := t.ws.NextReader()
			if err != nil {
				return 0, err
			}
			t.r = r
		}
		n, err := t.r.Read(p)
		if err == io.EOF {
			t.r, err = nil, nil
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

func (t *webSocket) Write(p []byte) (int, error) {
	if err := t.ws.WriteMessage(websocket.BinaryMessage, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (t *webSocket) SetReadDeadline(at time.Time) error { return t.ws.SetReadDeadline(at) }

func (t *webSocket) abort() { t.raw.Close() }

// openWebSocket answers the upgrade and serves MQTT on the connection.
func (h *Hub) openWebSocket(w http.ResponseWriter, r *http.Request) {
	u := websocket.Upgrader{
		Subprotocols: []string{"mqtt"},
		CheckOrigin:  func(*http.Request) bool { return true }, // the credential is in MQTT, no cookie is read
	}
	ws, err := u.Upgrade(w, r, nil)
	if err != nil {
		h.log.Debug("open websocket", "error", err) // the upgrader has answered
		return
	}
	ws.SetReadLimit(4 * maxPacket)
	raw := ws.NetConn()
	if t, ok := raw.(*tls.Conn); ok {
		raw = t.NetConn()
	}
	if !h.enter() {
		raw.Close()
		return
	}
	defer h.running.Done()
	h.serve(&webSocket{ws: ws, raw: raw}, "websocket")
}
