package main

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"flag"
	"fmt"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/pelletier/go-toml/v2"

	"holdfast.dev/holdfast/hub/wire"
)

// TestMain makes the test binary play hubsim and holdfast when it is started under
// their names, so that a whole outage, kills included, runs against fakes whose
// faults are known. The environment variable BENCH_FAULT names one. With a subcommand
// it is bench itself, which starts itself.
func TestMain(m *testing.M) {
	switch filepath.Base(os.Args[0]) {
	case "hubsim":
		playHub()
	case "holdfast":
		playGateway(os.Args[len(os.Args)-1])
	default:
		if len(os.Args) > 1 && !strings.HasPrefix(os.Args[1], "-") {
			main()
			return
		}
		os.Exit(m.Run())
	}
}

// fakeBin gives a folder with both.
func fakeBin(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, name := range []string{"hubsim", "holdfast"} {
		if err := os.Symlink(self, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// playHub takes arrivals as JSON Lines, each answered by a line, and gives them by
// number as hubsim does.
func playHub() {
	f := flag.NewFlagSet("hubsim", flag.ExitOnError)
	mqtt, control, ca := f.String("mqtt", "", ""), f.String("control", "", ""), f.String("ca-out", "", "")
	for _, name := range []string{"https", "host", "received", "policy-key"} {
		f.String(name, "", "")
	}
	f.Func("device", "", func(string) error { return nil })
	f.Parse(os.Args[1:])
	must(os.WriteFile(*ca, nil, 0o644))
	var mu sync.Mutex
	var got []arrival
	http.HandleFunc("/sim/state", func(http.ResponseWriter, *http.Request) {})
	http.HandleFunc("/sim/messages", func(w http.ResponseWriter, r *http.Request) {
		after, _ := strconv.Atoi(r.FormValue("after"))
		mu.Lock()
		defer mu.Unlock()
		for _, a := range got[after:] {
			json.NewEncoder(w).Encode(a)
		}
	})
	go http.ListenAndServe(*control, nil)
	serve(must1(net.Listen("tcp", *mqtt)), func(c net.Conn) {
		for lines := bufio.NewScanner(c); lines.Scan(); {
			var a arrival
			must(json.Unmarshal(lines.Bytes(), &a))
			mu.Lock()
			a.N, a.At = uint64(len(got)+1), time.Now()
			got = append(got, a)
			mu.Unlock()
			fmt.Fprintln(c, "ok")
		}
	})
}

// fakeGateway keeps messages in a file and sends them on one at a time.
type fakeGateway struct {
	config gatewayConfig
	fault  string
	boot   int64

	mu       sync.Mutex
	file     *os.File
	kept     []arrival
	sent     int // settled
	up       bool
	watchers map[*peer]bool
}

func playGateway(config string) {
	g := &fakeGateway{fault: os.Getenv("BENCH_FAULT"), boot: time.Now().UnixNano(), watchers: map[*peer]bool{}}
	must(toml.Unmarshal(must1(os.ReadFile(config)), &g.config))
	g.open()
	cert := g.certificate()
	go serve(must1(net.Listen("tcp", g.config.MQTT.Listen)), g.client)
	go serve(must1(tls.Listen("tcp", g.config.MQTT.TLSListen, cert)), g.client)
	go func() {
		for {
			g.forward()
			g.mu.Lock()
			g.up = false
			g.mu.Unlock()
			time.Sleep(50 * time.Millisecond)
		}
	}()
	http.HandleFunc("/status", func(w http.ResponseWriter, _ *http.Request) {
		g.mu.Lock()
		defer g.mu.Unlock()
		fmt.Fprintf(w, `{"link":{"up":%t},"queues":[{"name":"iothub.5","pending":%d}],"totals":{"accepted":%d,"delivered":%d,"pending":%[2]d},"store":{"commits":%[5]d}}`,
			g.up, len(g.kept)-g.sent, len(g.kept), g.sent, len(g.kept)/10)
	})
	must(http.ListenAndServe(g.config.Status.Listen, nil))
}

// open reads what an earlier process has kept; the settlements since the last
// mark, at most 20, are forgotten, so the gateway repeats.
func (g *fakeGateway) open() {
	must(os.MkdirAll(filepath.Join(g.config.Data, "tls"), 0o755))
	g.file = must1(os.OpenFile(filepath.Join(g.config.Data, "kept"), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o644))
	lines := bufio.NewScanner(g.file)
	for lines.Scan() {
		var a arrival
		must(json.Unmarshal(lines.Bytes(), &a))
		g.kept = append(g.kept, a)
	}
	if b, err := os.ReadFile(filepath.Join(g.config.Data, "mark")); err == nil {
		g.sent = must1(strconv.Atoi(string(b)))
	}
}

// client serves one MQTT connection.
func (g *fakeGateway) client(c net.Conn) {
	p := newPeer(c)
	hello, err := p.read()
	if err != nil {
		return
	}
	p.connack(0)
	for n := 1; ; n++ {
		pk, err := p.read()
		if err != nil {
			return
		}
		switch pk.FixedHeader.Type {
		case packets.Publish:
			g.keep(pk, hello.Connect.ClientIdentifier, n)
			p.puback(pk.PacketID)
		case packets.Subscribe:
			g.mu.Lock()
			g.watchers[p] = true
			g.mu.Unlock()
			p.write(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Suback}, PacketID: pk.PacketID, ReasonCodes: []byte{1}})
		case packets.Pingreq:
			p.write(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Pingresp}})
		case packets.Disconnect:
			return
		}
	}
}

