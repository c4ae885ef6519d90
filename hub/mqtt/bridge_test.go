package mqtt

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"holdfast.dev/holdfast/hub"
	"holdfast.dev/holdfast/hub/wire"
)

func TestConnack(t *testing.T) {
	b, _, g := start(t, Config{})
	g.forget("gone")
	tests := []struct {
		name, id, user, password string
		v, want                  byte
	}{
		{"device", "d1", deviceUser("d1"), "key", v311, 0},
		{"module", "d1/m1", deviceUser("d1/m1"), "key", v311, 0},
		{"bad key", "d1", deviceUser("d1"), "wrong", v311, 5},
		{"cannot tell", "d1", deviceUser("d1"), "unsure", v311, 3},
		{"unknown", "gone", deviceUser("gone"), "key", v311, 5},
		{"foreign client id", "d2", deviceUser("d1"), "key", v311, 5},
		{"bad user name", "d1", "hub.local/d1/x/y/?api-version=1", "key", v311, 4},
		{"device on 5", "d1", deviceUser("d1"), "key", v5, codeVersion},
		{"account", "a", "all", "secret", v311, 0},
		{"account on 5", "a5", "all", "secret", v5, 0},
		{"bad password", "a", "all", "wrong", v311, 5},
		{"bad password on 5", "a", "all", "wrong", v5, codeBadPassword},
		{"cannot tell on 5", "a", "all", "unsure", v5, codeUnavailable},
		{"anonymous", "a", "", "", v311, 5},
		{"anonymous on 5", "a", "", "", v5, codeNotAuthorized},
		{"reserved client id", "devices/x", "all", "secret", v311, 2},
		{"reserved client id on 5", "$iothub/x", "all", "secret", v5, codeClientID},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := dial(t, b)
			c.v = tt.v
			if ack := c.connect(tt.id, tt.user, tt.password, nil); ack.ReasonCode != tt.want {
				t.Errorf("CONNACK %#x, want %#x", ack.ReasonCode, tt.want)
			}
			if tt.want != 0 {
				c.wantClosed()
			}
		})
	}
}

// The refusal is in the form that the client knows.
func TestBadProtocol(t *testing.T) {
	for _, tt := range []struct {
		name  string
		level byte
		want  string
	}{
		{"MQTT", 3, "\x20\x02\x00\x01"},
		{"MQTT", 6, "\x20\x03\x00\x84\x00"},
		{"MQIsdp", 3, "\x20\x02\x00\x01"}, // MQTT 3.1
	} {
		b, _, _ := start(t, Config{})
		c := dial(t, b)
		body := append([]byte{0, byte(len(tt.name))}, tt.name...)
		body = append(body, tt.level, 2, 0, 60, 0, 1, 'x')
		c.raw(append([]byte{0x10, byte(len(body))}, body...)...)
		c.nc.SetReadDeadline(time.Now().Add(patience))
		if got, err := io.ReadAll(c.br); err != nil || string(got) != tt.want {
			t.Errorf("%s level %d: got %x (%v), want %x", tt.name, tt.level, got, err, tt.want)
		}
	}
}

func TestTelemetry(t *testing.T) {
	b, h, _ := start(t, Config{})
	d := device(t, b, "d1")
	d.publish("devices/d1/messages/events/%24.mid=1&a=b", 1, 7, "hello")
	if ack := d.want(packets.Puback); ack.PacketID != 7 {
		t.Errorf("PUBACK %d, want 7", ack.PacketID)
	}
	d.send(packets.Publish, func(pk *packets.Packet) {
		pk.FixedHeader.Qos, pk.FixedHeader.Retain, pk.PacketID, pk.TopicName = 1, true, 8, "devices/d1/messages/events/"
	})
	d.want(packets.Puback)
	d.publish("devices/d1/messages/events/", 0, 0, "zero")
	m := device(t, b, "d1/m1")
	m.publish("devices/d1/modules/m1/messages/events/%24.on=out1/", 1, 1, "x")
	m.want(packets.Puback)
	d.ping()
	got := h.kept()
	if len(got) != 4 {
		t.Fatalf("%d messages kept, want 4", len(got))
	}
	if got[0].From != "d1" || got[0].Props != "%24.mid=1&a=b" || string(got[0].Body) != "hello" || got[0].QoS != 1 || got[0].Topic != "" {
		t.Errorf("message is %+v", got[0])
	}
	if v, _ := got[1].Props.Get("mqtt-retain"); v != "true" {
		t.Errorf("mqtt-retain is %q, want true", v)
	}
	for _, m := range got {
		if m.From == "d1/m1" && m.Output != "out1" {
			t.Errorf("output is %q, want out1", m.Output)
		}
	}
}

