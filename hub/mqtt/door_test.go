package mqtt

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gorilla/websocket"
	"github.com/mochi-mqtt/server/v2/packets"
)

// pipe gives the broker one end of a pipe and the caller the other.
func pipe(t testing.TB, b *Broker, v byte) *client {
	far, near := net.Pipe()
	go b.serve(near, nil)
	return newClient(t, far, v)
}

// hello is a CONNECT of an account that may do all.
func hello(pk *packets.Packet) {
	pk.Connect = packets.ConnectParams{ProtocolName: []byte("MQTT"), ClientIdentifier: "x", Clean: true, Keepalive: 60,
		UsernameFlag: true, Username: []byte("all"), PasswordFlag: true, Password: []byte("secret")}
}

func TestNotReady(t *testing.T) {
	h, g := newFakes()
	b, err := New(Config{Listen: "127.0.0.1:0"}, stored(t, Deps{Gate: g, Log: slog.New(slog.DiscardHandler)}))
	if err != nil {
		t.Fatal(err)
	}
	c := pipe(t, b, v311)
	c.send(packets.Connect, hello)
	if ack := c.want(packets.Connack); ack.ReasonCode != 3 {
		t.Errorf("CONNACK %d before Run, want 3", ack.ReasonCode)
	}
	run(t, b, h)
	c = pipe(t, b, v311)
	c.send(packets.Connect, hello)
	if ack := c.want(packets.Connack); ack.ReasonCode != 0 {
		t.Errorf("CONNACK %d, want 0", ack.ReasonCode)
	}
}

func TestPortInUse(t *testing.T) {
	b, _, g := start(t, Config{})
	addr := b.Addr().String()
	_, err := New(Config{Listen: addr}, stored(t, Deps{Gate: g, Log: slog.New(slog.DiscardHandler)}))
	want := "listen on " + addr + ": address already in use: another broker may be running; stop it or set [mqtt] listen"
	if err == nil || err.Error() != want {
		t.Errorf("New: %v, want %s", err, want)
	}
}

func TestBadConfig(t *testing.T) {
	for _, cfg := range []Config{{Window: -1}, {Window: 1 << 16}, {MaxClients: -1}, {KeepAlive: 1}} {
		cfg.Listen = "off"
		if _, err := New(cfg, stored(t, Deps{Log: slog.New(slog.DiscardHandler)})); err == nil {
			t.Errorf("New(%+v) made a broker", cfg)
		}
	}
}

// A connection that says nothing, or stops in the middle, does not stay.
func TestDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, g := newFakes()
		b, err := New(Config{Listen: "off"}, stored(t, Deps{Gate: g, Log: slog.New(slog.DiscardHandler)}))
		if err != nil {
			t.Fatal(err)
		}
		b.hub = h
		for _, tt := range []struct {
			name  string
			first func(c *client)
			after time.Duration
		}{
			{"silent", func(*client) {}, connectTimeout},
			{"half a CONNECT", func(c *client) { c.raw(0x10, 20, 0, 4) }, connectTimeout},
			{"keep alive", func(c *client) { c.send(packets.Connect, hello); c.want(packets.Connack) }, 90 * time.Second},
			{"device with keep alive 0", func(c *client) {
				c.connect("d1", deviceUser("d1"), "key", func(pk *packets.Packet) { pk.Connect.Keepalive = 0 })
			}, 15 * time.Minute},
		} {
			began := time.Now()
			c := pipe(t, b, v311)
			tt.first(c)
			c.nc.SetReadDeadline(time.Time{})
			if _, err := c.br.ReadByte(); err == nil {
				t.Errorf("%s: got a packet", tt.name)
			}
			if d := time.Since(began); d != tt.after {
				t.Errorf("%s: connection lasted %v, want %v", tt.name, d, tt.after)
			}
		}
		// An acknowledgement is a sign of life, though mochi never sees it.
		c := pipe(t, b, v311)
		c.connect("d2", deviceUser("d2"), "key", nil)
		for range 5 {
			time.Sleep(80 * time.Second) // the bubble's clock
			c.puback(1)
		}
		c.ping()
		c.nc.Close()
		b.wg.Wait()
	})
}

// A client that takes nothing is hung up when the write has timed out.
func TestWriteDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, g := newFakes()
		b, err := New(Config{Listen: "off"}, stored(t, Deps{Gate: g, Log: slog.New(slog.DiscardHandler)}))
		if err != nil {
			t.Fatal(err)
		}
		b.hub = h
		c := pipe(t, b, v311)
		c.send(packets.Connect, hello)
		c.want(packets.Connack)
		c.publish("t", 1, 1, "x") // and the PUBACK is never read
		time.Sleep(writeTimeout + time.Second)
		synctest.Wait()
		if n := metric(b, "mqtt_slow_total"); n != 1 {
			t.Errorf("%v slow clients, want 1", n)
		}
		b.wg.Wait()
	})
}

func TestKeptSessionEnds(t *testing.T) {
	b, _, _ := start(t, Config{})
	c := ordinary(t, b, v311, "c", "all", func(pk *packets.Packet) { pk.Connect.Clean = false })
	c.subscribe("+/#", 1)
	c.nc.Close()
	eventually(t, "c is away", func() bool { return metric(b, "mqtt_clients") == 0 })
	if n := metric(b, "mqtt_sessions"); n != 1 {
		t.Fatalf("%v sessions, want 1", n)
	}
	b.sweep(time.Now().Add(usualExpiry + time.Second))
	if n := metric(b, "mqtt_sessions"); n != 0 {
		t.Errorf("%v sessions, want 0", n)
	}
	if hits, _ := b.topics.match("a", nil); len(hits) != 0 {
		t.Errorf("%d subscriptions are left in the tree", len(hits))
	}
}

