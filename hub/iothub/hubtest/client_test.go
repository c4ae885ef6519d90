package hubtest

import (
	"bytes"
	"testing"

	"github.com/mochi-mqtt/server/v2/packets"

	"holdfast.dev/holdfast/hub/wire"
)

func TestTelemetryIsKeptThenAcknowledged(t *testing.T) {
	for name, dial := range map[string]func(*testing.T, *Hub) *peer{"mqtt": dial, "websocket": dialWebSocket} {
		t.Run(name, func(t *testing.T) {
			var lines bytes.Buffer
			h := start(t, Config{Received: &lines})
			h.Put(Device{ID: "d1"})
			p := dial(t, h)
			if code := p.enter(h.hello("d1")); code != accepted {
				t.Fatalf("CONNECT: code %d, want 0", code)
			}
			bag := wire.NewBag(wire.MessageID, "m 1", "a b", "x/y&z")
			for i := range uint16(50) {
				p.publish(wire.TelemetryTopic("d1", "", bag), 1, i+1, `{"n":1}`)
			}
			for i := range uint16(50) {
				if got := p.expect(packets.Puback).PacketID; got != i+1 {
					t.Fatalf("PUBACK %d, want %d", got, i+1)
				}
				if h.Count() < int(i)+1 {
					t.Fatalf("acknowledged %d messages, kept %d", i+1, h.Count())
				}
			}
			m := h.Messages()[49]
			if m.N != 50 || m.Device != "d1" || m.Via != "" || m.QoS != 1 || string(m.Body) != `{"n":1}` ||
				m.Props["$.mid"] != "m 1" || m.Props["a b"] != "x/y&z" || m.Bag != string(bag) {
				t.Errorf("message %+v", m)
			}
			if c := h.Connections(); len(c) != 1 || c[0].ID != "d1" || c[0].Transport != name || c[0].Connects != 1 {
				t.Errorf("connections %+v", c)
			}
			h.Drop("d1")
			p.expectEnd()
		})
	}
}
