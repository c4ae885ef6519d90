package mqtt

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"holdfast.dev/holdfast/hub"
	"holdfast.dev/holdfast/hub/identity"
	"holdfast.dev/holdfast/hub/wire"
)

const patience = 10 * time.Second

// fakeHub keeps what it is given and says done at once, or when it is told to.
type fakeHub struct {
	mu       sync.Mutex
	hold     bool
	err      error
	messages []hub.Message
	dones    []func(error)
	doers    map[hub.Identity]hub.Doer
	kinds    map[hub.Identity][]hub.Kind
	turns    map[hub.Identity]int // which Attach counts
	attached int
}

func (h *fakeHub) Publish(_ context.Context, m hub.Message, done func(error)) {
	if string(m.Body) == "panic" {
		panic("hub panics")
	}
	h.mu.Lock()
	h.messages = append(h.messages, m)
	if h.hold {
		h.dones = append(h.dones, done)
		h.mu.Unlock()
		return
	}
	err := h.err
	h.mu.Unlock()
	done(err)
}

// commit says done to the n oldest that wait.
func (h *fakeHub) commit(n int, err error) {
	h.mu.Lock()
	n = min(n, len(h.dones))
	due := h.dones[:n]
	h.dones = h.dones[n:]
	h.mu.Unlock()
	for _, d := range due {
		d(err)
	}
}

func (h *fakeHub) set(hold bool, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.hold, h.err = hold, err
}

func (h *fakeHub) kept() []hub.Message {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.messages)
}

func (h *fakeHub) waiting() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.dones)
}

func (h *fakeHub) Do(ctx context.Context, c hub.Command) (hub.Reply, error) {
	h.mu.Lock()
	d := h.doers[c.To]
	h.mu.Unlock()
	if d == nil {
		return hub.Reply{}, hub.ErrUnknown
	}
	return d.Do(ctx, c)
}

func (h *fakeHub) Attach(id hub.Identity, d hub.Doer, kinds ...hub.Kind) func() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.attached++
	turn := h.attached
	h.doers[id], h.kinds[id], h.turns[id] = d, kinds, turn
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.turns[id] == turn {
			delete(h.doers, id)
			delete(h.kinds, id)
		}
	}
}

func (h *fakeHub) Changed() <-chan struct{} { return nil }
func (h *fakeHub) List() []hub.Present      { return nil }

// fakeGate lets in every device whose password is "key" and two accounts.
type fakeGate struct {
	mu      sync.Mutex
	unknown map[hub.Identity]bool
	changed chan struct{}
}

func (g *fakeGate) Device(_ context.Context, u wire.User, password string) (hub.Identity, error) {
	id := hub.Identity(u.ClientID())
	switch {
	case password == "unsure":
		return "", hub.ErrUnsure
	case password != "key" || !g.Known(id):
		return "", hub.ErrUnauthorized
	}
	return id, nil
}

func (g *fakeGate) Account(_ context.Context, name, password string) (identity.Account, error) {
	if password == "unsure" {
		return identity.Account{}, hub.ErrUnsure
	}
	if password != "secret" {
		return identity.Account{}, hub.ErrUnauthorized
	}
	switch name {
	case "all":
		return identity.Account{Name: name, Publish: []string{"#"}, Subscribe: []string{"#"}}, nil
	case "plant":
		return identity.Account{Name: name, From: "press", Publish: []string{"plant/+/up"}, Subscribe: []string{"plant/#"}}, nil
	}
	return identity.Account{}, hub.ErrUnauthorized
}

func (g *fakeGate) Known(id hub.Identity) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return !g.unknown[id]
}

func (g *fakeGate) Changed() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.changed
}

func (g *fakeGate) forget(id hub.Identity) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.unknown[id] = true
	close(g.changed)
	g.changed = make(chan struct{})
}

