package mqtt

import (
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/mochi-mqtt/server/v2/packets"

	"holdfast.dev/holdfast/hub"
)

func TestRights(t *testing.T) {
	b, h, _ := start(t, Config{})
	old := ordinary(t, b, v311, "old", "plant", nil)
	c := ordinary(t, b, v5, "new", "plant", nil)
	for _, tt := range []struct {
		filter     string
		code, five byte
	}{
		{"plant/1/up", 2, 2},
		{"plant/#", 2, 2},
		{"plant", 2, 2},
		{"#", 0x80, codeNotAuthorized},
		{"+/1/up", 0x80, codeNotAuthorized},
		{"other", 0x80, codeNotAuthorized},
		{"devices/d1/messages/devicebound/#", 0x80, codeNotAuthorized},
		{"$iothub/methods/POST/#", 0x80, codeNotAuthorized},
		{"$share/g/plant/#", 1, 1},
		{"$share/g/other", 0x80, codeNotAuthorized},
		{"$share/g", 0x80, codeFilterInvalid},
		{"$share//plant", 0x80, codeFilterInvalid},
		{"$share/+/plant", 0x80, codeFilterInvalid},
		{"plant/#/x", 0x80, codeFilterInvalid},
		{"plant/x+", 0x80, codeFilterInvalid},
		{"plant" + strings.Repeat("/x", maxLevels), 0x80, codeFilterInvalid},
	} {
		if got := old.subscribe(tt.filter, 2); got != tt.code {
			t.Errorf("SUBACK %#x for %s on 3.1.1, want %#x", got, tt.filter, tt.code)
		}
		if got := c.subscribe(tt.filter, 2); got != tt.five {
			t.Errorf("SUBACK %#x for %s on 5, want %#x", got, tt.filter, tt.five)
		}
	}
	for _, topic := range []string{"plant/1/down", "other", "devices/d1/messages/events/", "$SYS/x", "$share/x", "$iothub/twin/GET/?$rid=1"} {
		c.publish(topic, 1, 1, "x")
		if ack := c.want(packets.Puback); ack.ReasonCode != codeNotAuthorized {
			t.Errorf("PUBACK %#x for %s on 5, want %#x", ack.ReasonCode, topic, codeNotAuthorized)
		}
		bad := ordinary(t, b, v311, "bad", "plant", nil)
		bad.publish(topic, 1, 1, "x")
		bad.wantClosed()
	}
	if n := len(h.kept()); n != 0 {
		t.Fatalf("%d messages kept, want none", n)
	}
	c.publish("plant/1/up", 1, 1, "x")
	eventually(t, "the message is kept", func() bool { return len(h.kept()) == 1 })
	if m := h.kept()[0]; m.From != "press" || m.Topic != "plant/1/up" || string(m.Body) != "x" || m.QoS != 1 {
		t.Errorf("message is %+v", m)
	}
}

