package conform

import (
	"net/http"
	"time"

	"github.com/gorilla/websocket"
)

// Errors and transports: section 4.8 and chapters 6 and 7.

func transportRows311() []Row {
	return []Row{
		{"4.8.0-1", "a protocol violation ends the connection it came on, and no other", rowViolations},
		{"6.0.0-1", "WebSocket: packets in binary frames; another frame ends the connection", rowBinaryFrames},
		{"6.0.0-2", "WebSocket: packets and frames need not be aligned", rowFramesUnaligned},
		{"6.0.0-4", "WebSocket: the subprotocol that the server selects is mqtt", rowSubprotocol},
		{"7.1.1-1", "a stream of bytes is what counts, not how it is cut up", rowByteStream},
	}
}

func rowViolations(t *Try) {
	other := t.client()
	for _, p := range [][]byte{
		frame(0), frame(15 << 4), // reserved types
		frame(kindConnack<<4, []byte{0, 0}), frame(kindSuback<<4, u16(1), []byte{0}), // of servers only
		frame(kindUnsuback<<4, u16(1)), frame(kindPingresp << 4),
		{kindPublish << 4, 0x80, 0x80, 0x80, 0x80, 1},             // a length of five bytes
		frame(kindPuback<<4, []byte{0}), frame(kindPubrel<<4 | 2), // not whole
		frame(kindSubscribe<<4|2, u16(1), text("a")), // filter without QoS
	} {
		t.step("% x", p)
		c := t.client()
		c.send(p)
		c.expectClosed()
	}
	t.step("another connection")
	other.ping()
}

// socket opens a WebSocket that offers subprotocols.
func (t *Try) socket(protocols ...string) *websocket.Conn {
	if t.Target.WebSocket == "" {
		t.notApplicable("the server was set up without WebSocket")
	}
	d := websocket.Dialer{Subprotocols: protocols, TLSClientConfig: t.Target.TLS, HandshakeTimeout: t.Target.Patience}
	ws, resp, err := d.Dial(t.Target.WebSocket, http.Header{})
	if err != nil {
		status := ""
		if resp != nil {
			status = resp.Status
		}
		t.failf("WebSocket not opened: %v %s", err, status)
	}
	return ws
}

// stream is a client on a WebSocket whose frames write cuts up; all that comes must
// be in binary frames.
func (t *Try) stream(ws *websocket.Conn, write func([]byte) error) *conn {
	return t.on(&socketStream{Conn: ws, write: write, t: t})
}

func rowBinaryFrames(t *Try) {
	ws := t.socket("mqtt")
	c := t.stream(ws, func(p []byte) error { return ws.WriteMessage(websocket.BinaryMessage, p) })
	c.send(t.hello().bytes())
	c.expect(kindConnack)
	c.listen(0, t.topic("a"))
	c.publish(pub{topic: t.topic("a"), payload: "x"})
	c.expectPublish(t.topic("a"), "x", 0)
	ws.SetWriteDeadline(time.Now().Add(c.patience))
	if err := ws.WriteMessage(websocket.TextMessage, pingreq()); err != nil {
		t.failf("write a text frame: %v", err)
	}
	c.expectClosed()
}

func rowFramesUnaligned(t *Try) {
	ws := t.socket("mqtt")
	byByte := func(p []byte) error {
		for i := range p {
			if err := ws.WriteMessage(websocket.BinaryMessage, p[i:i+1]); err != nil {
				return err
			}
		}
		return nil
	}
	c := t.stream(ws, byByte)
	c.send(t.hello().bytes())
	c.expect(kindConnack)
	c.listen(1, t.topic("a"))
	whole := t.stream(ws, func(p []byte) error { return ws.WriteMessage(websocket.BinaryMessage, p) })
	whole.send(pub{topic: t.topic("a"), payload: "x"}.bytes(c.version), pingreq(), pub{topic: t.topic("a"), payload: "y"}.bytes(c.version)[:5])
	whole.send(pub{topic: t.topic("a"), payload: "y"}.bytes(c.version)[5:], pingreq())
	c.await("PUBLISH x", isPublish("x"))
	c.await("PUBLISH y", isPublish("y"))
	c.await("PINGRESP", func(p packet) bool { return p.kind == kindPingresp })
	c.await("PINGRESP", func(p packet) bool { return p.kind == kindPingresp })
}

func rowSubprotocol(t *Try) {
	for _, offered := range [][]string{{"mqtt"}, {"other", "mqtt"}} {
		ws := t.socket(offered...)
		got := ws.Subprotocol()
		ws.Close()
		if got != "mqtt" {
			t.failf("%v were offered, the server selected %q", offered, got)
		}
	}
}

func rowByteStream(t *Try) {
	c := t.dial()
	for _, b := range t.hello().bytes() {
		c.send([]byte{b})
	}
	c.expect(kindConnack)
	c.send(
		subscribePacket(c.version, 1, nil, filter{t.topic("a"), 1}),
		pub{topic: t.topic("a"), payload: "x", qos: 1, id: 2}.bytes(c.version),
		pingreq(),
		pub{topic: t.topic("a"), payload: "y", qos: 1, id: 3}.bytes(c.version),
	)
	c.awaitID(kindSuback, 1)
	c.awaitID(kindPuback, 2)
	c.awaitID(kindPuback, 3)
	c.finish(c.await("PUBLISH x", isPublish("x")))
	c.finish(c.await("PUBLISH y", isPublish("y")))
	c.await("PINGRESP", func(p packet) bool { return p.kind == kindPingresp })
}