func newFakes() (*fakeHub, *fakeGate) {
	return &fakeHub{doers: map[hub.Identity]hub.Doer{}, kinds: map[hub.Identity][]hub.Kind{}, turns: map[hub.Identity]int{}},
		&fakeGate{unknown: map[hub.Identity]bool{}, changed: make(chan struct{})}
}

// start runs a broker on a port of its own until the test ends.
func start(t testing.TB, cfg Config) (*Broker, *fakeHub, *fakeGate) {
	t.Helper()
	h, g := newFakes()
	if cfg.Listen == "" {
		cfg.Listen = "127.0.0.1:0"
	}
	b, err := New(cfg, Deps{Gate: g, Gateway: "gw", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	run(t, b, h)
	return b, h, g
}

func run(t testing.TB, b *Broker, h hub.Hub) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx, h) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(patience):
			t.Errorf("Run did not end")
		}
	})
	eventually(t, "the broker runs", func() bool { return b.running() != nil })
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	end := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(end) {
			t.Fatalf("waited in vain: %s", what)
		}
		select {
		case <-time.After(2 * time.Millisecond):
		case <-t.Context().Done():
		}
	}
}

// client is the far side of a connection, packet by packet.
type client struct {
	t  testing.TB
	nc net.Conn
	br *bufio.Reader
	v  byte
}

func dial(t testing.TB, b *Broker) *client {
	t.Helper()
	nc, err := net.Dial("tcp", b.Addr().String())
	if err != nil {
		t.Fatalf("dial: %v", err)
	}
	t.Cleanup(func() { nc.Close() })
	return newClient(t, nc, v311)
}

func newClient(t testing.TB, nc net.Conn, v byte) *client {
	return &client{t: t, nc: nc, br: bufio.NewReader(nc), v: v}
}

func (c *client) raw(b ...byte) {
	c.t.Helper()
	c.nc.SetWriteDeadline(time.Now().Add(patience))
	if _, err := c.nc.Write(b); err != nil {
		c.t.Logf("write: %v", err) // the answer tells
	}
}

func encode(t testing.TB, pk packets.Packet) []byte {
	t.Helper()
	var b bytes.Buffer
	var err error
	switch pk.FixedHeader.Type {
	case packets.Connect:
		err = pk.ConnectEncode(&b)
	case packets.Publish:
		err = pk.PublishEncode(&b)
	case packets.Puback:
		err = pk.PubackEncode(&b)
	case packets.Pubrec:
		err = pk.PubrecEncode(&b)
	case packets.Pubrel:
		pk.FixedHeader.Qos = 1
		err = pk.PubrelEncode(&b)
	case packets.Pubcomp:
		err = pk.PubcompEncode(&b)
	case packets.Subscribe:
		pk.FixedHeader.Qos = 1
		err = pk.SubscribeEncode(&b)
	case packets.Unsubscribe:
		pk.FixedHeader.Qos = 1
		err = pk.UnsubscribeEncode(&b)
	case packets.Pingreq:
		err = pk.PingreqEncode(&b)
	case packets.Disconnect:
		err = pk.DisconnectEncode(&b)
	case packets.Auth:
		err = pk.AuthEncode(&b)
	}
	if err != nil {
		t.Fatalf("encode %s: %v", packets.PacketNames[pk.FixedHeader.Type], err)
	}
	return b.Bytes()
}

func (c *client) send(kind byte, set func(*packets.Packet)) {
	c.t.Helper()
	pk := packets.Packet{ProtocolVersion: c.v, FixedHeader: packets.FixedHeader{Type: kind}}
	if set != nil {
		set(&pk)
	}
	c.raw(encode(c.t, pk)...)
}

