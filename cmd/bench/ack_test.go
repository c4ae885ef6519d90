package main

import (
	"bytes"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestAck measures the fake gateway, which says that it flushes once for ten
// messages.
func TestAck(t *testing.T) {
	a := ackRun{window: 20, payload: 100, length: time.Second, dir: filepath.Join(t.TempDir(), "work"), bin: fakeBin(t)}
	var out bytes.Buffer
	if err := a.run(t.Context(), &out); err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`gateway, 20 under way +(\d+) +(\d+) +([\d.]+)`).FindStringSubmatch(out.String())
	if m == nil {
		t.Fatalf("no figures of the gateway in:\n%s", &out)
	}
	if per, err := strconv.ParseFloat(m[3], 64); err != nil || per < 7 || per > 13 {
		t.Errorf("%s messages per flush, want 10", m[3])
	}
	for _, want := range []string{"flushed for each message", "flushed for each 20", "R = "} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in:\n%s", want, &out)
		}
	}
}

func TestAckTable(t *testing.T) {
	got := ackTable([]pace{{"gateway", 2000, 200, 2}, {"single", 50, 50, 1}, {"group", 2000, 100, 1}})
	for _, want := range []string{"gateway        1000        100                10.0", "group        2000        100                20.0", "= 0.50"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in:\n%s", want, got)
		}
	}
}

func TestAckConnectionString(t *testing.T) {
	for _, bad := range []string{"", "HostName=h;DeviceId=d", "HostName=h;SharedAccessKey=YQ==", "HostName=h;DeviceId=d;SharedAccessKey=!"} {
		if _, _, err := ackDevice(bad, "", 1, 1); err == nil {
			t.Errorf("%q was taken for a connection string", bad)
		}
	}
	d, _, err := ackDevice("HostName=h;DeviceId=d;SharedAccessKey=YQ==", "127.0.0.1:1", 1, 1)
	if err != nil {
		t.Fatal(err)
	}
	if l := d.login(); l.clientID != "d" || !strings.HasPrefix(l.user, "h/d/?api-version=") || !strings.HasPrefix(l.secret, "SharedAccessSignature sr=h%2Fdevices%2Fd&") {
		t.Errorf("login is %s, %s", l.clientID, l.user)
	}
}
