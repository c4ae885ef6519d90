package main

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// syncBuffer is a buffer for one who writes and one who reads.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// begin runs hubsim until stop is called, which gives its exit status.
func begin(t *testing.T, args ...string) (out *syncBuffer, stop func() int) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	out = &syncBuffer{}
	args = append([]string{"--mqtt", "127.0.0.1:0", "--https", "127.0.0.1:0", "--control", "127.0.0.1:0"}, args...)
	status := make(chan int, 1)
	go func() { status <- execute(ctx, args, out, out) }()
	t.Cleanup(cancel)
	for deadline := time.Now().Add(10 * time.Second); !strings.Contains(out.String(), "CONNECTION STRING"); {
		if time.Now().After(deadline) {
			t.Fatalf("has not started: %s", out)
		}
		<-time.After(5 * time.Millisecond)
	}
	return out, func() int { cancel(); return <-status }
}

func control(t *testing.T, out *syncBuffer) string {
	t.Helper()
	_, rest, ok := strings.Cut(out.String(), "http://")
	addr, _, ok2 := strings.Cut(rest, "/sim/state")
	if !ok || !ok2 {
		t.Fatalf("no control address in: %s", out)
	}
	return "http://" + addr
}

func TestRunsAndEnds(t *testing.T) {
	ca := filepath.Join(t.TempDir(), "ca.pem")
	out, stop := begin(t, "--ca-out", ca, "--host", "plant.local", "--policy-key", "c2VjcmV0",
		"--device", "gw,edge", "--device", "sensor,parent=gw,key=cGFzc3dvcmQ=", "--device", "gw/mod")
	for _, want := range []string{
		"HostName=plant.local;SharedAccessKeyName=iothubowner;SharedAccessKey=c2VjcmV0",
		"HostName=plant.local;DeviceId=sensor;SharedAccessKey=cGFzc3dvcmQ=",
		"HostName=plant.local;DeviceId=gw;ModuleId=$edgeHub;SharedAccessKey=",
		"HostName=plant.local;DeviceId=gw;ModuleId=mod;SharedAccessKey=",
		"gw (gateway)",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("output lacks %q:\n%s", want, out)
		}
	}
	text, err := os.ReadFile(ca)
	if err != nil || !strings.HasPrefix(string(text), "-----BEGIN CERTIFICATE-----") {
		t.Errorf("CA file: %q, %v", text, err)
	}
	res, err := http.Get(control(t, out) + "/sim/state")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var state struct {
		Devices int
		Host    string
	}
	if err := json.NewDecoder(res.Body).Decode(&state); err != nil || state.Devices != 2 || state.Host != "plant.local" {
		t.Errorf("state %+v, %v", state, err)
	}
	if status := stop(); status != 0 {
		t.Errorf("exit status %d, want 0: %s", status, out)
	}
}

func TestStateSurvivesARestart(t *testing.T) {
	dir := t.TempDir()
	state := filepath.Join(dir, "state.json")
	once := func(args ...string) string {
		ca := filepath.Join(dir, "ca.pem")
		out, stop := begin(t, append(args, "--state", state, "--ca-out", ca)...)
		table := out.String()[strings.Index(out.String(), "service"):]
		if status := stop(); status != 0 {
			t.Fatalf("exit status %d: %s", status, out)
		}
		text, err := os.ReadFile(ca)
		if err != nil {
			t.Fatal(err)
		}
		return table + string(text)
	}
	first := once("--device", "gw,edge", "--device", "sensor,parent=gw")
	if second := once(); second != first {
		t.Errorf("after a restart:\n%s\nbefore:\n%s", second, first)
	}
	if info, err := os.Stat(state); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("state file: %v, %v, want mode 0600: it holds keys", info.Mode(), err)
	}
}

func TestErrors(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	dir := t.TempDir()
	half, other := filepath.Join(dir, "half.json"), filepath.Join(dir, "other.json")
	for name, text := range map[string]string{half: `{"version":1,"dev`, other: `{"version":2}`} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		args   []string
		status int
		want   []string
	}{
		{[]string{"--mqtt", taken.Addr().String()}, 1, []string{"listen for MQTT", "address already in use", "hint: another program"}},
		{[]string{"--frobnicate"}, 2, []string{"unknown flag: --frobnicate", "--help"}},
		{[]string{"extra"}, 2, []string{`argument "extra"`}},
		{[]string{"--cert", "missing.pem"}, 2, []string{"--cert and --cert-key belong together"}},
		{[]string{"--cert", "missing.pem", "--cert-key", "missing.pem"}, 1, []string{"read server certificate missing.pem", "no such file"}},
		{[]string{"--policy-key", "no!"}, 2, []string{"--policy-key: key is not base64"}},
		{[]string{"--device", "a b"}, 2, []string{"--device a b", "is not allowed"}},
		{[]string{"--device", "a,colour=red"}, 2, []string{`"colour" is not known`}},
		{[]string{"--device", "a,key=!!!"}, 2, []string{"key is not base64", "key=…"}},
		{[]string{"--device", "a/b,edge"}, 2, []string{"a module has no parent"}},
		{[]string{"--device", "a,parent=gw"}, 2, []string{"parent gw is not a gateway", "--device gw,edge"}},
		{[]string{"--state", half}, 1, []string{"read state " + half, "move it away"}},
		{[]string{"--state", other}, 1, []string{"version is 2, want 1"}},
		{[]string{"--received", filepath.Join(dir, "no", "file")}, 1, []string{"open received messages", "no such file"}},
		{[]string{"--ca-out", filepath.Join(dir, "no", "file")}, 1, []string{"no such file"}},
	} {
		var out bytes.Buffer
		args := append([]string{"--mqtt", "127.0.0.1:0", "--https", "127.0.0.1:0", "--control", "off"}, c.args...)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		status := execute(ctx, args, &out, &out)
		cancel()
		if status != c.status {
			t.Errorf("%q: exit status %d, want %d: %s", c.args, status, c.status, &out)
		}
		for _, want := range c.want {
			if !strings.Contains(out.String(), want) {
				t.Errorf("%q: output lacks %q: %s", c.args, want, &out)
			}
		}
		if strings.Contains(out.String(), "!!!") {
			t.Errorf("%q: output shows the key", c.args)
		}
	}
	if text, err := os.ReadFile(half); err != nil || string(text) != `{"version":1,"dev` {
		t.Errorf("damaged state file was touched: %q, %v", text, err)
	}
}