func (c *client) read() (packets.Packet, error) {
	c.nc.SetReadDeadline(time.Now().Add(patience))
	var pk packets.Packet
	head, err := c.br.ReadByte()
	if err != nil {
		return pk, err
	}
	n, _, err := packets.DecodeLength(c.br)
	if err != nil {
		return pk, err
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(c.br, body); err != nil {
		return pk, err
	}
	if err := pk.FixedHeader.Decode(head); err != nil {
		return pk, err
	}
	pk.ProtocolVersion, pk.FixedHeader.Remaining = c.v, n
	switch pk.FixedHeader.Type {
	case packets.Connack:
		err = pk.ConnackDecode(body)
	case packets.Publish:
		err = pk.PublishDecode(body)
	case packets.Puback:
		err = pk.PubackDecode(body)
	case packets.Suback:
		err = pk.SubackDecode(body)
	case packets.Unsuback:
		err = pk.UnsubackDecode(body)
	case packets.Disconnect:
		err = pk.DisconnectDecode(body)
	}
	return pk, err
}

func (c *client) want(kind byte) packets.Packet {
	c.t.Helper()
	pk, err := c.read()
	if err != nil {
		c.t.Fatalf("read: %v, want %s", err, packets.PacketNames[kind])
	}
	if pk.FixedHeader.Type != kind {
		c.t.Fatalf("read %s, want %s", packets.PacketNames[pk.FixedHeader.Type], packets.PacketNames[kind])
	}
	return pk
}

// wantClosed says that the broker ends the connection without another packet.
func (c *client) wantClosed() {
	c.t.Helper()
	pk, err := c.read()
	if err == nil {
		c.t.Fatalf("read %s, want the end of the connection", packets.PacketNames[pk.FixedHeader.Type])
	}
	var ne net.Error
	if errors.As(err, &ne) && ne.Timeout() {
		c.t.Fatalf("connection is still open")
	}
}

func (c *client) connect(id, user, password string, set func(*packets.Packet)) packets.Packet {
	c.t.Helper()
	c.send(packets.Connect, func(pk *packets.Packet) {
		pk.Connect = packets.ConnectParams{ProtocolName: []byte("MQTT"), ClientIdentifier: id, Clean: true, Keepalive: 60}
		if user != "" {
			pk.Connect.UsernameFlag, pk.Connect.Username = true, []byte(user)
			pk.Connect.PasswordFlag, pk.Connect.Password = true, []byte(password)
		}
		if set != nil {
			set(pk)
		}
	})
	return c.want(packets.Connack)
}

func deviceUser(id string) string { return "hub.local/" + id + "/?api-version=2021-04-12" }

// device is a connected IoT Hub device.
func device(t testing.TB, b *Broker, id string) *client {
	t.Helper()
	c := dial(t, b)
	if ack := c.connect(id, deviceUser(id), "key", nil); ack.ReasonCode != 0 {
		t.Fatalf("CONNACK %d for %s", ack.ReasonCode, id)
	}
	return c
}

// ordinary is a connected ordinary client.
func ordinary(t testing.TB, b *Broker, v byte, id, account string, set func(*packets.Packet)) *client {
	t.Helper()
	c := dial(t, b)
	c.v = v
	if ack := c.connect(id, account, "secret", set); ack.ReasonCode != 0 {
		t.Fatalf("CONNACK %#x for %s", ack.ReasonCode, id)
	}
	return c
}

func (c *client) publish(topic string, qos byte, id uint16, body string) {
	c.t.Helper()
	c.send(packets.Publish, func(pk *packets.Packet) {
		pk.FixedHeader.Qos, pk.PacketID, pk.TopicName, pk.Payload = qos, id, topic, []byte(body)
	})
}

func (c *client) subscribe(filter string, qos byte) byte {
	c.t.Helper()
	c.send(packets.Subscribe, func(pk *packets.Packet) {
		pk.PacketID, pk.Filters = 9, packets.Subscriptions{{Filter: filter, Qos: qos}}
	})
	return c.want(packets.Suback).ReasonCodes[0]
}

// ping waits until the broker has dealt with all that was sent before.
func (c *client) ping() {
	c.t.Helper()
	c.send(packets.Pingreq, nil)
	c.want(packets.Pingresp)
}
