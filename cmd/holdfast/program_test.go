package main

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"holdfast.dev/holdfast/hub/identity"
	"holdfast.dev/holdfast/hub/web"
)

// execute runs the program in this process.
func execute(ctx context.Context, stdin string, args ...string) (status int, stdout, stderr string) {
	var out, err lines
	p := Program{Args: args, Env: func(string) string { return "" }, Stdin: strings.NewReader(stdin), Stdout: &out, Stderr: &err}
	status = p.Execute(ctx)
	return status, out.String(), err.String()
}

func TestPasswdHashes(t *testing.T) {
	status, out, _ := execute(t.Context(), "open sesame\r\nmore\n", "passwd")
	if hash := strings.TrimSpace(out); status != exitOK || !identity.Check(hash, []byte("open sesame")) {
		t.Errorf("passwd: status %d, %q is not of the password", status, hash)
	}
	if status, _, errs := execute(t.Context(), strings.Repeat("x", maxPassword+1), "passwd"); status != exitFault || !strings.Contains(errs, "longer than") {
		t.Errorf("passwd with a long password: status %d, %q", status, errs)
	}
}

func serveStatus(t *testing.T, h http.Handler) (address string) {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

func TestStatusScreen(t *testing.T) {
	s := web.Status{
		Version: "v1", Uptime: 3700,
		Link:   web.Link{Configured: true, Since: time.Unix(0, 0), LastError: "no route\x1b[2J"},
		Totals: web.Counts{Accepted: 12345, Delivered: 12000, Expired: 5, Pending: 340},
		Queues: []web.Queue{{Name: "iothub", Pending: 340, Bytes: 2048, Oldest: 61}},
		Ledger: []web.Row{{Sender: "pump-1", Queue: "iothub", Counts: web.Counts{Accepted: 12345}}},
		Health: []web.Check{{Name: "link", Reason: "down", Hint: "look at the cable"}},
	}
	status, out, errs := execute(t.Context(), "", "status", "--address", serveStatus(t, web.New(func() web.Status { return s })))
	if status != exitOK || errs != "" {
		t.Fatalf("status: %d, %s", status, errs)
	}
	for _, want := range []string{"NOT WELL  link: down", "look at the cable", "v1, up 1 h 1 min", "DOWN since", "12 345 accepted", "5 (expired 5", "1 min 1 s", "2.0 KiB", "pump-1"} {
		if !strings.Contains(out, want) {
			t.Errorf("screen lacks %q:\n%s", want, out)
		}
	}
	if strings.Contains(out, "\x1b") {
		t.Error("screen passes on what moves the cursor")
	}
}

func TestStatusOfStrangers(t *testing.T) {
	tests := map[string]http.HandlerFunc{
		"not found": http.NotFound,
		"not JSON":  func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") },
	}
	for name, h := range tests {
		status, _, errs := execute(t.Context(), "", "status", "--address", serveStatus(t, h))
		if status != exitFault || !strings.Contains(errs, "hint: is that a holdfast gateway?") {
			t.Errorf("%s: %d, %s", name, status, errs)
		}
	}
	if status, _, errs := execute(t.Context(), "", "status", "--address", "%zz"); status != exitUsage {
		t.Errorf("bad address: %d, %s", status, errs)
	}
}

// A gateway that is stopped as soon as it runs has set up and taken down everything.
func TestRunInProcess(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cfg := Config{Data: t.TempDir(), Status: StatusConfig{Listen: "127.0.0.1:0"}}
	cfg.MQTT.Listen, cfg.MQTT.TLSListen, cfg.HTTPS.Listen = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"
	out, last := new(lines), new(ring)
	p := Program{Stderr: out, Stdout: io.Discard, Stdin: new(bytes.Reader)}
	cancel()
	if err := p.run(ctx, cfg, newLog(LogConfig{}, out, last), last); err != nil {
		t.Errorf("run: %v\n%s", err, out)
	}
	if log := strings.Join(last.last(50), "\n"); !strings.Contains(log, "msg=starting") || !strings.HasSuffix(log, "msg=stopped") {
		t.Errorf("log:\n%s", log)
	}
}

func TestPrintable(t *testing.T) {
	if got, want := printable("a\x1b[2J\tb\nc\u009bd\x7fé"), "a?[2J\tb\nc?d?é"; got != want {
		t.Errorf("printable: %q, want %q", got, want)
	}
}