func TestWebSocket(t *testing.T) {
	b, h, _ := start(t, Config{})
	s := httptest.NewServer(b.WebSocket())
	defer s.Close()
	url := "ws" + strings.TrimPrefix(s.URL, "http") + "/$iothub/websocket"
	ws, _, err := (&websocket.Dialer{Subprotocols: []string{"mqtt"}}).Dial(url, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ws.Close()
	if p := ws.Subprotocol(); p != "mqtt" {
		t.Errorf("subprotocol %q, want mqtt", p)
	}
	c := newClient(t, &wsConn{Conn: ws}, v311)
	if ack := c.connect("d1", deviceUser("d1"), "key", nil); ack.ReasonCode != 0 {
		t.Fatalf("CONNACK %d", ack.ReasonCode)
	}
	// One packet in two messages.
	p := encode(t, packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: 1}, PacketID: 1,
		TopicName: "devices/d1/messages/events/", Payload: []byte("x")})
	c.raw(p[:5]...)
	c.raw(p[5:]...)
	c.want(packets.Puback)
	if n := len(h.kept()); n != 1 {
		t.Errorf("%d kept, want 1", n)
	}
	if err := ws.WriteMessage(websocket.TextMessage, p); err != nil {
		t.Fatal(err)
	}
	c.wantClosed()
	resp, err := http.Get(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusBadRequest {
		t.Errorf("plain GET: %d, want %d", resp.StatusCode, http.StatusBadRequest)
	}
}

// serverTLS is a configuration with a certificate that nobody has to trust.
func serverTLS(t *testing.T) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1)}, &x509.Certificate{SerialNumber: big.NewInt(1)}, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
}

func TestTLS(t *testing.T) {
	h, g := newFakes()
	b, err := New(Config{Listen: "off", TLSListen: "127.0.0.1:0"}, stored(t, Deps{Gate: g, Log: slog.New(slog.DiscardHandler), TLS: serverTLS(t)}))
	if err != nil {
		t.Fatal(err)
	}
	run(t, b, h)
	if b.Addr() != nil {
		t.Errorf("Addr is %v, want none", b.Addr())
	}
	nc, err := tls.Dial("tcp", b.TLSAddr().String(), &tls.Config{InsecureSkipVerify: true}) // the test's own certificate
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	c := newClient(t, nc, v311)
	if ack := c.connect("d1", deviceUser("d1"), "key", nil); ack.ReasonCode != 0 {
		t.Errorf("CONNACK %d", ack.ReasonCode)
	}
	c.ping()
}

// Run may be run again, as a supervisor does.
func TestRunAgain(t *testing.T) {
	h, g := newFakes()
	b, err := New(Config{Listen: "127.0.0.1:0"}, stored(t, Deps{Gate: g, Log: slog.New(slog.DiscardHandler)}))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- b.Run(ctx, h) }()
	eventually(t, "the broker runs", func() bool { return b.running() != nil })
	c := ordinary(t, b, v5, "c", "all", nil)
	c.ping() // it is quite there
	cancel()
	if bye := c.want(packets.Disconnect); bye.ReasonCode != codeShutdown {
		t.Errorf("DISCONNECT %#x, want %#x", bye.ReasonCode, codeShutdown)
	}
	c.wantClosed()
	if err := <-ended; err != nil {
		t.Errorf("Run: %v", err)
	}
	run(t, b, h)
	ordinary(t, b, v5, "c", "all", nil)
}

// Some whose passwords take long to judge do not hold up one who is known.
func TestSlowProofs(t *testing.T) {
	b, _, _ := start(t, Config{})
	for range 20 {
		c := dial(t, b)
		c.send(packets.Connect, func(pk *packets.Packet) { hello(pk); pk.Connect.Password = []byte("slow") })
	}
	eventually(t, "they are being judged", func() bool {
		b.mu.RLock()
		defer b.mu.RUnlock()
		return len(b.conns) == 20
	})
	ordinary(t, b, v311, "c", "all", nil)
}

// Who asks and never takes the answers is read no more, long before the write
// deadline ends it: answers are memory.
func TestAnswersAreBounded(t *testing.T) {
	for _, tt := range []struct {
		name, topic string
		user, id    string
	}{
		{"twin requests", "$iothub/twin/GET/?$rid=1", deviceUser("d1"), "d1"},
		{"acknowledgements", "devices/d1/messages/events/", deviceUser("d1"), "d1"},
	} {
		synctest.Test(t, func(t *testing.T) {
			h, g := newFakes()
			b, err := New(Config{Listen: "off"}, stored(t, Deps{Gate: g, Log: slog.New(slog.DiscardHandler)}))
			if err != nil {
				t.Fatal(err)
			}
			b.hub = h
			c := pipe(t, b, v311)
			c.connect(tt.id, tt.user, "key", nil)
			c.subscribe("$iothub/twin/res/#", 0)
			p := encode(t, packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: 1}, PacketID: 1, TopicName: tt.topic})
			sent := 0
			c.nc.SetWriteDeadline(time.Now().Add(time.Second))
			for ; sent < 20_000; sent++ {
				if _, err := c.nc.Write(p); err != nil {
					break
				}
			}
			if sent > 2_000 {
				t.Errorf("%d %s were read of a client that takes no answer", sent, tt.name)
			}
			c.nc.SetReadDeadline(time.Now().Add(time.Second))
			go io.Copy(io.Discard, c.br) // takes them after all, so it goes on
			c.nc.SetWriteDeadline(time.Now().Add(time.Second))
			if _, err := c.nc.Write(p); err != nil {
				t.Errorf("%s: %v once the answers are taken", tt.name, err)
			}
			c.nc.Close()
			b.wg.Wait()
		})
	}
}
