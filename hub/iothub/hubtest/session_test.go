package hubtest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"holdfast.dev/holdfast/hub/wire"
)

func TestConnectionIsClosed(t *testing.T) {
	h := household(t)
	topic := wire.TelemetryTopic("leaf", "", "")
	for name, do := range map[string]func(p *peer){
		"telemetry of another device":  func(p *peer) { p.publish(wire.TelemetryTopic("plain", "", ""), 1, 1, "x") },
		"telemetry of a module":        func(p *peer) { p.publish(wire.TelemetryTopic("leaf", "m", ""), 1, 1, "x") },
		"topic of nobody":              func(p *peer) { p.publish("plant/1", 1, 1, "x") },
		"unknown hub topic":            func(p *peer) { p.publish("$iothub/else", 0, 0, "x") },
		"twin get without rid":         func(p *peer) { p.publish("$iothub/twin/GET/", 0, 0, "") },
		"twin get with a path":         func(p *peer) { p.publish("$iothub/twin/GET/more/?$rid=1", 0, 0, "") },
		"method answer without status": func(p *peer) { p.publish("$iothub/methods/res/x/?$rid=1", 0, 0, "") },
		"broken bag":                   func(p *peer) { p.publish(topic+"a=%zz", 1, 1, "x") },
		"QoS 2":                        func(p *peer) { p.publish(topic, 2, 1, "x") },
		"packet too large":             func(p *peer) { p.trySend(publishPacket(topic, 1, 1, strings.Repeat("x", maxPacket))) }, // it may be cut short
		"second CONNECT":               func(p *peer) { p.send(h.hello("leaf")) },
		"bytes that are none":          func(p *peer) { p.conn.Write([]byte{0xf7, 0xff, 0xff, 0xff, 0xff, 0xff}) },
		"QoS 3":                        func(p *peer) { p.conn.Write([]byte{0x36, 0x05, 0, 1, 'a', 0, 1}) },
		"SUBSCRIBE cut short":          func(p *peer) { p.conn.Write([]byte{0x82, 0x06, 0x12, 0x34, 0, 0, 1, 0x61}) },
		"packet id zero":               func(p *peer) { p.conn.Write([]byte{0x32, 0x05, 0, 1, 'a', 0, 0}) },
	} {
		t.Run(name, func(t *testing.T) {
			p := dial(t, h)
			p.t = t
			if code := p.enter(h.hello("leaf")); code != accepted {
				t.Fatalf("code %d", code)
			}
			n := h.Count()
			do(p)
			p.expectEnd()
			if h.Count() != n {
				t.Errorf("kept %d messages of it", h.Count()-n)
			}
		})
	}
}

func TestConnectionIsNotBegun(t *testing.T) {
	h := household(t)
	t.Run("first packet is no CONNECT", func(t *testing.T) {
		p := dial(t, h)
		pk := &packets.Packet{}
		pk.FixedHeader.Type = packets.Pingreq
		p.send(pk)
		p.expectEnd()
	})
	t.Run("MQTT 5", func(t *testing.T) {
		p := dial(t, h)
		hello := h.hello("leaf")
		hello.ProtocolVersion = 5
		var buf bytes.Buffer
		if err := hello.ConnectEncode(&buf); err != nil {
			t.Fatal(err)
		}
		p.conn.Write(buf.Bytes())
		if code := p.expect(packets.Connack).ReasonCode; code != badVersion {
			t.Errorf("code %d, want %d", code, badVersion)
		}
	})
	t.Run("silence", func(t *testing.T) {
		h, err := New(Config{})
		if err != nil {
			t.Fatal(err)
		}
		h.connectWait = 50 * time.Millisecond
		run(t, h)
		dial(t, h).expectEnd()
	})
}

func TestNewerConnectionClosesTheOlder(t *testing.T) {
	h := household(t)
	a := online(t, h, "leaf")
	b := online(t, h, "leaf")
	a.expectEnd()
	b.publish(wire.TelemetryTopic("leaf", "", ""), 1, 7, "x")
	b.expect(packets.Puback)
	if c := h.Connections(); len(c) != 1 || c[0].Connects != 2 || h.Connects("leaf") != 2 {
		t.Errorf("connections %+v", c)
	}
}

