//go:build house

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"holdfast.dev/holdfast/hub/identity"
	"holdfast.dev/holdfast/hub/iothub/hubtest"
)

// The house tests run the real program as a process, with real clients on one side
// and a stand-in for IoT Hub on the other. They need bin/holdfast, the Node SDK in
// testdata/node and mosquitto's clients: make test sees to all of them.

const (
	program    = "../../bin/holdfast"
	nodeFolder = "../../testdata/node"
)

// house is a gateway with a cloud.
type house struct {
	t             *testing.T
	hub           *hubtest.Hub
	dir, config   string
	mqtt, mqttTLS string // addresses
	https         string
	process       *exec.Cmd
}

func newHouse(t *testing.T, devices ...string) *house {
	t.Helper()
	for _, need := range []string{program, filepath.Join(nodeFolder, "node_modules", "azure-iot-device")} {
		if _, err := os.Stat(need); err != nil {
			t.Fatalf("%v: run make house, or make build and npm ci in testdata/node", err)
		}
	}
	h, err := hubtest.New(hubtest.Config{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- h.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("hub: %v", err)
		}
	})
	h.Put(hubtest.Device{ID: "gw", Edge: true})
	for _, d := range devices {
		h.Put(hubtest.Device{ID: d, Parent: "gw"})
	}
	s := &house{t: t, hub: h, dir: t.TempDir(), mqtt: freePort(t, "127.0.0.1"), mqttTLS: freePort(t, "127.0.0.1"), https: "off"}
	if os.Geteuid() == 0 {
		s.https = "127.0.78.1:443" // the SDK's WebSocket knows no other port
	}
	s.configure()
	return s
}

