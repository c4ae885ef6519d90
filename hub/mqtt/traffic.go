package mqtt

import (
	"sync/atomic"

	"github.com/mochi-mqtt/server/v2/packets"
)

// traffic counts what goes one way over all connections, as MQTT: without TLS and
// without the frames of WebSocket.
type traffic struct {
	packets   atomic.Uint64
	publishes atomic.Uint64 // PUBLISH among them
	bytes     atomic.Uint64
}

// one counts a packet of n bytes in all.
func (t *traffic) one(head byte, n int) {
	t.packets.Add(1)
	t.bytes.Add(uint64(n))
	if head>>4 == packets.Publish {
		t.publishes.Add(1)
	}
}

// all counts the packets that p is made of, whole ones all: one write has many.
func (t *traffic) all(p []byte) {
	t.bytes.Add(uint64(len(p)))
	var n, publishes uint64
	for len(p) > 1 {
		if p[0]>>4 == packets.Publish {
			publishes++
		}
		n++
		length, at := 0, 1
		for ; at < len(p) && at <= 4; at++ {
			length |= int(p[at]&127) << (7 * (at - 1))
			if p[at] < 128 {
				at++
				break
			}
		}
		p = p[min(len(p), at+length):]
	}
	t.packets.Add(n)
	if publishes > 0 {
		t.publishes.Add(publishes)
	}
}
