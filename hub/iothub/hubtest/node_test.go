//go:build house

package hubtest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// nodeDir holds Microsoft's Node SDKs and the programs that use them.
const nodeDir = "../../../testdata/node"

// node runs one of the programs to its end and gives its output.
func node(t *testing.T, ca string, program string, args ...string) (stdout string, err error) {
	t.Helper()
	if _, err := os.Stat(filepath.Join(nodeDir, "node_modules")); err != nil {
		t.Fatalf("Microsoft's Node SDK is not there (%v): run make test, or npm ci in testdata/node", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "node", append([]string{program}, args...)...)
	cmd.Dir = nodeDir
	cmd.Env = append(os.Environ(), "NODE_EXTRA_CA_CERTS="+ca, "NODE_NO_WARNINGS=1")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	if errs.Len() > 0 {
		t.Logf("%s:\n%s", program, &errs)
	}
	return out.String(), err
}

// writeCA writes the hub's CA where node reads it.
func writeCA(t *testing.T, h *Hub) string {
	t.Helper()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, h.CAPEM(), 0o644); err != nil {
		t.Fatal(err)
	}
	return ca
}

// TestHouseNodeDirect is Microsoft's device and service SDKs against the hub, with
// nothing between.
func TestHouseNodeDirect(t *testing.T) {
	for transport, cfg := range map[string]Config{
		"mqtt": {Host: "localhost"},
		"ws":   {Host: "127.0.77.1", HTTPS: "127.0.77.1:443"}, // the SDK's WebSocket knows no other port
	} {
		t.Run(transport, func(t *testing.T) {
			cfg.Control = "127.0.0.1:0"
			h, err := New(cfg)
			if err != nil && transport == "ws" {
				t.Skipf("WebSocket needs port 443 of 127.0.77.1: %v", err)
			}
			if err != nil {
				t.Fatal(err)
			}
			run(t, h)
			h.Put(Device{ID: "d1"})
			connection := h.ConnectionString("d1")
			if transport == "mqtt" {
				connection += ";GatewayHostName=localhost:" + port(t, h.MQTTAddr())
			}
			ca := writeCA(t, h)
			out, err := node(t, ca, "direct.mjs", connection, h.PolicyConnectionString(),
				port(t, h.HTTPSAddr()), "http://"+h.ControlAddr(), ca, transport)
			if err != nil {
				t.Fatalf("direct.mjs: %v\n%s", err, out)
			}
			if n := strings.Count(out, "ok "); n != 10 {
				t.Errorf("%d steps, want 10:\n%s", n, out)
			}
		})
	}
}

// TestHouseNodeThroughFaults is the device that end-to-end tests use, through
// drops, a time of being down and late acknowledgements: what it believes to be
// acknowledged has arrived.
func TestHouseNodeThroughFaults(t *testing.T) {
	h := start(t, Config{})
	h.Put(Device{ID: "d1"})
	ca := writeCA(t, h)
	h.Fault(Faults{Down: true}) // the device must wait for the hub
	go func() {
		for _, f := range []Faults{{Down: true}, {}, {Connack: map[string]byte{"*": 3}}, {PubackDelay: 100 * time.Millisecond}, {}} {
			h.Fault(f)
			if len(f.Connack) > 0 {
				h.Drop()
			}
			select {
			case <-time.After(2 * time.Second):
			case <-t.Context().Done():
				return
			}
		}
	}()
	const count = 300
	out, err := node(t, ca, "device.mjs", "--connection="+h.ConnectionString("d1")+";GatewayHostName=localhost:"+port(t, h.MQTTAddr()),
		"--ca="+ca, fmt.Sprintf("--count=%d", count), "--interval=20")
	if err != nil {
		t.Fatalf("device.mjs: %v\n%s", err, out)
	}
	arrived := map[string]bool{}
	for _, m := range h.Messages() {
		arrived[m.Props["$.mid"]] = true
	}
	acked := 0
	for line := range strings.Lines(out) {
		var l struct{ Acked *int }
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatalf("line %q: %v", line, err)
		}
		if l.Acked == nil {
			continue
		}
		acked++
		if id := fmt.Sprintf("d1-%d", *l.Acked); !arrived[id] {
			t.Errorf("message %s was acknowledged and has not arrived", id)
		}
	}
	if acked != count || h.Connects("d1") < 2 {
		t.Errorf("%d acknowledged, want %d; %d connections, want 2 or more", acked, count, h.Connects("d1"))
	}
	t.Logf("%d acknowledged, %d arrived, %d connections", acked, h.Count(), h.Connects("d1"))
}

func port(t *testing.T, addr string) string {
	t.Helper()
	_, p, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	return p
}