func TestKeepAlive(t *testing.T) {
	h := household(t)
	p := dial(t, h)
	hello := h.hello("leaf")
	hello.Connect.Keepalive = 1
	if code := p.enter(hello); code != accepted {
		t.Fatal(code)
	}
	begin := time.Now()
	p.expectEnd()
	if d := time.Since(begin); d < 1400*time.Millisecond || d > 5*time.Second {
		t.Errorf("closed after %s, want 1.5s", d)
	}
}

func TestPing(t *testing.T) {
	h := household(t)
	p := online(t, h, "leaf")
	pk := &packets.Packet{}
	pk.FixedHeader.Type = packets.Pingreq
	p.send(pk)
	p.expect(packets.Pingresp)
}

func TestWill(t *testing.T) {
	h := household(t)
	hello := h.hello("leaf")
	hello.Connect.WillFlag, hello.Connect.WillTopic, hello.Connect.WillPayload = true, wire.TelemetryTopic("leaf", "", "a=b"), []byte("gone")
	p := dial(t, h)
	p.enter(hello)
	p.conn.Close()
	eventually(t, "will is kept", func() bool { return h.Count() == 1 })
	if m := h.Messages()[0]; string(m.Body) != "gone" || m.Props["iothub-MessageType"] != "Will" || m.Props["a"] != "b" {
		t.Errorf("will %+v", m)
	}
	p = dial(t, h)
	p.enter(hello)
	bye := &packets.Packet{}
	bye.FixedHeader.Type = packets.Disconnect
	p.send(bye)
	p.expectEnd()
	if h.Count() != 1 {
		t.Error("will is kept after DISCONNECT")
	}
	hello.Connect.WillTopic = wire.TelemetryTopic("plain", "", "")
	if code := dial(t, h).enter(hello); code != notAuthorized {
		t.Errorf("will of another: code %d, want %d", code, notAuthorized)
	}
}

func TestSubscribe(t *testing.T) {
	h := household(t)
	p := online(t, h, "leaf")
	got := p.subscribe(2, wire.MethodFilter, wire.TwinFilter, wire.DesiredFilter, wire.DeviceboundFilter("leaf", ""),
		"#", wire.DeviceboundFilter("plain", ""), "devices/leaf/#")
	if want := []byte{1, 1, 1, 1, 0x80, 0x80, 0x80}; !bytes.Equal(got, want) {
		t.Errorf("device: granted %v, want %v", got, want)
	}
	if got := p.subscribe(0, wire.MethodFilter); !bytes.Equal(got, []byte{0}) {
		t.Errorf("granted %v, want 0", got)
	}
	m := online(t, h, "leaf/m")
	got = m.subscribe(1, "devices/leaf/modules/m/inputs/#", "devices/leaf/modules/m/#", "devices/leaf/modules/else/#")
	if want := []byte{1, 1, 0x80}; !bytes.Equal(got, want) {
		t.Errorf("module: granted %v, want %v", got, want)
	}
}

