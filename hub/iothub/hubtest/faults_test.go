package hubtest

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"holdfast.dev/holdfast/hub/wire"
)

var leafTopic = wire.TelemetryTopic("leaf", "", "")

// acks reads n PUBACKs and gives their packet ids.
func (p *peer) acks(n int) (ids []uint16) {
	p.t.Helper()
	for range n {
		ids = append(ids, p.expect(packets.Puback).PacketID)
	}
	return ids
}

// speak publishes ids from..to at QoS 1.
func (p *peer) speak(from, to uint16) {
	p.t.Helper()
	for id := from; id <= to; id++ {
		p.publish(leafTopic, 1, id, "x")
	}
}

func TestFaultDown(t *testing.T) {
	h := household(t)
	p, ws := online(t, h, "leaf"), dialWebSocket(t, h)
	if code := ws.enter(h.hello("plain")); code != accepted {
		t.Fatal(code)
	}
	mqtt, https := h.MQTTAddr(), h.HTTPSAddr()
	for range 3 {
		h.Fault(Faults{Down: true})
		p.expectEnd()
		ws.expectEnd()
		for _, addr := range []string{mqtt, https} {
			if c, err := net.Dial("tcp", addr); err == nil {
				c.Close()
				t.Errorf("%s takes connections while down", addr)
			}
		}
		h.Fault(Faults{})
		p, ws = online(t, h, "leaf"), dialWebSocket(t, h)
		if code := ws.enter(h.hello("plain")); code != accepted {
			t.Fatal(code)
		}
	}
	if h.MQTTAddr() != mqtt || h.HTTPSAddr() != https {
		t.Errorf("addresses %s, %s, before %s, %s", h.MQTTAddr(), h.HTTPSAddr(), mqtt, https)
	}
}

func TestFaultHang(t *testing.T) {
	h := household(t)
	p := online(t, h, "leaf")
	h.Fault(Faults{Hang: true})
	p.speak(1, 3)
	raw, err := net.Dial("tcp", h.MQTTAddr())
	if err != nil {
		t.Fatalf("hub that hangs must take connections: %v", err)
	}
	defer raw.Close()
	raw.SetDeadline(time.Now().Add(quiet))
	raw.Write([]byte{0x16, 0x03, 0x01, 0, 1, 0}) // the beginning of a handshake
	if _, err := raw.Read(make([]byte, 1)); !timedOut(err) {
		t.Errorf("read from a hub that hangs: %v, want silence", err)
	}
	raw.SetDeadline(time.Time{})
	if h.Count() != 0 {
		t.Errorf("kept %d messages while hanging", h.Count())
	}
	h.Fault(Faults{})
	if got := p.acks(3); !slices.Equal(got, []uint16{1, 2, 3}) {
		t.Errorf("acks %v", got)
	}
}

// TestRunEndsWhileHanging: a test that fails during a hang must still end.
func TestRunEndsWhileHanging(t *testing.T) {
	h, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	stop := run(t, h)
	h.Put(Device{ID: "leaf"})
	p := online(t, h, "leaf")
	h.Fault(Faults{Hang: true})
	p.speak(1, 3)
	stop()
}

func TestFaultConnack(t *testing.T) {
	h := household(t)
	p := online(t, h, "leaf")
	h.Fault(Faults{Connack: map[string]byte{"*": 3, "plain": 5}})
	p.speak(1, 1)
	p.acks(1) // open connections stay
	if code := dial(t, h).enter(h.hello("leaf")); code != serverUnavailable {
		t.Errorf("code %d, want 3", code)
	}
	if code := dial(t, h).enter(h.hello("plain")); code != notAuthorized {
		t.Errorf("code %d, want 5", code)
	}
}

func TestFaultRefuse(t *testing.T) {
	h := household(t)
	h.Fault(Faults{Refuse: []string{"leaf"}})
	p, other := online(t, h, "leaf"), online(t, h, "plain")
	p.speak(1, 1)
	p.expectEnd()
	other.publish(wire.TelemetryTopic("plain", "", ""), 1, 1, "x")
	other.acks(1)
	if h.Count() != 1 {
		t.Errorf("kept %d messages, want 1", h.Count())
	}
}

func TestFaultCloseAfter(t *testing.T) {
	h := household(t)
	h.Fault(Faults{CloseAfter: 3})
	for i := range 2 {
		p := online(t, h, "leaf")
		p.speak(1, 3)
		p.acks(3)
		p.speak(4, 4)
		p.expectEnd()
		if want := 3 * (i + 1); h.Count() != want {
			t.Errorf("kept %d messages, want %d", h.Count(), want)
		}
	}
}

