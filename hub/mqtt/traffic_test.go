package mqtt

import (
	"strings"
	"testing"

	"github.com/mochi-mqtt/server/v2/packets"
)

func TestTraffic(t *testing.T) {
	publish := func(size int) []byte {
		return encode(t, packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Publish}, TopicName: "t", Payload: []byte(strings.Repeat("x", size))})
	}
	ack := []byte{packets.Puback << 4, 2, 0, 1}
	for _, tt := range []struct {
		name               string
		parts              [][]byte
		packets, publishes uint64
	}{
		{"nothing", nil, 0, 0},
		{"one", [][]byte{ack}, 1, 0},
		{"lengths of one to three bytes", [][]byte{publish(1), ack, publish(127), ack, publish(128), publish(20_000)}, 6, 4},
		{"no body", [][]byte{{packets.Pingresp << 4, 0}, ack}, 2, 0},
		{"cut off", [][]byte{publish(100)[:50]}, 1, 1},
		{"a length without an end", [][]byte{{packets.Publish << 4, 0xff, 0xff}}, 1, 1},
	} {
		var whole []byte
		for _, p := range tt.parts {
			whole = append(whole, p...)
		}
		var all, single traffic
		all.all(whole)
		if p, q, n := all.packets.Load(), all.publishes.Load(), all.bytes.Load(); p != tt.packets || q != tt.publishes || n != uint64(len(whole)) {
			t.Errorf("%s: %d packets, %d publishes, %d bytes; want %d, %d, %d", tt.name, p, q, n, tt.packets, tt.publishes, len(whole))
		}
		for _, p := range tt.parts {
			single.one(p[0], len(p))
		}
		if single.packets.Load() != all.packets.Load() || single.publishes.Load() != all.publishes.Load() || single.bytes.Load() != all.bytes.Load() {
			t.Errorf("%s: counted one by one it is another number", tt.name)
		}
	}
}