func TestCloudToDevice(t *testing.T) {
	h := household(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	sent := make(chan error, 1)
	go func() { sent <- h.Send(ctx, "leaf", wire.NewBag("k", "v"), []byte("one")) }()
	eventually(t, "message is queued", func() bool { return h.waiting("leaf") == 1 })

	p := online(t, h, "leaf")
	p.expectSilence() // not subscribed yet
	p = online(t, h, "leaf")
	p.subscribe(1, wire.DeviceboundFilter("leaf", ""))
	pk := p.expect(packets.Publish)
	_, _, bag, err := wire.ParseDevicebound(pk.TopicName)
	if err != nil {
		t.Fatal(err)
	}
	if to, _ := bag.Get(wire.To); string(pk.Payload) != "one" || pk.FixedHeader.Qos != 1 || pk.FixedHeader.Dup || to != "/devices/leaf/messages/devicebound" {
		t.Errorf("got %q on %q at QoS %d", pk.Payload, pk.TopicName, pk.FixedHeader.Qos)
	}

	// Not acknowledged: it comes again, to the session that was kept, without SUBSCRIBE.
	p = dial(t, h)
	p.send(h.hello("leaf"))
	if !p.expect(packets.Connack).SessionPresent {
		t.Error("session is not present")
	}
	pk = p.expect(packets.Publish)
	if !pk.FixedHeader.Dup || string(pk.Payload) != "one" {
		t.Errorf("repeat is %q, DUP %v", pk.Payload, pk.FixedHeader.Dup)
	}
	select {
	case err := <-sent:
		t.Fatalf("Send has ended before the PUBACK: %v", err)
	default:
	}
	ack := &packets.Packet{PacketID: pk.PacketID}
	ack.FixedHeader.Type = packets.Puback
	p.send(ack)
	if err := <-sent; err != nil {
		t.Errorf("Send: %v", err)
	}
	if n := h.waiting("leaf"); n != 0 {
		t.Errorf("%d messages wait, want none", n)
	}
	if err := h.Send(ctx, "nobody", "", nil); !errors.Is(err, errUnknown) {
		t.Errorf("Send to nobody: %v", err)
	}
}

func TestLettersGoOutOnceEachAndInOrder(t *testing.T) {
	h := household(t)
	p := online(t, h, "leaf")
	p.subscribe(1, wire.DeviceboundFilter("leaf", ""))
	for i := range 3 {
		if _, err := h.post("leaf", "", []byte{byte('1' + i)}); err != nil {
			t.Fatal(err)
		}
		if pk := p.expect(packets.Publish); pk.Payload[0] != byte('1'+i) || pk.PacketID != uint16(i+1) {
			t.Errorf("got %q with packet id %d, want %d", pk.Payload, pk.PacketID, i+1)
		}
	}
	p.expectSilence()
}

func TestUnsubscribe(t *testing.T) {
	h := household(t)
	p := online(t, h, "leaf")
	p.subscribe(1, wire.DeviceboundFilter("leaf", ""))
	pk := &packets.Packet{PacketID: 5, Filters: packets.Subscriptions{{Filter: wire.DeviceboundFilter("leaf", "")}}}
	pk.FixedHeader.Type = packets.Unsubscribe
	p.send(pk)
	if id := p.expect(packets.Unsuback).PacketID; id != 5 {
		t.Errorf("packet id %d, want 5", id)
	}
	if _, err := h.post("leaf", "", nil); err != nil {
		t.Fatal(err)
	}
	p.expectSilence()
}

func (h *Hub) waiting(id string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.session(id).letters)
}

func TestCleanSessionForgetsSubscriptions(t *testing.T) {
	h := household(t)
	p := online(t, h, "leaf")
	p.subscribe(1, wire.DeviceboundFilter("leaf", ""))
	hello := h.hello("leaf")
	hello.Connect.Clean = true
	p = dial(t, h)
	p.send(hello)
	if p.expect(packets.Connack).SessionPresent {
		t.Error("session is present after clean=1")
	}
	if _, err := h.post("leaf", "", nil); err != nil {
		t.Fatal(err)
	}
	p.expectSilence()
}

