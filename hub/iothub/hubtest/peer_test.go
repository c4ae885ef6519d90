package hubtest

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/mochi-mqtt/server/v2/packets"

	"holdfast.dev/holdfast/hub/wire"
)

// patience is how long a test waits for what should happen soon.
const patience = 10 * time.Second

// quiet is how long a test listens for what should not happen.
const quiet = 300 * time.Millisecond

// start runs a hub until the test ends.
func start(t *testing.T, cfg Config) *Hub {
	t.Helper()
	h, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	run(t, h)
	return h
}

// run runs h until stop is called or the test ends.
func run(t *testing.T, h *Hub) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	over := false
	stop = func() {
		if over {
			return
		}
		over = true
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(patience):
			t.Error("Run has not ended")
		}
	}
	t.Cleanup(stop)
	return stop
}

func (h *Hub) clientTLS() *tls.Config {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(h.CAPEM())
	return &tls.Config{RootCAs: pool, ServerName: "localhost"}
}

// peer is a client that sends and reads packets as it is told.
type peer struct {
	t    *testing.T
	conn net.Conn
	r    io.Reader
}

func dial(t *testing.T, h *Hub) *peer {
	t.Helper()
	p, err := tryDial(t, h)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func tryDial(t *testing.T, h *Hub) (*peer, error) {
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: patience}, "tcp", h.MQTTAddr(), h.clientTLS())
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { conn.NetConn().Close() })
	return &peer{t, conn, conn}, nil
}

// dialWebSocket is dial over WebSocket.
func dialWebSocket(t *testing.T, h *Hub) *peer {
	t.Helper()
	d := websocket.Dialer{TLSClientConfig: h.clientTLS(), Subprotocols: []string{"mqtt"}, HandshakeTimeout: patience}
	ws, res, err := d.Dial("wss://"+h.HTTPSAddr()+webSocketPath, http.Header{})
	if err != nil {
		t.Fatal(err)
	}
	if got := res.Header.Get("Sec-WebSocket-Protocol"); got != "mqtt" {
		t.Errorf("subprotocol %q, want mqtt", got)
	}
	t.Cleanup(func() { ws.NetConn().Close() })
	s := &webSocket{ws: ws, raw: ws.NetConn()}
	return &peer{t, socketConn{ws.NetConn(), s}, s}
}

// socketConn is a net.Conn whose bytes go through WebSocket messages.
type socketConn struct {
	net.Conn
	s *webSocket
}

func (c socketConn) Write(p []byte) (int, error) { return c.s.Write(p) }

// hello is a CONNECT of id, for itself, with its own key.
func (h *Hub) hello(id string) *packets.Packet {
	d, _ := h.registry.get(id)
	device, module := wire.SplitID(id)
	u := wire.User{Host: h.cfg.Host, Device: device, Module: module, APIVersion: "2021-04-12"}
	return connectPacket(u.String(), id, wire.NewSAS(h.cfg.Host, device, module, d.Primary, time.Now().Add(time.Hour)))
}

// helloFor is a CONNECT of chain[0] through the gateway at the chain's end.
func (h *Hub) helloFor(chain ...string) *packets.Packet {
	device, module := wire.SplitID(chain[0])
	gateway := chain[len(chain)-1]
	d, _ := h.registry.get(gateway + "/" + hubModule)
	u := wire.User{Host: h.cfg.Host, Device: device, Module: module, APIVersion: "2021-04-12", AuthChain: chain}
	return connectPacket(u.String(), chain[0], wire.NewSAS(h.cfg.Host, gateway, hubModule, d.Primary, time.Now().Add(time.Hour)))
}

func connectPacket(user, clientID, password string) *packets.Packet {
	pk := &packets.Packet{ProtocolVersion: 4}
	pk.FixedHeader.Type = packets.Connect
	pk.Connect = packets.ConnectParams{
		ProtocolName: []byte("MQTT"), ClientIdentifier: clientID, Keepalive: 60,
		UsernameFlag: true, Username: []byte(user), PasswordFlag: true, Password: []byte(password),
	}
	return pk
}

func (p *peer) send(pk *packets.Packet) {
	p.t.Helper()
	if err := p.trySend(pk); err != nil {
		p.t.Fatalf("send packet of type %d: %v", pk.FixedHeader.Type, err)
	}
}