func TestLocal(t *testing.T) {
	b, h, _ := start(t, Config{})
	old := ordinary(t, b, v311, "old", "all", nil)
	five := ordinary(t, b, v5, "five", "all", nil)
	for _, f := range []string{"a/+", "a/#"} {
		old.subscribe(f, 1)
	}
	five.send(packets.Subscribe, func(pk *packets.Packet) {
		pk.PacketID, pk.Filters = 1, packets.Subscriptions{{Filter: "+/#", Qos: 0}}
		pk.Properties.SubscriptionIdentifier = []int{7}
	})
	five.want(packets.Suback)
	from := ordinary(t, b, v5, "from", "all", nil)
	from.send(packets.Publish, func(pk *packets.Packet) {
		pk.FixedHeader.Qos, pk.PacketID, pk.TopicName, pk.Payload = 1, 1, "a/b", []byte("x")
		pk.Mods.AllowResponseInfo = true
		pk.Properties = packets.Properties{ContentType: "text/plain", ResponseTopic: "r", CorrelationData: []byte("c"),
			User: []packets.UserProperty{{Key: "k", Val: "v"}}, MessageExpiryInterval: 100, TopicAlias: 3, TopicAliasFlag: true}
	})
	from.want(packets.Puback)
	got := old.want(packets.Publish) // once, though two filters match
	if got.TopicName != "a/b" || string(got.Payload) != "x" || got.FixedHeader.Qos != 1 || got.FixedHeader.Dup {
		t.Errorf("3.1.1 got %+v", got)
	}
	old.puback(got.PacketID)
	old.ping()
	got = five.want(packets.Publish)
	p := got.Properties
	if got.FixedHeader.Qos != 0 || p.ContentType != "text/plain" || p.ResponseTopic != "r" || string(p.CorrelationData) != "c" ||
		len(p.User) != 1 || p.MessageExpiryInterval != 100 || len(p.SubscriptionIdentifier) != 1 || p.SubscriptionIdentifier[0] != 7 || p.TopicAliasFlag {
		t.Errorf("5 got %+v", p)
	}
	// By alias alone: rights are asked for the topic that it stands for.
	from.send(packets.Publish, func(pk *packets.Packet) {
		pk.Properties = packets.Properties{TopicAlias: 3, TopicAliasFlag: true}
		pk.Payload = []byte("y")
	})
	if got := five.want(packets.Publish); got.TopicName != "a/b" || string(got.Payload) != "y" {
		t.Errorf("by alias: got %q on %s", got.Payload, got.TopicName)
	}
	from.publish("a", 0, 0, "parent") // "+/#" is for the level above too
	if got := five.want(packets.Publish); got.TopicName != "a" {
		t.Errorf("got %s, want a", got.TopicName)
	}
	if m := h.kept()[0]; m.From != "gw" {
		t.Errorf("message is from %q, want the gateway", m.From)
	}
	five.send(packets.Unsubscribe, func(pk *packets.Packet) {
		pk.PacketID, pk.Filters = 2, packets.Subscriptions{{Filter: "+/#"}, {Filter: "never"}}
	})
	if codes := five.want(packets.Unsuback).ReasonCodes; string(codes) != "\x00\x11" {
		t.Errorf("UNSUBACK %x, want 0011", codes)
	}
	from.publish("a/b", 1, 2, "after")
	from.want(packets.Puback)
	old.want(packets.Publish) // "y" at quality 0
	old.want(packets.Publish) // "parent"
	old.want(packets.Publish)
	five.ping()
}

func TestNoLocal(t *testing.T) {
	b, _, _ := start(t, Config{})
	c := ordinary(t, b, v5, "c", "all", nil)
	c.send(packets.Subscribe, func(pk *packets.Packet) {
		pk.PacketID, pk.Filters = 1, packets.Subscriptions{{Filter: "#", NoLocal: true}}
	})
	c.want(packets.Suback)
	c.publish("a", 1, 1, "own")
	c.want(packets.Puback)
	o := ordinary(t, b, v5, "o", "all", nil)
	o.publish("a", 1, 1, "other")
	if got := c.want(packets.Publish); string(got.Payload) != "other" {
		t.Errorf("got %q, want the other's", got.Payload)
	}
}

func TestRetained(t *testing.T) {
	b, _, _ := start(t, Config{})
	c := ordinary(t, b, v311, "c", "all", nil)
	set := func(topic, body string) {
		c.send(packets.Publish, func(pk *packets.Packet) {
			pk.FixedHeader.Qos, pk.FixedHeader.Retain, pk.PacketID, pk.TopicName, pk.Payload = 1, true, 1, topic, []byte(body)
		})
		c.want(packets.Puback)
	}
	set("foo/bar/baz", "1")
	set("gone", "1")
	set("gone", "")
	eventually(t, "one is retained", func() bool { return metric(b, "mqtt_retained") == 1 })
	for i, f := range []string{"foo/+/baz/#", "#", "foo/bar/baz", "+/+/+"} {
		s := ordinary(t, b, v5, fmt.Sprint("s", i), "all", nil)
		s.subscribe(f, 1)
		if got := s.want(packets.Publish); !got.FixedHeader.Retain || string(got.Payload) != "1" {
			t.Errorf("%s got %q, retain %v", f, got.Payload, got.FixedHeader.Retain)
		}
		s.ping()
	}
}