// What a device may not do ends its connection, with no acknowledgement.
func TestDeviceViolations(t *testing.T) {
	b, h, _ := start(t, Config{})
	tests := []struct {
		name, reason string
		do           func(c *client)
	}{
		{"foreign id", "foreign id", func(c *client) { c.publish("devices/d2/messages/events/", 1, 1, "x") }},
		{"foreign module", "foreign id", func(c *client) { c.publish("devices/d1/modules/m/messages/events/", 1, 1, "x") }},
		{"no telemetry", "bad topic", func(c *client) { c.publish("plant/1", 1, 1, "x") }},
		{"$SYS", "bad topic", func(c *client) { c.publish("$SYS/x", 1, 1, "x") }},
		{"quality 2", "qos 2", func(c *client) { c.publish("devices/d1/messages/events/", 2, 1, "x") }},
		{"too large", "too large", func(c *client) {
			c.publish("devices/d1/messages/events/a=b", 1, 1, strings.Repeat("x", wire.MaxMessage-1))
		}},
		{"packet too large", "too large", func(c *client) {
			c.publish("devices/d1/messages/events/", 1, 1, strings.Repeat("x", maxPacket))
		}},
		{"twin without rid", "bad topic", func(c *client) { c.publish("$iothub/twin/GET/", 0, 0, "") }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before := refusals(b, tt.reason)
			c := device(t, b, "d1")
			tt.do(c)
			c.wantClosed()
			if got := refusals(b, tt.reason); got != before+1 {
				t.Errorf("%q counted %v times, want once", tt.reason, got-before)
			}
		})
	}
	if n := len(h.kept()); n != 0 {
		t.Errorf("%d messages kept, want none", n)
	}
}

func refusals(b *Broker, reason string) (n float64) {
	b.Metrics(func(name string, v float64, labels ...string) {
		if name == "mqtt_refused_total" && labels[1] == reason {
			n = v
		}
	})
	return n
}

func metric(b *Broker, want string) (n float64) {
	b.Metrics(func(name string, v float64, _ ...string) {
		if name == want {
			n = v
		}
	})
	return n
}

// The largest message that is allowed is kept.
func TestLargestMessage(t *testing.T) {
	b, _, _ := start(t, Config{})
	c := device(t, b, "d1")
	c.publish("devices/d1/messages/events/a=b", 1, 1, strings.Repeat("x", wire.MaxMessage-2))
	c.want(packets.Puback)
}

func TestNoAckBeforeDone(t *testing.T) {
	b, h, _ := start(t, Config{})
	h.set(true, nil)
	c := device(t, b, "d1")
	for i := range 20 {
		c.publish("devices/d1/messages/events/", 1, uint16(i+1), fmt.Sprint(i))
	}
	eventually(t, "20 publishes are under way", func() bool { return h.waiting() == 20 })
	c.ping() // a PUBACK would come before
	h.commit(5, nil)
	h.commit(15, nil)
	for i := range 20 {
		if ack := c.want(packets.Puback); ack.PacketID != uint16(i+1) {
			t.Fatalf("PUBACK %d, want %d", ack.PacketID, i+1)
		}
	}
}

// A publish that is answered by the broker itself waits for those before it.
func TestAcksInOrder(t *testing.T) {
	b, h, _ := start(t, Config{})
	h.set(true, nil)
	c := device(t, b, "d1")
	c.subscribe(wire.TwinFilter, 0)
	c.publish("devices/d1/messages/events/", 1, 1, "x")
	c.publish("$iothub/twin/GET/?$rid=1", 1, 2, "")
	c.want(packets.Publish) // the answer does not wait, its PUBACK does
	c.ping()
	h.commit(1, nil)
	for id := uint16(1); id <= 2; id++ {
		if ack := c.want(packets.Puback); ack.PacketID != id {
			t.Fatalf("PUBACK %d, want %d", ack.PacketID, id)
		}
	}
}

// The window holds one client back, and nobody else.
func TestWindow(t *testing.T) {
	b, h, _ := start(t, Config{Window: 3})
	h.set(true, nil)
	c := device(t, b, "d1")
	for i := range 5 {
		c.publish("devices/d1/messages/events/", 1, uint16(i+1), "x")
	}
	eventually(t, "the window is full", func() bool { return h.waiting() == 3 })
	other := device(t, b, "d2")
	other.publish("devices/d2/messages/events/", 1, 1, "x")
	eventually(t, "the other has published", func() bool { return h.waiting() == 4 })
	if n := h.waiting(); n != 4 {
		t.Fatalf("%d under way, want 4", n)
	}
	for range 6 {
		eventually(t, "one waits", func() bool { return h.waiting() > 0 })
		h.commit(1, nil)
	}
	for i := range 5 {
		if ack := c.want(packets.Puback); ack.PacketID != uint16(i+1) {
			t.Fatalf("PUBACK %d, want %d", ack.PacketID, i+1)
		}
	}
}