func (p *peer) trySend(pk *packets.Packet) error {
	pk.ProtocolVersion = 4
	var buf bytes.Buffer
	var err error
	switch pk.FixedHeader.Type {
	case packets.Connect:
		if pk.Connect.ProtocolName[0] == 'X' {
			pk.ProtocolVersion = 5
		}
		err = pk.ConnectEncode(&buf)
	case packets.Publish:
		err = pk.PublishEncode(&buf)
	case packets.Puback:
		err = pk.PubackEncode(&buf)
	case packets.Subscribe:
		pk.FixedHeader.Qos = 1
		err = pk.SubscribeEncode(&buf)
	case packets.Unsubscribe:
		pk.FixedHeader.Qos = 1
		err = pk.UnsubscribeEncode(&buf)
	case packets.Pingreq:
		err = pk.PingreqEncode(&buf)
	case packets.Disconnect:
		err = pk.DisconnectEncode(&buf)
	}
	if err == nil {
		_, err = p.conn.Write(buf.Bytes())
	}
	return err
}

// next reads one packet; an error is returned, a silence too.
func (p *peer) next(wait time.Duration) (packets.Packet, error) {
	p.conn.SetReadDeadline(time.Now().Add(wait))
	var pk packets.Packet
	var b [1]byte
	if _, err := io.ReadFull(p.r, b[:]); err != nil {
		return pk, err
	}
	if err := pk.FixedHeader.Decode(b[0]); err != nil {
		return pk, err
	}
	n, err := readLength(p.r)
	if err != nil {
		return pk, err
	}
	buf := make([]byte, n)
	if _, err := io.ReadFull(p.r, buf); err != nil {
		return pk, err
	}
	switch pk.FixedHeader.Type {
	case packets.Connack:
		err = pk.ConnackDecode(buf)
	case packets.Publish:
		err = pk.PublishDecode(buf)
	case packets.Puback:
		err = pk.PubackDecode(buf)
	case packets.Suback:
		err = pk.SubackDecode(buf)
	case packets.Unsuback:
		err = pk.UnsubackDecode(buf)
	}
	return pk, err
}

// expect reads one packet of the given type.
func (p *peer) expect(kind byte) packets.Packet {
	p.t.Helper()
	pk, err := p.next(patience)
	if err != nil {
		p.t.Fatalf("want packet of type %d: %v", kind, err)
	}
	if pk.FixedHeader.Type != kind {
		p.t.Fatalf("got packet of type %d, want %d", pk.FixedHeader.Type, kind)
	}
	return pk
}

// enter says hello and gives the return code of the answer.
func (p *peer) enter(hello *packets.Packet) byte {
	p.t.Helper()
	p.send(hello)
	return p.expect(packets.Connack).ReasonCode
}

// expectEnd wants the connection to be closed, with nothing said before.
func (p *peer) expectEnd() {
	p.t.Helper()
	pk, err := p.next(patience)
	if err == nil {
		p.t.Fatalf("got packet of type %d, want the connection closed", pk.FixedHeader.Type)
	}
	if timedOut(err) {
		p.t.Fatal("connection is still open")
	}
}

// expectSilence wants nothing to come, and the connection to stay.
func (p *peer) expectSilence() {
	p.t.Helper()
	if pk, err := p.next(quiet); !timedOut(err) {
		p.t.Fatalf("got packet of type %d, error %v, want silence", pk.FixedHeader.Type, err)
	}
}

func timedOut(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout()
}

func (p *peer) publish(topic string, qos byte, id uint16, body string) {
	p.t.Helper()
	p.send(publishPacket(topic, qos, id, body))
}

func publishPacket(topic string, qos byte, id uint16, body string) *packets.Packet {
	pk := &packets.Packet{TopicName: topic, PacketID: id, Payload: []byte(body)}
	pk.FixedHeader.Type, pk.FixedHeader.Qos = packets.Publish, qos
	return pk
}

// subscribe gives the granted return codes.
func (p *peer) subscribe(qos byte, filters ...string) []byte {
	p.t.Helper()
	pk := &packets.Packet{PacketID: 9}
	pk.FixedHeader.Type = packets.Subscribe
	for _, f := range filters {
		pk.Filters = append(pk.Filters, packets.Subscription{Filter: f, Qos: qos})
	}
	p.send(pk)
	return p.expect(packets.Suback).ReasonCodes
}

// online connects id, for itself.
func online(t *testing.T, h *Hub, id string) *peer {
	t.Helper()
	p := dial(t, h)
	if code := p.enter(h.hello(id)); code != accepted {
		t.Fatalf("CONNECT of %s: code %d, want 0", id, code)
	}
	return p
}

// eventually waits until ok.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("has not happened: %s", what)
		}
		<-time.After(5 * time.Millisecond)
	}
}
