package hubtest

import (
	"bytes"
	"runtime"
	"testing"

	"github.com/mochi-mqtt/server/v2/packets"
)

// FuzzReadPacket: bytes from the network can make reading fail and no more, and
// what is taken has the length that its header says.
func FuzzReadPacket(f *testing.F) {
	f.Add([]byte{0x10, 0x10, 0, 4, 'M', 'Q', 'T', 'T', 4, 2, 0, 60, 0, 4, 'l', 'e', 'a', 'f'})
	f.Add([]byte{0x32, 0x06, 0, 1, 'a', 0, 1, 'x'})
	f.Add([]byte{0x40, 0x02, 0, 1})
	f.Add([]byte{0x82, 0x06, 0, 1, 0, 1, 'a', 0})
	f.Add([]byte{0x82, 0x06, 0x12, 0x34, 0, 0, 1, 0x61}) // cut short
	f.Add([]byte{0xa2, 0x05, 0, 1, 0, 1, 'a'})
	f.Add([]byte{0xc0, 0x00})
	f.Add([]byte{0xe0, 0x00})
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		pk, err := readPacket(r)
		if err != nil {
			return
		}
		header := 2
		for n := pk.FixedHeader.Remaining; n > 127; n >>= 7 {
			header++
		}
		if read := len(b) - r.Len(); read < header+pk.FixedHeader.Remaining {
			t.Fatalf("%x: read %d bytes of a packet of %d", b, read, header+pk.FixedHeader.Remaining)
		}
		if pk.FixedHeader.Type == packets.Publish && pk.FixedHeader.Qos > 0 && pk.PacketID == 0 {
			t.Fatalf("%x: took packet id 0", b)
		}
	})
}

// TestRunLeavesNothing: no goroutine outlives Run, whatever was under way.
func TestRunLeavesNothing(t *testing.T) {
	before := runtime.NumGoroutine()
	h, err := New(Config{Control: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	stop := run(t, h)
	h.Put(Device{ID: "leaf"})
	h.Put(Device{ID: "plain"})
	h.Fault(Faults{PubackDelay: patience})
	p, ws := online(t, h, "leaf"), dialWebSocket(t, h)
	ws.enter(h.hello("plain"))
	p.speak(1, 5)
	sent := make(chan error, 1)
	go func() { sent <- h.Send(t.Context(), "leaf", "", nil) }()
	eventually(t, "message is queued", func() bool { return h.waiting("leaf") == 1 })
	h.Fault(Faults{Hang: true})
	stop()
	if err := <-sent; err == nil {
		t.Error("Send has no error after the end")
	}
	eventually(t, "goroutines are gone", func() bool { return runtime.NumGoroutine() <= before })
}