// Row 1 of what mochi gets wrong: an error from its publish hook is logged, and
// then the message is acknowledged and given to others.
func TestNotKept(t *testing.T) {
	tests := []struct {
		err  error
		code byte // on 5; 0: the connection ends
	}{
		{fmt.Errorf("store: %w", hub.ErrBad), codeSpecific},
		{hub.ErrRefused, codeNotAuthorized},
		{hub.ErrOffline, 0},
	}
	for _, tt := range tests {
		t.Run(tt.err.Error(), func(t *testing.T) {
			b, h, _ := start(t, Config{})
			sub := ordinary(t, b, v311, "sub", "all", nil)
			sub.subscribe("#", 1)
			h.set(false, tt.err)

			old := ordinary(t, b, v311, "old", "all", nil)
			old.publish("t", 1, 1, "x")
			old.wantClosed()

			c := ordinary(t, b, v5, "new", "all", nil)
			c.publish("t", 1, 1, "x")
			if tt.code == 0 {
				c.want(packets.Disconnect)
				c.wantClosed()
			} else if ack := c.want(packets.Puback); ack.ReasonCode != tt.code {
				t.Errorf("PUBACK %#x, want %#x", ack.ReasonCode, tt.code)
			}
			sub.ping() // nothing came before
			if n := metric(b, "mqtt_acked_total"); n != 0 {
				t.Errorf("%v acknowledged, want 0", n)
			}
		})
	}
}

func TestTakeover(t *testing.T) {
	b, h, _ := start(t, Config{})
	first := device(t, b, "d1")
	second := device(t, b, "d1")
	first.wantClosed() // and no DISCONNECT, which 3.1.1 does not know
	second.publish("devices/d1/messages/events/", 1, 1, "x")
	second.want(packets.Puback)
	if n := metric(b, "mqtt_clients"); n != 1 {
		t.Errorf("%v clients, want 1", n)
	}
	eventually(t, "d1 is attached", func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		return h.doers["d1"] != nil
	})

	five := ordinary(t, b, v5, "x", "all", nil)
	five.ping()
	ordinary(t, b, v5, "x", "all", nil)
	if bye := five.want(packets.Disconnect); bye.ReasonCode != codeTakenOver {
		t.Errorf("DISCONNECT %#x, want %#x", bye.ReasonCode, codeTakenOver)
	}
	five.wantClosed()

	c := dial(t, b)
	if ack := c.connect("x", "plant", "secret", nil); ack.ReasonCode != 2 {
		t.Errorf("CONNACK %d for another account's client id, want 2", ack.ReasonCode)
	}
}

func TestForgottenIdentity(t *testing.T) {
	b, _, g := start(t, Config{})
	d1, d2 := device(t, b, "d1"), device(t, b, "d2")
	g.forget("d1")
	d1.wantClosed()
	d2.ping()
	eventually(t, "one session is left", func() bool { return metric(b, "mqtt_sessions") == 1 })
	if n := metric(b, "mqtt_clients"); n != 1 {
		t.Errorf("%v clients, want 1", n)
	}
}

func TestMaxClients(t *testing.T) {
	b, _, _ := start(t, Config{MaxClients: 1})
	device(t, b, "d1")
	c := dial(t, b)
	if ack := c.connect("d2", deviceUser("d2"), "key", nil); ack.ReasonCode != 3 {
		t.Errorf("CONNACK %d, want 3", ack.ReasonCode)
	}
	c = dial(t, b)
	c.v = v5
	if ack := c.connect("x", "all", "secret", nil); ack.ReasonCode != codeBusy {
		t.Errorf("CONNACK %#x, want %#x", ack.ReasonCode, codeBusy)
	}
	device(t, b, "d1") // its own successor needs no place
}

// A panic on one connection is that connection's.
func TestPanicIsContained(t *testing.T) {
	b, _, _ := start(t, Config{})
	other := device(t, b, "d1")
	c := ordinary(t, b, v311, "p", "all", nil)
	c.publish("t", 1, 1, "panic")
	c.wantClosed()
	other.ping()
	ordinary(t, b, v311, "p", "all", nil)
	eventually(t, "mochi has two clients", func() bool { return b.server.Clients.Len() == 2 })
}