// Rows 2 and 4 of what mochi gets wrong: what waited for a client comes in order,
// DUP only where it was sent before, under ids that its own publishes do not touch.
func TestOfflineAndResend(t *testing.T) {
	for _, v := range []byte{v311, v5} {
		t.Run(fmt.Sprint("version ", v), func(t *testing.T) {
			b, _, _ := start(t, Config{})
			keep := func(pk *packets.Packet) {
				pk.Connect.Clean = false
				if v == v5 {
					pk.Properties = packets.Properties{SessionExpiryInterval: 1000, SessionExpiryIntervalFlag: true, ReceiveMaximum: 10}
				}
			}
			s := ordinary(t, b, v, "s", "all", keep)
			s.subscribe("#", 1)
			from := ordinary(t, b, v311, "from", "all", nil)
			const n = 100
			for i := range n {
				from.publish("t", 1, uint16(i+1), fmt.Sprint(i))
				from.want(packets.Puback)
			}
			window := usualWindow
			if v == v5 {
				window = 10
			}
			for i := range window {
				if got := s.want(packets.Publish); string(got.Payload) != fmt.Sprint(i) || got.FixedHeader.Dup {
					t.Fatalf("got %q dup %v, want %d", got.Payload, got.FixedHeader.Dup, i)
				}
			}
			s.publish("$iothub", 0, 0, "") // an end that is not polite
			if v == v5 {
				s.nc.Close()
			} else {
				s.wantClosed()
			}
			eventually(t, "s is away", func() bool { return metric(b, "mqtt_clients") == 1 })
			s = dial(t, b)
			s.v = v
			if ack := s.connect("s", "all", "secret", keep); !ack.SessionPresent {
				t.Fatalf("session is not present")
			}
			for i := range n {
				got := s.want(packets.Publish)
				if string(got.Payload) != fmt.Sprint(i) || got.FixedHeader.Dup != (i < window) {
					t.Fatalf("got %q dup %v, want %d", got.Payload, got.FixedHeader.Dup, i)
				}
				s.puback(got.PacketID)
			}
		})
	}
}

// Row 5: a subscriber that stops reading holds nobody up, and is hung up when too
// much waits for it.
func TestSlowSubscriber(t *testing.T) {
	b, h, _ := start(t, Config{})
	s := ordinary(t, b, v311, "slow", "all", nil)
	s.nc.(*net.TCPConn).SetReadBuffer(4 << 10)
	s.subscribe("big", 0)
	s.subscribe("t", 1)
	from := ordinary(t, b, v311, "from", "all", nil)
	body := strings.Repeat("x", 100<<10)
	for i := range 200 { // 20 MB that nobody reads
		from.publish("t", 1, uint16(i+1), body)
		from.want(packets.Puback)
	}
	if n := len(h.kept()); n != 200 {
		t.Errorf("%d kept, want 200", n)
	}
	eventually(t, "the slow one was hung up", func() bool { return refusals(b, "slow") >= 1 })
	from.ping()
}