func TestFaultsOfAcknowledgement(t *testing.T) {
	for _, c := range []struct {
		name   string
		faults Faults
		want   []uint16 // acknowledged, of messages 1 to 6
		kept   int
	}{
		{"none", Faults{}, []uint16{1, 2, 3, 4, 5, 6}, 6},
		{"drop", Faults{PubackDrop: 3}, []uint16{1, 2, 4, 5}, 6},
		{"drop all", Faults{PubackDrop: 1}, nil, 6},
		{"repeat", Faults{PubackRepeat: true}, []uint16{1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6}, 6},
		{"reorder", Faults{PubackReorder: 4}, []uint16{4, 3, 2, 1, 5, 6}, 6},
		{"reuse", Faults{PubackReuse: true}, []uint16{1, 1, 1, 1, 1, 1, 2, 3, 4, 5, 6}, 6},
		{"lie", Faults{Lie: 3}, []uint16{1, 2, 3, 4, 5, 6}, 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := household(t)
			h.Fault(c.faults)
			p := online(t, h, "leaf")
			p.speak(1, 6)
			if got := p.acks(len(c.want)); !slices.Equal(got, c.want) {
				t.Errorf("acks %v, want %v", got, c.want)
			}
			p.expectSilence()
			if h.Count() != c.kept {
				t.Errorf("kept %d messages, want %d", h.Count(), c.kept)
			}
		})
	}
}

func TestFaultDelayAndThrottle(t *testing.T) {
	for _, c := range []struct {
		name     string
		faults   Faults
		min, max time.Duration // until six are acknowledged
	}{
		{"delay", Faults{PubackDelay: 300 * time.Millisecond}, 300 * time.Millisecond, 3 * time.Second},
		{"throttle", Faults{Throttle: 10}, 450 * time.Millisecond, 3 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := household(t)
			h.Fault(c.faults)
			p := online(t, h, "leaf")
			begin := time.Now()
			p.speak(1, 6)
			if got := p.acks(6); !slices.Equal(got, []uint16{1, 2, 3, 4, 5, 6}) {
				t.Errorf("acks %v", got)
			}
			if d := time.Since(begin); d < c.min || d > c.max {
				t.Errorf("acknowledged after %s, want %s to %s", d, c.min, c.max)
			}
		})
	}
}

// TestPingWhileAcksAreLate: a throttled client must not take the hub for dead.
func TestPingWhileAcksAreLate(t *testing.T) {
	h := household(t)
	h.Fault(Faults{PubackDelay: time.Hour})
	p := online(t, h, "leaf")
	p.speak(1, 200)
	ping := &packets.Packet{}
	ping.FixedHeader.Type = packets.Pingreq
	p.send(ping)
	p.expect(packets.Pingresp)
}

func TestFaultsAsJSON(t *testing.T) {
	f := Faults{Down: true, Connack: map[string]byte{"*": 3}, PubackDelay: 1500 * time.Millisecond, Throttle: 2.5, Lie: 7}
	text, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"down":true,"connack":{"*":3},"throttle":2.5,"lie":7,"puback_delay":"1.5s"}`; string(text) != want {
		t.Errorf("JSON %s, want %s", text, want)
	}
	var back Faults
	if err := json.Unmarshal(text, &back); err != nil || !reflect.DeepEqual(back, f) {
		t.Errorf("read back %+v, %v", back, err)
	}
	for _, bad := range []string{`{"dwon":true}`, `{"puback_delay":"2"}`, `{"puback_delay":2}`, `[]`} {
		if err := json.Unmarshal([]byte(bad), &back); err == nil {
			t.Errorf("%s is taken", bad)
		}
	}
}

func TestListenTwice(t *testing.T) {
	h := start(t, Config{})
	for name, cfg := range map[string]Config{
		"MQTT": {MQTT: h.MQTTAddr()}, "HTTPS": {HTTPS: h.HTTPSAddr()}, "control": {Control: h.MQTTAddr()},
	} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: port in use is taken", name)
		}
	}
}

func TestRegistryStatus(t *testing.T) {
	h := household(t)
	h.Fault(Faults{RegistryStatus: 503})
	res := h.call(t, "POST", "/devices/gw/modules/$edgeHub/devicesAndModulesInTargetDeviceScope", h.edgeToken("gw"), "", `{"authChain":"gw"}`)
	if res.status != 503 {
		t.Errorf("status %d, want 503", res.status)
	}
	if res := h.call(t, "GET", "/devices/leaf", h.policyToken(), "", ""); res.status != 200 {
		t.Errorf("registry: status %d, want 200", res.status)
	}
}

// result is the answer to a REST call.
type result struct {
	status int
	header http.Header
	body   string
}

func (r result) json(t *testing.T, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(r.body), into); err != nil {
		t.Fatalf("body %q: %v", r.body, err)
	}
}

func (h *Hub) policyToken() string {
	return wire.NewPolicySAS(h.cfg.Host, h.cfg.Policy, h.cfg.PolicyKey, time.Now().Add(time.Hour))
}

func (h *Hub) edgeToken(gateway string) string {
	d, _ := h.registry.get(gateway + "/" + hubModule)
	return wire.NewSAS(h.cfg.Host, gateway, hubModule, d.Primary, time.Now().Add(time.Hour))
}

// call makes a REST call over HTTPS.
func (h *Hub) call(t *testing.T, method, path, token, ifMatch, body string) result {
	t.Helper()
	var r io.Reader
	if body != "" {
		r = strings.NewReader(body)
	}
	req, err := http.NewRequest(method, "https://"+h.HTTPSAddr()+path, r)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", token)
	if ifMatch != "" {
		req.Header.Set("If-Match", ifMatch)
	}
	client := &http.Client{Timeout: patience, Transport: &http.Transport{TLSClientConfig: h.clientTLS(), DisableKeepAlives: true}}
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return result{res.StatusCode, res.Header, string(text)}
}
