package iothub

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/binary"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"holdfast.dev/holdfast/hub"
	"holdfast.dev/holdfast/hub/wire"
)

const testHost = "liar.hub.test"

// packet is an MQTT packet, taken apart as far as a liar needs it.
type packet struct {
	kind  byte
	flags byte
	body  []byte
	topic string // PUBLISH
	id    uint16 // PUBLISH with QoS 1, SUBSCRIBE, UNSUBSCRIBE
}

// talk is one connection of a liar, after its CONNACK.
type talk struct {
	net.Conn
	in     *bufio.Reader
	client string // client id
	n      int    // connections of this client so far, this one among them
	resume bool   // TLS session was resumed
}

func (c *talk) read() (p packet, err error) {
	first, err := c.in.ReadByte()
	if err != nil {
		return p, err
	}
	n, err := binary.ReadUvarint(c.in) // MQTT's length has the same form
	if err != nil {
		return p, err
	}
	p = packet{kind: first >> 4, flags: first & 15, body: make([]byte, n)}
	if _, err := io.ReadFull(c.in, p.body); err != nil {
		return p, err
	}
	switch p.kind {
	case pktPublish:
		k := 2 + int(binary.BigEndian.Uint16(p.body))
		p.topic = string(p.body[2:k])
		if p.flags>>1&3 > 0 {
			p.id = binary.BigEndian.Uint16(p.body[k:])
		}
	case pktSubscribe, pktUnsubscribe:
		p.id = binary.BigEndian.Uint16(p.body)
	}
	return p, nil
}

func (c *talk) puback(id uint16) { c.Write([]byte{pktPuback << 4, 2, byte(id >> 8), byte(id)}) }

// liar is an MQTT server that behaves as a test wants it to.
type liar struct {
	addr string
	ca   string                             // file
	ack  func(c *talk) (code byte, ok bool) // CONNACK; ok false: none at all. nil: 0
	talk func(c *talk)                      // after CONNACK, for a leaf; nil: honest
	own  func(c *talk)                      // the same for the gateway's own connection; nil: honest

	mu       sync.Mutex
	connects map[string]int
	times    []time.Time
	resumed  int
	kept     []string // holdfast-id of each publish that an honest talk has read
	ln       net.Listener
	conns    map[net.Conn]bool
}

// newLiar starts a liar that is honest until told otherwise. Fields are to be set
// before anybody connects.
func newLiar(t *testing.T) *liar {
	t.Helper()
	cert, ca := testCertificate(t, testHost)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &liar{addr: ln.Addr().String(), ca: ca, connects: map[string]int{}, ln: ln, conns: map[net.Conn]bool{}}
	conf := &tls.Config{Certificates: []tls.Certificate{cert}}
	var wg sync.WaitGroup
	wg.Go(func() { l.serve(ln, conf, &wg) })
	t.Cleanup(func() { l.hangUp(); wg.Wait() })
	return l
}

func (l *liar) serve(ln net.Listener, conf *tls.Config, wg *sync.WaitGroup) {
	for {
		raw, err := ln.Accept()
		if err != nil {
			return
		}
		l.mu.Lock()
		l.conns[raw] = true
		l.mu.Unlock()
		wg.Go(func() {
			defer raw.Close()
			l.one(tls.Server(raw, conf))
		})
	}
}

func (l *liar) hangUp() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ln.Close()
	for c := range l.conns {
		c.Close()
	}
}

func (l *liar) one(conn *tls.Conn) {
	c := &talk{Conn: conn, in: bufio.NewReader(conn)}
	p, err := c.read()
	if err != nil || p.kind != 1 {
		return
	}
	n := int(binary.BigEndian.Uint16(p.body[10:]))
	c.client = string(p.body[12 : 12+n])
	c.resume = conn.ConnectionState().DidResume
	l.mu.Lock()
	l.connects[c.client]++
	c.n = l.connects[c.client]
	l.times = append(l.times, time.Now())
	if c.resume {
		l.resumed++
	}
	l.mu.Unlock()
	code := byte(0)
	if l.ack != nil {
		var ok bool
		if code, ok = l.ack(c); !ok {
			io.Copy(io.Discard, c.in)
			return
		}
	}
	c.Write([]byte{pktConnack << 4, 2, 0, code})
	if code != 0 {
		return
	}
	f := l.talk
	if c.client == "gw/$edgeHub" {
		f = l.own
	}
	if f == nil {
		f = l.honest
	}
	f(c)
}

// honest answers everything as it should be.
func (l *liar) honest(c *talk) { l.answer(c, func(p packet) { c.puback(p.id) }) }

// answer reads until the connection ends and answers all but publishes, which
// are kept and given to f.
func (l *liar) answer(c *talk, f func(p packet)) {
	for {
		p, err := c.read()
		if err != nil {
			return
		}
		switch p.kind {
		case pktPingreq:
			c.Write([]byte{pktPingresp << 4, 0})
		case pktSubscribe:
			c.Write([]byte{pktSuback << 4, 3, byte(p.id >> 8), byte(p.id), 0})
		case pktUnsubscribe:
			c.Write([]byte{pktUnsuback << 4, 2, byte(p.id >> 8), byte(p.id)})
		case pktPublish:
			l.keep(p)
			f(p)
		}
	}
}

func (l *liar) keep(p packet) {
	_, _, bag, _ := wire.ParseTelemetry(p.topic)
	id, _ := bag.Get(propID)
	l.mu.Lock()
	l.kept = append(l.kept, id)
	l.mu.Unlock()
}

func (l *liar) ids() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string(nil), l.kept...)
}

func (l *liar) count(client string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.connects[client]
}

// config is that of a gateway "gw" of this hub; everything takes a second at most.
func (l *liar) config() Config {
	return Config{
		Connection: "HostName=" + testHost + ";DeviceId=gw;ModuleId=$edgeHub;SharedAccessKey=" + base64.StdEncoding.EncodeToString([]byte("secret")),
		Address:    l.addr, HTTPS: l.addr, CA: l.ca, AckTimeout: hub.Duration(time.Second),
	}
}

// upstream makes and runs one, and waits for the link.
func (l *liar) upstream(t *testing.T, change func(*Config)) *Upstream {
	t.Helper()
	cfg := l.config()
	if change != nil {
		change(&cfg)
	}
	u := newUpstream(t, cfg)
	start(t, u, newFakeHub(nil))
	until(t, "link up", 5*time.Second, u.Up)
	return u
}

func newUpstream(t *testing.T, cfg Config) *Upstream {
	t.Helper()
	u, err := New(cfg, Deps{})
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	return u
}

// testCertificate makes a certificate for host and the file of the CA that signed it.
func testCertificate(t *testing.T, host string) (tls.Certificate, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: host}, DNSNames: []string{host},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, file
}
