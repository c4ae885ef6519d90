package iothub

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"holdfast.dev/holdfast/hub"
	"holdfast.dev/holdfast/hub/wire"
)

const goodConnection = "HostName=h.azure-devices.net;DeviceId=gw;ModuleId=$edgeHub;SharedAccessKey=c2VjcmV0"

func TestSettings(t *testing.T) {
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty.pem")
	if err := os.WriteFile(empty, []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	conn := func(s string) Config { return Config{Connection: s} }
	with := func(change func(*Config)) Config {
		c := conn(goodConnection)
		change(&c)
		return c
	}
	tests := []struct {
		name string
		cfg  Config
		want string // part of the error; "" for none
	}{
		{"good", conn(goodConnection), ""},
		{"semicolon at the end", conn(goodConnection + ";"), ""},
		{"nothing", conn(""), "[iothub] connection: HostName is missing"},
		{"prose", conn("my hub c2VjcmV0"), "[iothub] connection: want HostName="},
		{"device's string", conn("HostName=h;DeviceId=gw;SharedAccessKey=c2VjcmV0"), "ModuleId is missing"},
		{"another module", conn("HostName=h;DeviceId=gw;ModuleId=m;SharedAccessKey=c2VjcmV0"), `ModuleId is "m"`},
		{"service policy", conn("HostName=h;SharedAccessKeyName=iothubowner;SharedAccessKey=c2VjcmV0"), "service policy"},
		{"port in the name", conn(strings.Replace(goodConnection, "net;", "net:8883;", 1)), "bare host name"},
		{"bad device", conn(strings.Replace(goodConnection, "gw", "g/w", 1)), "DeviceId"},
		{"bad key", conn(strings.Replace(goodConnection, "c2VjcmV0", "c2VjcmV0!", 1)), "SharedAccessKey"},
		{"no key", conn("HostName=h;DeviceId=gw;ModuleId=$edgeHub"), "SharedAccessKey"},
		{"address", with(func(c *Config) { c.Address = "host" }), "[iothub] address:"},
		{"https", with(func(c *Config) { c.HTTPS = "host" }), "[iothub] https:"},
		{"transport", with(func(c *Config) { c.Transport = "amqp" }), "[iothub] transport:"},
		{"proxy", with(func(c *Config) { c.Proxy = "http://u:c2VjcmV0@p:3128" }), ""},
		{"proxy scheme", with(func(c *Config) { c.Proxy = "https://u:c2VjcmV0@p:3128" }), "[iothub] proxy: want"},
		{"proxy port", with(func(c *Config) { c.Proxy = "http://u:c2VjcmV0@p" }), "[iothub] proxy: want"},
		{"proxy garbage", with(func(c *Config) { c.Proxy = "http://u:c2VjcmV0@p:x\x00" }), "[iothub] proxy: want"},
		{"no ca", with(func(c *Config) { c.CA = filepath.Join(dir, "none.pem") }), "[iothub] ca:"},
		{"ca is not PEM", with(func(c *Config) { c.CA = empty }), "no certificate in PEM form"},
		{"window", with(func(c *Config) { c.Window = -1 }), "[iothub] window:"},
		{"window_total", with(func(c *Config) { c.WindowTotal = 1 << 20 }), "[iothub] window_total:"},
		{"window_bytes", with(func(c *Config) { c.WindowBytes = 1000 }), "[iothub] window_bytes:"},
		{"rate", with(func(c *Config) { c.Rate = -1 }), "[iothub] rate"},
	}
	for _, tt := range tests {
		_, err := New(tt.cfg, Deps{})
		switch {
		case tt.want == "" && err != nil:
			t.Errorf("%s: %v, want nil", tt.name, err)
		case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
			t.Errorf("%s: %v, want %q in it", tt.name, err, tt.want)
		case err != nil && strings.Contains(err.Error(), "c2VjcmV0"):
			t.Errorf("%s: error holds the secret: %v", tt.name, err)
		}
	}
}

func TestDefaults(t *testing.T) {
	for transport, want := range map[string]string{"": "h.azure-devices.net:8883", "mqtt": "h.azure-devices.net:8883", "websocket": "h.azure-devices.net:443"} {
		s, err := newSettings(Config{Connection: goodConnection, Transport: transport}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if s.mqtt != want || s.https != "h.azure-devices.net:443" {
			t.Errorf("transport %q: dials %s and %s, want %s", transport, s.mqtt, s.https, want)
		}
	}
}

// TestHealing: whatever falls silent is found out and tried again within 60 s by
// the default timings: the numbers of newTimings, and those of the library, which
// looks every 5 s.
func TestHealing(t *testing.T) {
	w := newTimings(30 * time.Second)
	const look = 5 * time.Second
	if d := w.keepAlive + look + w.grace + w.grace/10 + time.Second; d > 35*time.Second || w.ping < w.grace {
		t.Errorf("idle connection: %v, the library's patience %v", d, w.ping)
	}
	if d := w.ask + w.grace + w.grace/5; d > 12*time.Second {
		t.Errorf("connection with something open that goes silent: %v", d)
	}
	if d := w.ack + w.ack/20 + 2*time.Second; d > 60*time.Second {
		t.Errorf("connection with something open: %v", d)
	}
	if w.connect > 20*time.Second || w.grace > 10*time.Second {
		t.Errorf("connect %v, grace %v; want at most 20 s, 10 s", w.connect, w.grace)
	}
	if w.renew*5/4+w.ack > tokenLife-5*time.Minute {
		t.Errorf("renewed after up to %v, too near the end of the token", w.renew*5/4)
	}
}

func TestPacketTooLarge(t *testing.T) {
	u := newUpstream(t, Config{Connection: goodConnection})
	for name, m := range map[string]hub.Message{
		"body":       {ID: "1", From: "d", Body: make([]byte, 256<<10+1)},
		"with ours":  {ID: "1", From: "d", Body: make([]byte, 256<<10)},
		"properties": {ID: "1", From: "d", Props: wire.Bag("a=" + strings.Repeat("x", 70000))},
		"no sender":  {ID: "1"},
		"sender":     {ID: "1", From: "a/b/c"},
		"not UTF-8":  {ID: "1", From: "d", Props: "a=\xff"},
	} {
		if _, err := encode(&m, u.deps.Clock); err == nil {
			t.Errorf("%s: nil, want %v", name, hub.ErrBad)
		}
	}
	topic, err := encode(&hub.Message{ID: "1", From: "d", Props: "a=+#"}, u.deps.Clock)
	if err != nil || strings.ContainsAny(topic, "+#") {
		t.Errorf("bare wildcards: %q, %v; want them escaped", topic, err)
	}
}