func TestWill(t *testing.T) {
	b, _, _ := start(t, Config{})
	w := ordinary(t, b, v311, "watch", "all", nil)
	w.subscribe("#", 1)
	will := func(topic string, delay uint32) func(*packets.Packet) {
		return func(pk *packets.Packet) {
			k := &pk.Connect
			k.WillFlag, k.WillQos, k.WillTopic, k.WillPayload = true, 1, topic, []byte("bye")
			k.WillProperties.WillDelayInterval = delay
			pk.Properties.SessionExpiryInterval, pk.Properties.SessionExpiryIntervalFlag = 1000, pk.ProtocolVersion == v5
		}
	}
	c := dial(t, b)
	if ack := c.connect("c", "plant", "secret", will("secret/place", 0)); ack.ReasonCode != 5 {
		t.Errorf("CONNACK %d for a will that it may not send, want 5", ack.ReasonCode)
	}
	c = ordinary(t, b, v311, "c", "plant", will("plant/1/up", 0))
	c.nc.Close()
	if got := w.want(packets.Publish); got.TopicName != "plant/1/up" || string(got.Payload) != "bye" {
		t.Errorf("will is %q on %s", got.Payload, got.TopicName)
	}
	c = ordinary(t, b, v5, "c5", "plant", will("plant/2/up", 1))
	c.nc.Close()
	if got := w.want(packets.Publish); got.TopicName != "plant/2/up" {
		t.Errorf("delayed will on %s", got.TopicName)
	}
	c = ordinary(t, b, v5, "c6", "plant", will("plant/3/up", 0))
	c.send(packets.Disconnect, func(pk *packets.Packet) { pk.ReasonCode = 4 })
	if got := w.want(packets.Publish); got.TopicName != "plant/3/up" {
		t.Errorf("will with DISCONNECT 4 on %s", got.TopicName)
	}
}

func TestConnackLimits(t *testing.T) {
	b, _, _ := start(t, Config{Window: 17})
	c := dial(t, b)
	c.v = v5
	p := c.connect("", "all", "secret", func(pk *packets.Packet) { pk.Connect.Keepalive = 0 }).Properties
	if p.ReceiveMaximum != 17 || p.MaximumQosFlag || p.SharedSubAvailableFlag ||
		p.AssignedClientID == "" || p.MaximumPacketSize != maxPacket || p.TopicAliasMaximum != maxAlias || p.ServerKeepAlive != 600 {
		t.Errorf("CONNACK properties are %+v", p)
	}
}

func TestForward(t *testing.T) {
	two, ten := 2, 10
	route, err := Forward([]ForwardConfig{{Filter: "plant/+/up", Priority: &two, TTL: hub.Duration(60e9)}, {Filter: "plant/#"}}, "iothub")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		topic string
		want  string
	}{
		{"plant/1/up", "iothub 2 1m0s"},
		{"plant/1", "iothub 5 0s"},
		{"other", ""},
		{"", ""},
	} {
		got := ""
		for _, d := range route(&hub.Message{Topic: tt.topic}) {
			got += fmt.Sprint(d.Queue, " ", d.Priority, " ", d.TTL)
		}
		if got != tt.want {
			t.Errorf("%q goes to %q, want %q", tt.topic, got, tt.want)
		}
	}
	for _, bad := range []ForwardConfig{{}, {Filter: "a/#/b"}, {Filter: "a+"}, {Filter: "a", Priority: &ten}, {Filter: "devices/#"}, {Filter: "$x"}} {
		_, err := Forward([]ForwardConfig{{Filter: "ok"}, bad}, "iothub")
		if err == nil || !strings.HasPrefix(err.Error(), "[[forward]] 2: ") {
			t.Errorf("Forward %+v: %v, want an error about rule 2", bad, err)
		}
	}
}

// An alias that a refused publish has set must not go on meaning the old topic.
func TestAliasOfRefusedTopic(t *testing.T) {
	b, h, _ := start(t, Config{})
	c := ordinary(t, b, v5, "c", "all", nil)
	alias := func(topic, body string) {
		c.send(packets.Publish, func(pk *packets.Packet) {
			pk.FixedHeader.Qos, pk.PacketID, pk.TopicName, pk.Payload = 1, 1, topic, []byte(body)
			pk.Properties.TopicAlias, pk.Properties.TopicAliasFlag = 1, true
		})
	}
	alias("a", "1")
	c.want(packets.Puback)
	alias("$SYS/a", "2")
	if bye := c.want(packets.Disconnect); bye.ReasonCode != codeNotAuthorized {
		t.Errorf("DISCONNECT %#x, want %#x", bye.ReasonCode, codeNotAuthorized)
	}
	alias("", "3")
	c.wantClosed()
	if n := len(h.kept()); n != 1 {
		t.Errorf("%d messages kept, want 1", n)
	}
}
