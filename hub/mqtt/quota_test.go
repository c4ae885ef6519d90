package mqtt

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
)

// sleeper leaves a kept session behind that subscribes to filter with quality 1.
func sleeper(t *testing.T, b *Broker, id, filter string) *session {
	t.Helper()
	c := ordinary(t, b, v311, id, "all", func(pk *packets.Packet) { pk.Connect.Clean = false })
	c.subscribe(filter, 1)
	c.send(packets.Disconnect, nil)
	c.wantClosed()
	b.mu.RLock()
	s := b.sessions["client\x00"+id]
	b.mu.RUnlock()
	eventually(t, id+" is away", func() bool { return s.live.Load() == nil })
	return s
}

// A session that is away keeps to its quota: the oldest go, counted by the store.
func TestSleepingSessionIsBounded(t *testing.T) {
	const quota = 256 << 10
	b, _, _ := start(t, Config{SessionQuota: quota})
	s := sleeper(t, b, "s", "#")
	from := ordinary(t, b, v311, "from", "all", nil)
	for i := range 200 {
		from.publish("t", 1, uint16(i+1), fmt.Sprintf("%4d %s", i, strings.Repeat("x", 4000)))
		from.want(packets.Puback)
	}
	eventually(t, "the oldest have made way", func() bool { return s.feed.q.Stats().Bytes <= quota })
	c := ordinary(t, b, v311, "s", "all", func(pk *packets.Packet) { pk.Connect.Clean = false })
	last := -1
	for last != 199 {
		pk := c.want(packets.Publish)
		var n int
		if _, err := fmt.Sscan(string(pk.Payload[:4]), &n); err != nil || n <= last {
			t.Fatalf("got %q after %d: %v", pk.Payload[:4], last, err)
		}
		if last < 0 && n == 0 {
			t.Errorf("the oldest is still there")
		}
		last = n
		c.puback(pk.PacketID)
	}
}

// However many retained messages there are, who subscribes gets them, and what is
// published meanwhile.
func TestManyRetained(t *testing.T) {
	for _, qos := range []byte{0, 1} {
		b, _, _ := start(t, Config{})
		const count = 5000
		for i := range count {
			b.retained.set(&message{topic: fmt.Sprintf("r/%d", i), qos: 1, retain: true, body: make([]byte, 3000)})
		}
		c := ordinary(t, b, v311, "c", "all", nil)
		c.subscribe("#", qos)
		from := ordinary(t, b, v311, "from", "all", nil)
		from.publish("now", 1, 1, "now")
		from.want(packets.Puback)
		seen := map[string]bool{}
		for range count + 1 {
			pk := c.want(packets.Publish)
			if seen[pk.TopicName] {
				t.Fatalf("%s came twice", pk.TopicName)
			}
			seen[pk.TopicName] = true
			if qos > 0 {
				c.puback(pk.PacketID)
			}
		}
		if !seen["now"] {
			t.Errorf("quality %d: the one published meanwhile is missing", qos)
		}
		c.ping()
		if n := b.queued.Load(); n != 0 {
			t.Errorf("quality %d: %d bytes are said to wait, want 0", qos, n)
		}
	}
}

// User properties weigh as much as a body.
func TestPropertiesCount(t *testing.T) {
	b, _, _ := start(t, Config{})
	c := ordinary(t, b, v5, "c", "all", nil)
	c.send(packets.Publish, func(pk *packets.Packet) {
		pk.FixedHeader.Qos, pk.FixedHeader.Retain, pk.PacketID, pk.TopicName, pk.Payload = 1, true, 1, "t", []byte("x")
		long := strings.Repeat("v", 50_000)
		pk.Properties.User = []packets.UserProperty{{Key: "a", Val: long}, {Key: "b", Val: long}}
	})
	c.want(packets.Puback)
	eventually(t, "it is retained", func() bool { return b.retained.len() == 1 })
	if n := b.retained.bytes; n < 100_000 {
		t.Errorf("a retained message with 100 kB of properties counts for %d bytes", n)
	}
}

// What a client subscribes to, and its name, stay in memory for as long as its
// session does.
func TestNamesAreBounded(t *testing.T) {
	b, _, _ := start(t, Config{})
	c := ordinary(t, b, v5, "c", "all", nil)
	long := strings.Repeat("x", 50_000)
	got := byte(0)
	for i := 0; i < 30 && got < 0x80; i++ {
		got = c.subscribe(fmt.Sprint(i)+long, 1)
	}
	if got != codeQuota {
		t.Errorf("SUBACK %#x after 1.5 MB of filters, want %#x", got, codeQuota)
	}
	c.send(packets.Unsubscribe, func(pk *packets.Packet) {
		pk.PacketID, pk.Filters = 9, packets.Subscriptions{{Filter: "0" + long}}
	})
	c.want(packets.Unsuback)
	if got := c.subscribe("short", 1); got != 1 {
		t.Errorf("SUBACK %#x with room again", got)
	}
	d := dial(t, b)
	if ack := d.connect(long, "all", "secret", nil); ack.ReasonCode != 2 {
		t.Errorf("CONNACK %d for a client id of 50 kB, want 2", ack.ReasonCode)
	}
}

// Retained messages whose time is over make room for new ones.
func TestExpiredRetainedMakeRoom(t *testing.T) {
	b, _, _ := start(t, Config{})
	for i := range maxRetained {
		m := &message{topic: fmt.Sprint("r/", i), body: []byte("x"), expires: time.Now()}
		if i%2 == 0 {
			m.expires = time.Time{}
		}
		if !b.retained.set(m) {
			t.Fatalf("no room for message %d", i)
		}
	}
	if !b.retained.set(&message{topic: "new", body: []byte("x")}) {
		t.Errorf("no room, though half of them have expired")
	}
	if n, want := b.retained.len(), maxRetained/2+1; n != want {
		t.Errorf("%d retained, want %d", n, want)
	}
	if want := (maxRetained/2 + 1) * (64 + 1); b.retained.bytes < want {
		t.Errorf("%d bytes, want at least %d", b.retained.bytes, want)
	}
}
