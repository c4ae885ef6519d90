package mqtt

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/mochi-mqtt/server/v2/packets"
)

// from dials the broker from an address of this machine.
func from(t testing.TB, ip string, to net.Addr) net.Conn {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}, Timeout: time.Minute}
	nc, err := d.Dial("tcp", to.String())
	if err != nil {
		t.Fatalf("dial from %s: %v", ip, err)
	}
	t.Cleanup(func() { nc.Close() })
	return nc
}

func TestPerAddress(t *testing.T) {
	log := &safeBuffer{}
	h, g := newFakes()
	b, err := New(Config{Listen: "127.0.0.1:0", PerAddress: 3}, stored(t, Deps{Gate: g, Log: slog.New(slog.NewTextHandler(log, nil))}))
	if err != nil {
		t.Fatal(err)
	}
	run(t, b, h)
	s := httptest.NewServer(b.WebSocket())
	defer s.Close()
	login := func(ip, id string) *client {
		c := newClient(t, from(t, ip, b.Addr()), v311)
		if ack := c.connect(id, "all", "secret", nil); ack.ReasonCode != 0 {
			t.Fatalf("CONNACK %d for %s", ack.ReasonCode, id)
		}
		return c
	}
	a, _ := login("127.0.0.1", "a"), login("127.0.0.1", "b")
	silent := newClient(t, from(t, "127.0.0.1", b.Addr()), v311) // counts, too
	eventually(t, "three are counted", func() bool { return b.addresses.count("127.0.0.1") == 3 })
	newClient(t, from(t, "127.0.0.1", b.Addr()), v311).wantClosed()
	_, res, err := (&websocket.Dialer{Subprotocols: []string{"mqtt"}}).Dial("ws"+strings.TrimPrefix(s.URL, "http"), nil)
	if err == nil || res == nil || res.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("a fourth by WebSocket: %v, %v", res, err)
	}
	login("127.0.0.2", "c").ping()
	if n := refusals(b, "address"); n != 2 {
		t.Errorf("%v refused, want 2", n)
	}
	eventually(t, "the log tells of it once", func() bool { return strings.Count(log.String(), "per_address") == 1 })
	silent.nc.Close()
	a.send(packets.Disconnect, nil)
	a.wantClosed()
	eventually(t, "places are free again", func() bool { return b.addresses.count("127.0.0.1") == 1 })
	ws, _, err := (&websocket.Dialer{Subprotocols: []string{"mqtt"}}).Dial("ws"+strings.TrimPrefix(s.URL, "http"), nil)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "a WebSocket counts", func() bool { return b.addresses.count("127.0.0.1") == 2 })
	ws.Close()
	eventually(t, "and gives its place back", func() bool { return b.addresses.count("127.0.0.1") == 1 })
}

func (t *addresses) count(ip string) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	for a, n := range t.open {
		if a.String() == ip {
			return n
		}
	}
	return 0
}

func TestAddressOf(t *testing.T) {
	for _, tt := range []struct {
		a    net.Addr
		want string
	}{
		{&net.TCPAddr{IP: net.ParseIP("10.0.0.1"), Port: 5}, "10.0.0.1"},
		{&net.TCPAddr{IP: net.ParseIP("::ffff:10.0.0.1").To16(), Port: 5}, "10.0.0.1"},
		{&net.TCPAddr{IP: net.ParseIP("fe80::1"), Zone: "eth0"}, "fe80::1%eth0"},
		{word("10.0.0.1:5"), "10.0.0.1"},
		{word("pipe"), "invalid IP"},
	} {
		if got := addressOf(tt.a).String(); got != tt.want {
			t.Errorf("addressOf(%v) = %s, want %s", tt.a, got, tt.want)
		}
	}
}

type word string

func (word) Network() string  { return "pipe" }
func (w word) String() string { return string(w) }

// Three hundred connections that say nothing, or stop in the middle, and five hundred
// clients at once: the strangers take their few places, and the clients get in.
func TestCrowdAtTheDoor(t *testing.T) {
	h, g := newFakes()
	b, err := New(Config{Listen: "127.0.0.1:0", TLSListen: "127.0.0.1:0"}, stored(t, Deps{Gate: g, Log: slog.New(slog.DiscardHandler), TLS: serverTLS(t)}))
	if err != nil {
		t.Fatal(err)
	}
	run(t, b, h)
	var before runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range 300 {
		nc := from(t, fmt.Sprint("127.0.0.", 2+i%4), []net.Addr{b.Addr(), b.TLSAddr()}[i%2])
		switch i % 8 {
		case 2:
			nc.Write([]byte{0x10, 20, 0, 4}) // half a CONNECT
		case 3:
			nc.Write([]byte{22, 3, 1, 2, 0, 1, 0, 1, 0xfc}) // half a ClientHello
		case 5:
			nc.Write([]byte{22, 3, 1, 0xff, 0xff}) // the header of a long record
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var most atomic.Int64
	var watch sync.WaitGroup
	watch.Go(func() {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			b.strangers.mu.Lock()
			most.Store(max(most.Load(), int64(len(b.strangers.list))))
			b.strangers.mu.Unlock()
			<-tick.C
		}
	})
	var all sync.WaitGroup
	var in atomic.Int64
	for i := range 500 {
		all.Go(func() {
			for end := time.Now().Add(time.Minute); time.Now().Before(end); {
				if enters(t, b, i) {
					in.Add(1)
					return
				}
			}
		})
	}
	all.Wait()
	stop()
	watch.Wait()
	if n := in.Load(); n != 500 {
		t.Errorf("%d of 500 clients got in", n)
	}
	if n := most.Load(); n > maxStrangers {
		t.Errorf("%d strangers at a time, at most %d are allowed", n, maxStrangers)
	}
	var after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&after)
	if more := int64(after.HeapInuse) - int64(before.HeapInuse); more > 100<<20 {
		t.Errorf("%d MiB of memory, for 500 clients on both sides", more>>20)
	}
}

// enters connects client i, every tenth over TLS, and keeps it connected.
func enters(t *testing.T, b *Broker, i int) bool {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(fmt.Sprint("127.0.1.", 1+i%6))}, Timeout: time.Minute}
	to := b.Addr()
	if i%10 == 0 {
		to = b.TLSAddr()
	}
	nc, err := d.Dial("tcp", to.String())
	if err != nil {
		return false
	}
	t.Cleanup(func() { nc.Close() })
	if i%10 == 0 {
		nc = tls.Client(nc, &tls.Config{InsecureSkipVerify: true}) // the test's own certificate
	}
	c := newClient(t, nc, v311)
	pk := packets.Packet{ProtocolVersion: v311, FixedHeader: packets.FixedHeader{Type: packets.Connect}}
	hello(&pk)
	pk.Connect.ClientIdentifier = fmt.Sprint("c", i)
	nc.SetDeadline(time.Now().Add(time.Minute))
	if _, err := nc.Write(encode(t, pk)); err != nil {
		return false
	}
	ack, err := c.read()
	return err == nil && ack.ReasonCode == 0
}