func freePort(t *testing.T, host string) string {
	t.Helper()
	l, err := net.Listen("tcp", host+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func (s *house) configure() {
	s.t.Helper()
	hash, err := identity.Hash([]byte("secret"))
	if err != nil {
		s.t.Fatal(err)
	}
	ca := filepath.Join(s.dir, "hub-ca.pem")
	if err := os.WriteFile(ca, s.hub.CAPEM(), 0o600); err != nil {
		s.t.Fatal(err)
	}
	s.config = filepath.Join(s.dir, "holdfast.toml")
	text := fmt.Sprintf(`data = %q
[status]
listen = "off"
[https]
listen = %q
[tls]
names = ["127.0.78.1"]
[mqtt]
listen = %q
tls_listen = %q
[iothub]
connection = %q
address = %q
https = %q
ca = %q
[[account]]
name = "pump"
password = %q
publish = ["plant/#"]
subscribe = ["plant/#"]
[[forward]]
filter = "plant/up/#"
`, filepath.Join(s.dir, "data"), s.https, s.mqtt, s.mqttTLS, s.hub.ConnectionString("gw/$edgeHub"),
		s.hub.MQTTAddr(), s.hub.HTTPSAddr(), ca, hash)
	if err := os.WriteFile(s.config, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// ca is the file that devices trust the gateway by.
func (s *house) ca() string { return filepath.Join(s.dir, "data", "tls", "ca.pem") }

func (s *house) start() {
	s.t.Helper()
	log, err := os.OpenFile(filepath.Join(s.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		s.t.Fatal(err)
	}
	defer log.Close()
	s.process = exec.Command(program, "run", "--config", s.config)
	s.process.Stderr = log
	if err := s.process.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(s.kill)
	s.eventually("the gateway listens", func() bool {
		c, err := net.Dial("tcp", s.mqtt)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	s.t.Cleanup(func() {
		if s.t.Failed() {
			b, _ := os.ReadFile(filepath.Join(s.dir, "log"))
			s.t.Logf("the gateway's log:\n%s", b)
		}
	})
}

// kill is SIGKILL.
func (s *house) kill() {
	if s.process != nil {
		_ = s.process.Process.Kill()
		_ = s.process.Wait()
		s.process = nil
	}
}

func (s *house) eventually(what string, ok func() bool) {
	s.t.Helper()
	for end := time.Now().Add(60 * time.Second); !ok(); {
		if time.Now().After(end) {
			s.t.Fatalf("never: %s", what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// arrived gives the $.mid or, for ordinary clients, the bodies of what the hub
// has of a device, in order of first arrival, and how many came more than once.
func (s *house) arrived(device string, key func(hubtest.Message) string) (order []string, repeats int) {
	seen := map[string]bool{}
	for _, m := range s.hub.Messages() {
		if m.Device != device {
			continue
		}
		if k := key(m); !seen[k] {
			seen[k] = true
			order = append(order, k)
		} else {
			repeats++
		}
	}
	return order, repeats
}

func body(m hubtest.Message) string { return string(m.Body) }

func messageID(m hubtest.Message) string { return m.Props["$.mid"] }

// node runs device.mjs and gives the numbers that were acknowledged to it.
func (s *house) node(device, gateway, transport string, count, interval int) (acked map[int]bool, wait func()) {
	s.t.Helper()
	key := s.hub.ConnectionString(device) + ";GatewayHostName=" + gateway
	cmd := exec.Command("node", "device.mjs", "--connection="+key, "--ca="+s.ca(), "--transport="+transport,
		fmt.Sprint("--count=", count), fmt.Sprint("--interval=", interval))
	cmd.Dir = nodeFolder
	cmd.Env = append(os.Environ(), "NODE_EXTRA_CA_CERTS="+s.ca())
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	acked = map[int]bool{}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			var l struct{ Acked *int }
			if json.Unmarshal(lines.Bytes(), &l) == nil && l.Acked != nil {
				acked[*l.Acked] = true
			}
		}
	}()
	return acked, func() {
		s.t.Helper()
		<-ended
		if err := cmd.Wait(); err != nil {
			s.t.Errorf("node device %s: %v\n%s", device, err, stderr.String())
		}
	}
}

// inOrder checks that a device's messages came to the hub in the order in which it
// published them to the gateway: that of holdfast-id, which begins with a word of
// the gateway's life and ends with a count, base 36. The SDK's own numbers do not
// tell: it retries each message by itself, with jitter, and may publish one that a
// lost connection has held up after its successor.
func (s *house) inOrder(device string) {
	s.t.Helper()
	ids, _ := s.arrived(device, func(m hubtest.Message) string { return m.Props["holdfast-id"] })
	lives, last := []string{}, uint64(0)
	for _, id := range ids {
		life, count, _ := strings.Cut(id, "-")
		n, err := strconv.ParseUint(count, 36, 64)
		if err != nil {
			s.t.Fatalf("%s: holdfast-id %q: %v", device, id, err)
		}
		if len(lives) == 0 || lives[len(lives)-1] != life {
			if slices.Contains(lives, life) {
				s.t.Errorf("%s: %s came after messages of a later life of the gateway", device, id)
			}
			lives, last = append(lives, life), 0
		}
		if n < last {
			s.t.Errorf("%s: %s came after number %s of the same life", device, id, strconv.FormatUint(last, 36))
		}
		last = n
	}
	if len(lives) != 2 {
		s.t.Errorf("%s: messages of %d lives of the gateway came, want 2", device, len(lives))
	}
}

// An unmodified device of Microsoft's SDK sends through an outage of the cloud and
// a death of the gateway in the middle of it.
func TestHouseNodeDeviceThroughAnOutage(t *testing.T) {
	s := newHouse(t, "d01", "d02")
	s.start()
	transports := map[string]string{"d01": "mqtt"}
	if s.https != "off" {
		transports["d02"] = "ws"
	}
	_, port, _ := net.SplitHostPort(s.mqttTLS)
	const count = 120
	waits, ackedBy := []func(){}, map[string]map[int]bool{}
	for d, transport := range transports {
		gateway := "localhost:" + port
		if transport == "ws" {
			gateway = "127.0.78.1"
		}
		acked, wait := s.node(d, gateway, transport, count, 100)
		ackedBy[d], waits = acked, append(waits, wait)
	}
	s.eventually("the first messages arrive", func() bool {
		for d := range transports {
			if got, _ := s.arrived(d, messageID); len(got) < 5 {
				return false
			}
		}
		return true
	})
	s.hub.Fault(hubtest.Faults{Down: true})
	before := s.hub.Count()
	time.Sleep(2 * time.Second)
	s.kill()
	s.start()
	time.Sleep(3 * time.Second)
	if n := s.hub.Count(); n > before+50 {
		t.Fatalf("%d messages reached a hub that is down", n-before)
	}
	s.hub.Fault(hubtest.Faults{})
	for _, wait := range waits {
		wait()
	}
	for d := range transports {
		s.eventually(d+": all that was acknowledged arrives", func() bool {
			got, _ := s.arrived(d, messageID)
			return len(got) >= len(ackedBy[d])
		})
		got, repeats := s.arrived(d, messageID)
		s.inOrder(d)
		have := map[string]bool{}
		for _, mid := range got {
			have[mid] = true
		}
		lost := 0
		for n := range ackedBy[d] {
			if !have[fmt.Sprintf("%s-%d", d, n)] {
				lost++
			}
		}
		t.Logf("%s over %s: acknowledged %d, arrived %d, lost %d, repeats %d", d, transports[d], len(ackedBy[d]), len(got), lost, repeats)
		if lost > 0 || len(ackedBy[d]) < count {
			t.Errorf("%s: acknowledged %d of %d, lost %d", d, len(ackedBy[d]), count, lost)
		}
	}
}

// mosquitto runs one of mosquitto's clients as the account pump.
func (s *house) mosquitto(program string, args ...string) *exec.Cmd {
	_, port, _ := net.SplitHostPort(s.mqtt)
	return exec.Command(program, append([]string{"-h", "127.0.0.1", "-p", port, "-u", "pump", "-P", "secret", "-q", "1"}, args...)...)
}

func TestHouseMosquittoThroughAnOutage(t *testing.T) {
	s := newHouse(t)
	s.start()
	var acked []string
	send := func(n int, version string) {
		t.Helper()
		text := fmt.Sprint("m", n)
		for try := 0; ; try++ { // an exit status of 0 is mosquitto_pub's word for a PUBACK
			out, err := s.mosquitto("mosquitto_pub", "-V", version, "-t", "plant/up/a", "-m", text).CombinedOutput()
			if err == nil {
				break
			}
			if try == 20 {
				t.Fatalf("mosquitto_pub: %v: %s", err, out)
			}
			time.Sleep(100 * time.Millisecond)
		}
		acked = append(acked, text)
	}
	subscriber := s.mosquitto("mosquitto_sub", "-t", "plant/#", "-C", "5", "-W", "20", "-v", "-i", "listener")
	var heard bytes.Buffer
	subscriber.Stdout = &heard
	if err := subscriber.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(500 * time.Millisecond) // mosquitto_sub does not say when it has subscribed
	s.hub.Fault(hubtest.Faults{Down: true})
	for n := range 5 {
		send(n, []string{"mqttv311", "mqttv5"}[n%2])
	}
	if err := subscriber.Wait(); err != nil || strings.Count(heard.String(), "plant/up/a m") != 5 {
		t.Errorf("a local subscriber heard, without the cloud (%v):\n%s", err, heard.String())
	}
	s.kill()
	s.start()
	for n := 5; n < 10; n++ {
		send(n, "mqttv311")
	}
	s.hub.Fault(hubtest.Faults{})
	s.eventually("everything arrives", func() bool { got, _ := s.arrived("gw", body); return len(got) == len(acked) })
	if got, _ := s.arrived("gw", body); fmt.Sprint(got) != fmt.Sprint(acked) {
		t.Errorf("arrived %v, acknowledged %v", got, acked)
	}
	for _, m := range s.hub.Messages() {
		if m.Props["holdfast-topic"] != "plant/up/a" || m.Props["holdfast-id"] == "" {
			t.Errorf("properties %v", m.Props)
		}
	}
}

// What is wrong with a credential or a topic is refused, and says so.
func TestHouseMosquittoIsRefused(t *testing.T) {
	s := newHouse(t)
	s.start()
	_, port, _ := net.SplitHostPort(s.mqtt)
	out, err := exec.Command("mosquitto_pub", "-h", "127.0.0.1", "-p", port, "-u", "pump", "-P", "wrong", "-q", "1", "-t", "plant/up/a", "-m", "x").CombinedOutput()
	if err == nil || !strings.Contains(strings.ToLower(string(out)), "not authori") {
		t.Errorf("wrong password: %v: %s", err, out)
	}
	out, err = s.mosquitto("mosquitto_pub", "-V", "mqttv5", "-t", "secret/a", "-m", "x").CombinedOutput()
	if !strings.Contains(strings.ToLower(string(out)), "not authori") {
		t.Errorf("foreign topic: %v: %s", err, out)
	}
	if n := s.hub.Count(); n != 0 {
		t.Errorf("%d messages arrived", n)
	}
}