func TestQueueOfLettersIsBounded(t *testing.T) {
	h := household(t)
	for range maxLetters {
		if _, err := h.post("leaf", "", nil); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := h.post("leaf", "", nil); !errors.Is(err, errQueueFull) {
		t.Errorf("one more: %v, want %v", err, errQueueFull)
	}
}

func TestMethod(t *testing.T) {
	h := household(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, _, err := h.Invoke(ctx, "leaf", "m", nil); !errors.Is(err, errOffline) {
		t.Errorf("offline: %v", err)
	}
	p := online(t, h, "leaf")
	if _, _, err := h.Invoke(ctx, "leaf", "m", nil); !errors.Is(err, errOffline) {
		t.Errorf("not listening: %v", err)
	}
	p.subscribe(0, wire.MethodFilter)
	type answer struct {
		status int
		body   []byte
		err    error
	}
	got := make(chan answer, 1)
	go func() {
		status, body, err := h.Invoke(ctx, "leaf", "set it", []byte(`1`))
		got <- answer{status, body, err}
	}()
	pk := p.expect(packets.Publish)
	name, rid, err := wire.ParseMethod(pk.TopicName)
	if err != nil || name != "set%20it" || string(pk.Payload) != "1" {
		t.Fatalf("method %q, payload %q, error %v", name, pk.Payload, err)
	}
	other := online(t, h, "plain")
	other.publish(wire.MethodReplyTopic(500, rid), 1, 1, "{}") // not its call
	other.expect(packets.Puback)
	p.publish(wire.MethodReplyTopic(207, rid), 1, 1, `{"a":1}`)
	p.expect(packets.Puback)
	if a := <-got; a.err != nil || a.status != 207 || string(a.body) != `{"a":1}` {
		t.Errorf("answer %+v", a)
	}
	short, cancel2 := context.WithTimeout(ctx, 20*time.Millisecond)
	defer cancel2()
	if _, _, err := h.Invoke(short, "leaf", "m", nil); !errors.Is(err, errTimeout) {
		t.Errorf("no answer: %v", err)
	}
}

func TestTwinOfDevice(t *testing.T) {
	h := household(t)
	p := online(t, h, "leaf")
	p.subscribe(0, wire.TwinFilter)
	p.publish("$iothub/twin/GET/?$rid=a-1", 0, 0, " ")
	pk := p.expect(packets.Publish)
	if want := `{"desired":{"$version":1},"reported":{"$version":1}}`; pk.TopicName != "$iothub/twin/res/200/?$rid=a-1" || string(pk.Payload) != want {
		t.Errorf("got %q on %s, want %q", pk.Payload, pk.TopicName, want)
	}
	for _, c := range []struct{ patch, topic, reported string }{
		{`{"a":{"b":1,"c":9007199254740993},"x":"y"}`, "204/?$rid=2&$version=2", `{"$version":2,"a":{"b":1,"c":9007199254740993},"x":"y"}`},
		{`{"a":{"b":null},"x":null}`, "204/?$rid=2&$version=3", `{"$version":3,"a":{"c":9007199254740993}}`},
		{`[1]`, "400/?$rid=2", `{"$version":3,"a":{"c":9007199254740993}}`},
		{`{"a":[null]}`, "400/?$rid=2", `{"$version":3,"a":{"c":9007199254740993}}`},
		{`{"a.b":1}`, "400/?$rid=2", `{"$version":3,"a":{"c":9007199254740993}}`},
	} {
		p.publish("$iothub/twin/PATCH/properties/reported/?$rid=2", 1, 3, c.patch)
		pk := p.expect(packets.Publish)
		p.expect(packets.Puback)
		if pk.TopicName != "$iothub/twin/res/"+c.topic {
			t.Errorf("patch %s: answer on %s, want %s", c.patch, pk.TopicName, c.topic)
		}
		var e struct {
			Code    int    `json:"errorCode"`
			Message string `json:"message"`
		}
		if strings.HasPrefix(c.topic, "400") && (json.Unmarshal(pk.Payload, &e) != nil || e.Code == 0 || e.Message == "") {
			t.Errorf("patch %s: error body %q", c.patch, pk.Payload)
		}
		if got := string(h.Reported("leaf")); got != c.reported {
			t.Errorf("patch %s: reported is %s, want %s", c.patch, got, c.reported)
		}
	}
	p.subscribe(0, wire.DesiredFilter)
	if v, err := h.Desire("leaf", []byte(`{"on":true,"old":null}`)); v != 2 || err != nil {
		t.Errorf("Desire: %d, %v", v, err)
	}
	pk = p.expect(packets.Publish)
	if pk.TopicName != "$iothub/twin/PATCH/properties/desired/?$version=2" || string(pk.Payload) != `{"$version":2,"old":null,"on":true}` {
		t.Errorf("got %q on %s", pk.Payload, pk.TopicName)
	}
}
