package mqtt

import (
	"fmt"
	"math/rand/v2"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
)

// guest connects without a test's help, and says nothing about how it ended.
func guest(t testing.TB, b *Broker, id, user, password string, clean bool, then func(c *client)) {
	nc, err := net.Dial("tcp", b.Addr().String())
	if err != nil {
		return
	}
	defer nc.Close()
	c := newClient(t, nc, v311)
	pk := packets.Packet{ProtocolVersion: v311, FixedHeader: packets.FixedHeader{Type: packets.Connect}}
	pk.Connect = packets.ConnectParams{ProtocolName: []byte("MQTT"), ClientIdentifier: id, Clean: clean, Keepalive: 60,
		UsernameFlag: true, Username: []byte(user), PasswordFlag: true, Password: []byte(password)}
	nc.Write(encode(t, pk))
	if ack, err := c.read(); err != nil || ack.ReasonCode != 0 {
		return
	}
	then(c)
}

// Two connections with one id at once: one wins, nothing is left of the other.
func TestTakeoverAtOnce(t *testing.T) {
	b, h, _ := start(t, Config{})
	before := runtime.NumGoroutine()
	for range 300 {
		var both sync.WaitGroup
		for j := range 2 {
			both.Go(func() {
				clean := rand.IntN(2) == 0
				guest(t, b, "x", "all", "secret", clean, func(c *client) {
					c.nc.Write(subscribing(t, "a/+/#"))
					c.read()
				})
			})
			both.Go(func() {
				guest(t, b, "d", deviceUser("d"), "key", j == 0, func(c *client) {
					c.nc.Write(subscribing(t, "$iothub/methods/POST/#"))
					c.read()
				})
			})
		}
		both.Wait()
	}
	ordinary(t, b, v311, "x", "all", nil).nc.Close() // clean: ends what was kept
	device(t, b, "d").nc.Close()
	eventually(t, "all are gone", func() bool {
		b.mu.RLock()
		defer b.mu.RUnlock()
		return b.live == 0 && len(b.conns) == 0 && len(b.sessions) == 0
	})
	if hits, _ := b.topics.match("a/b/c", nil); len(hits) != 0 {
		t.Errorf("%d subscriptions are left in the tree", len(hits))
	}
	h.mu.Lock()
	if n := len(h.doers); n != 0 {
		t.Errorf("%d identities are still attached", n)
	}
	h.mu.Unlock()
	if n := b.server.Clients.Len(); n != 0 {
		t.Errorf("mochi has %d clients left", n)
	}
	eventually(t, "goroutines have ended", func() bool { return runtime.NumGoroutine() <= before })
}

func subscribing(t testing.TB, filter string) []byte {
	pk := packets.Packet{ProtocolVersion: v311, FixedHeader: packets.FixedHeader{Type: packets.Subscribe}, PacketID: 1}
	pk.Filters = packets.Subscriptions{{Filter: filter, Qos: 1}}
	return encode(t, pk)
}

// A subscriber whose connection ends and begins all the time gets every message,
// the new ones in order.
func TestNothingIsLostAtTakeover(t *testing.T) {
	b, _, _ := start(t, Config{})
	const count = 3000
	kept := func(pk *packets.Packet) { pk.Connect.Clean = false }
	first := ordinary(t, b, v311, "sub", "all", kept)
	first.subscribe("t", 1)
	go func() {
		nc, err := net.Dial("tcp", b.Addr().String())
		if err != nil {
			return
		}
		defer nc.Close()
		from := newClient(t, nc, v311)
		from.connect("from", "all", "secret", nil)
		for i := range count {
			from.publish("t", 1, uint16(i+1), fmt.Sprint(i))
			if _, err := from.read(); err != nil {
				return
			}
		}
	}()
	next := 0
	end := time.Now().Add(30 * time.Second)
	for next < count {
		if time.Now().After(end) {
			t.Fatalf("%d of %d came", next, count)
		}
		guest(t, b, "sub", "all", "secret", false, func(c *client) {
			for i := rand.IntN(60); i > 0 && next < count; i-- {
				pk, err := c.read()
				if err != nil {
					return
				}
				if pk.FixedHeader.Type != packets.Publish {
					continue
				}
				var n int
				fmt.Sscan(string(pk.Payload), &n)
				if n > next {
					t.Errorf("%d came, want %d", n, next)
					next = count
					return
				}
				next = max(next, n+1)
				if rand.IntN(10) > 0 {
					ack := packets.Packet{ProtocolVersion: v311, FixedHeader: packets.FixedHeader{Type: packets.Puback}, PacketID: pk.PacketID}
					c.nc.Write(encode(t, ack))
				} else {
					return
				}
			}
		})
	}
}

