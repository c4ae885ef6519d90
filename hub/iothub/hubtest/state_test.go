package hubtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/mochi-mqtt/server/v2/packets"
)

func TestStateSurvives(t *testing.T) {
	cfg := Config{State: filepath.Join(t.TempDir(), "state.json")}
	h, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	stop := run(t, h)
	h.Put(Device{ID: "gw", Edge: true})
	h.Put(Device{ID: "leaf", Parent: "gw", Disabled: true})
	h.Put(Device{ID: "gone"})
	h.Remove("gone")
	if _, err := h.Desire("leaf", []byte(`{"big":9007199254740993}`)); err != nil {
		t.Fatal(err)
	}
	devices, ca, twin := h.Devices(), h.CAPEM(), h.twinView("leaf")
	stop()

	h, err = New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	run(t, h)
	if got := h.Devices(); !reflect.DeepEqual(got, devices) {
		t.Errorf("devices %+v, before %+v", got, devices)
	}
	if !bytes.Equal(h.CAPEM(), ca) {
		t.Error("another CA: clients would have to be told")
	}
	before, _ := json.Marshal(twin)
	if got, _ := json.Marshal(h.twinView("leaf")); !bytes.Equal(got, before) {
		t.Errorf("twin %s, before %s", got, before)
	}
	online(t, h, "gw/$edgeHub") // over TLS with the CA that was kept
}

// failing is a writer that cannot.
type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, errors.New("disk is full") }

// TestRunFailsWhenReceivedCannotBeWritten: a record with holes must not look whole.
func TestRunFailsWhenReceivedCannotBeWritten(t *testing.T) {
	h, err := New(Config{Received: failing{}})
	if err != nil {
		t.Fatal(err)
	}
	h.Put(Device{ID: "leaf"})
	done := make(chan error, 1)
	go func() { done <- h.Run(t.Context()) }()
	p := online(t, h, "leaf")
	p.publish(leafTopic, 1, 1, "x")
	p.expect(packets.Puback)
	if err := <-done; err == nil || !strings.Contains(err.Error(), "write received messages: disk is full") {
		t.Errorf("Run: %v", err)
	}
}

func TestMessagesByNumber(t *testing.T) {
	l := newMessages(nil)
	from := &sender{device: "d"}
	const n = 2*chunkLen + 5
	waiting := l.wait()
	for i := range n {
		l.add(record{from: from, body: []byte{byte(i)}})
	}
	select {
	case <-waiting:
	default:
		t.Error("who waits was not told")
	}
	for _, after := range []int{0, 1, chunkLen - 1, chunkLen, chunkLen + 1, n - 1, n, n + 7} {
		got := l.after(after, 3)
		if want := max(0, min(3, n-after)); len(got) != want {
			t.Fatalf("after %d: %d messages, want %d", after, len(got), want)
		}
		for i, m := range got {
			if m.N != after+i+1 || m.Body[0] != byte(after+i) {
				t.Errorf("after %d: message %d is %d with body %d", after, i, m.N, m.Body[0])
			}
		}
	}
}