// keep writes a message to the file, or does what the fault says.
func (g *fakeGateway) keep(pk packets.Packet, client string, n int) {
	a := arrival{Device: client, Props: map[string]string{}, Body: pk.Payload}
	if _, _, bag, err := wire.ParseTelemetry(pk.TopicName); err == nil {
		for k, v := range bag.All() {
			a.Props[k] = v
		}
	} else if client == "p02" {
		a.Device = gatewayID
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	a.Props["holdfast-id"] = fmt.Sprintf("%x-%d", g.boot, len(g.kept))
	if g.fault == "lose" && n%50 == 0 {
		return
	}
	g.kept = append(g.kept, a)
	fmt.Fprintf(g.file, "%s\n", must1(json.Marshal(a)))
	if g.fault == "die" && len(g.kept) > 500 {
		log.Fatal("no more of this")
	}
	if strings.HasPrefix(pk.TopicName, "plant/") && g.fault != "deaf" {
		for w := range g.watchers {
			w.write(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Publish}, TopicName: pk.TopicName, Payload: pk.Payload})
		}
	}
}

// forward sends over one connection until it is lost.
func (g *fakeGateway) forward() {
	c, err := net.Dial("tcp", g.config.IoTHub.Address)
	if err != nil {
		return
	}
	defer c.Close()
	answers := bufio.NewScanner(c)
	for {
		g.mu.Lock()
		g.up = true
		at, a := g.sent, arrival{}
		if at < len(g.kept) {
			if g.fault == "reorder" {
				g.overtake(at)
			}
			a = g.kept[at]
		}
		g.mu.Unlock()
		if a.Device == "" {
			time.Sleep(time.Millisecond)
			c.SetReadDeadline(time.Now().Add(time.Millisecond))
			if _, err := c.Read(make([]byte, 1)); err != nil && !os.IsTimeout(err) {
				return
			}
			c.SetReadDeadline(time.Time{})
			continue
		}
		if g.fault == "rename" && at%100 == 0 {
			a.Props = map[string]string{"$.mid": a.Props["$.mid"], "holdfast-id": rand.Text()}
			must(json.NewEncoder(c).Encode(a))
			answers.Scan()
			a.Props["holdfast-id"] = rand.Text()
		}
		if json.NewEncoder(c).Encode(a) != nil || !answers.Scan() {
			return
		}
		g.mu.Lock()
		g.sent++
		if g.sent%20 == 0 {
			mark := filepath.Join(g.config.Data, "mark")
			must(os.WriteFile(mark+".new", []byte(strconv.Itoa(g.sent)), 0o644))
			must(os.Rename(mark+".new", mark)) // whole, whenever the kill comes
		}
		g.mu.Unlock()
	}
}

// overtake lets a device's later message go before the one at at, now and then.
func (g *fakeGateway) overtake(at int) {
	for i := at + 1; i < len(g.kept) && at%50 == 0; i++ {
		if g.kept[i].Device == g.kept[at].Device {
			g.kept[at], g.kept[i] = g.kept[i], g.kept[at]
			return
		}
	}
}

// certificate makes an authority that certifies itself for localhost, or finds
// the one of an earlier process.
func (g *fakeGateway) certificate() *tls.Config {
	certFile, keyFile := filepath.Join(g.config.Data, "tls", "ca.pem"), filepath.Join(g.config.Data, "tls", "key.pem")
	if cert, err := tls.LoadX509KeyPair(certFile, keyFile); err == nil {
		return &tls.Config{Certificates: []tls.Certificate{cert}}
	}
	key := must1(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"localhost"},
		IsCA: true, BasicConstraintsValid: true}
	der := must1(x509.CreateCertificate(rand.Reader, c, c, key.Public(), key))
	keyDER := must1(x509.MarshalECPrivateKey(key))
	must(os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644))
	must(os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}), 0o600))
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
}

func serve(ln net.Listener, each func(net.Conn)) {
	for {
		c := must1(ln.Accept())
		go func() {
			defer c.Close()
			each(c)
		}()
	}
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func must1[T any](v T, err error) T {
	must(err)
	return v
}