func randomTopic(filter bool) string {
	words := []string{"a", "b", "", "$c"}
	n := 1 + rand.IntN(5)
	levels := make([]string, n)
	for i := range levels {
		levels[i] = words[rand.IntN(len(words))]
		if filter && rand.IntN(3) == 0 {
			levels[i] = "+"
		}
		if filter && i == n-1 && rand.IntN(3) == 0 {
			levels[i] = "#"
		}
	}
	return strings.Join(levels, "/")
}

// Nobody gets by a filter within what is allowed a message that is not.
func TestCoversIsSafe(t *testing.T) {
	for range 300_000 {
		allowed, asked, topic := randomTopic(true), randomTopic(true), randomTopic(false)
		if allowed == "" || asked == "" || topic == "" {
			continue
		}
		if covers(allowed, asked) && matches(asked, topic) && !matches(allowed, topic) {
			t.Fatalf("%q is allowed, covers %q, and lets %q through", allowed, asked, topic)
		}
	}
}

// The tree finds those whose filters match, and no others.
func TestTree(t *testing.T) {
	var tr tree
	who := &session{}
	for range 50_000 {
		f, topic := randomTopic(true), randomTopic(false)
		if topic == "" || f == "" {
			continue
		}
		other := randomTopic(true)
		tr.put(other, t, subscription{}) // who shares levels
		tr.put(f, who, subscription{qos: 1})
		hits, _ := tr.match(topic, nil)
		found := slices.ContainsFunc(hits, func(h hit) bool { return h.who == who })
		if want := matches(f, topic); found != want {
			t.Errorf("filter %q on topic %q: found %v, want %v", f, topic, found, want)
		}
		tr.take(f, who)
		tr.take(other, t)
		if len(tr.root.below) > 0 {
			t.Fatalf("filters %q and %q leave something in the tree", f, other)
		}
	}
}

// Who has several subscriptions that match gets a message once, with the best of them.
func TestGrants(t *testing.T) {
	var tr tree
	a, b := &session{key: "a"}, &session{key: "b"}
	tr.put("x/#", a, subscription{qos: 0, id: 1})
	tr.put("x/+", a, subscription{qos: 2, id: 2, retained: true})
	tr.put("x/y", a, subscription{qos: 1, noLocal: true, id: 3})
	tr.put("#", b, subscription{qos: 1, noLocal: true})
	hits, mixed := tr.match("x/y", nil)
	for _, tt := range []struct{ from, want string }{
		{"b", "a 2 true [1 2 3]"},
		{"a", "a 2 true [1 2] b 1 false []"},
		{"c", "a 2 true [1 2 3] b 1 false []"},
	} {
		gs := grants(hits, mixed, tt.from, 2, true)
		var got []string
		for _, g := range gs {
			slices.Sort(g.ids)
			got = append(got, fmt.Sprint(g.who.(*session).key, " ", g.qos, " ", g.retain, " ", g.ids))
		}
		slices.Sort(got)
		if s := strings.Join(got, " "); s != tt.want {
			t.Errorf("from %s: %q, want %q", tt.from, s, tt.want)
		}
	}
}

// A retained message is never older than what was delivered before it.
func TestRetainedIsNotStale(t *testing.T) {
	b, _, _ := start(t, Config{})
	for i := range 2000 {
		b.retained.set(&message{topic: fmt.Sprint("other/", i), retain: true, body: []byte("x")})
	}
	c := ordinary(t, b, v311, "c", "all", nil)
	stop := make(chan struct{})
	var spreading sync.WaitGroup
	spreading.Go(func() {
		for n := 1; ; n++ {
			select {
			case <-stop:
				return
			case <-time.After(50 * time.Microsecond):
				b.spread(&message{topic: "t", retain: true, body: []byte(fmt.Sprint(n))})
			}
		}
	})
	defer spreading.Wait()
	defer close(stop)
	last := 0
	for range 30 {
		c.nc.Write(subscribing(t, "#"))
		for others := 0; others < 2000; {
			pk, err := c.read()
			if err != nil {
				t.Fatal(err)
			}
			if pk.FixedHeader.Type != packets.Publish {
				continue
			}
			if pk.TopicName != "t" {
				others++
				continue
			}
			var n int
			fmt.Sscan(string(pk.Payload), &n)
			if n < last {
				t.Fatalf("%d came after %d", n, last)
			}
			last = n
		}
	}
}
