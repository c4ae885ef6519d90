package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"holdfast.dev/holdfast/hub"
	"holdfast.dev/holdfast/hub/iothub/hubtest"
	"holdfast.dev/holdfast/storage"
)

// fillStore makes the data folder of a gateway that has messages for the cloud.
// park may park some of them.
func fillStore(data string, park func(*storage.Queue), ms ...hub.Message) error {
	db, err := storage.Open(filepath.Join(data, "queue"), storage.Options{})
	if err != nil {
		return err
	}
	core := hub.NewCore(db, storage.SystemClock(), func(*hub.Message) []hub.Dest {
		return []hub.Dest{{Queue: toCloud, Priority: 5}}
	})
	var wg sync.WaitGroup
	var errs []error // by the store's one goroutine
	for _, m := range ms {
		wg.Add(1)
		core.Publish(context.Background(), m, func(err error) {
			errs = append(errs, err)
			wg.Done()
		})
	}
	wg.Wait()
	if park != nil {
		park(db.Queue(hub.Lane(toCloud, 5)))
	}
	return errors.Join(append(errs, db.Close())...)
}

// fillCard is the folder that the script of the queue is about.
func fillCard(data string) error {
	var ms []hub.Message
	for _, from := range []hub.Identity{"d01", "d01", "d01", "d02", "d02"} {
		ms = append(ms, hub.Message{From: from, Body: []byte(from)})
	}
	ms = append(ms, hub.Message{From: "p", Topic: "plant/t", Body: []byte("\x1b[2J\xff\x00")})
	return fillStore(data, func(q *storage.Queue) {
		q.Park("d02", "not a child of this gateway", nil)
		q.ParkRecord(6, "too odd")
	}, ms...)
}

// sealedFolder is one whose list of devices was sealed with a key that has gone: a
// value of format 1 that no key opens.
func sealedFolder(data string) error {
	db, err := storage.Open(filepath.Join(data, "state"), storage.Options{SegmentBytes: stateSegment, MaxBytes: stateMax})
	if err != nil {
		return err
	}
	sealed := append([]byte{1}, make([]byte, 64)...)
	err = db.Map(scopeMap).Set(context.Background(), map[string][]byte{"entry/d01": sealed})
	return errors.Join(err, db.Close())
}

// inProcess runs a gateway in this process until the returned function is called.
func inProcess(t *testing.T, cfg Config) (log *lines, stop func()) {
	t.Helper()
	cfg.Status.Listen = "off"
	cfg.MQTT.Listen, cfg.MQTT.TLSListen, cfg.HTTPS.Listen = "127.0.0.1:0", "off", "off"
	ctx, cancel := context.WithCancel(context.Background())
	log = new(lines)
	p := Program{Stderr: log, Stdout: io.Discard, Stdin: new(bytes.Reader)}
	ended := make(chan error, 1)
	go func() { ended <- p.run(ctx, cfg, newLog(LogConfig{}, log, new(ring)), new(ring)) }()
	once := sync.Once{}
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-ended; err != nil {
				t.Errorf("run: %v\n%s", err, log)
			}
		})
	}
	t.Cleanup(stop)
	until(t, "the console answers", func() bool {
		c, err := net.Dial("unix", filepath.Join(cfg.Data, controlSocket))
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
	return log, stop
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

// The same commands work on the store that a running gateway has locked.
func TestConsoleOfARunningGateway(t *testing.T) {
	data := t.TempDir()
	if err := fillCard(data); err != nil {
		t.Fatal(err)
	}
	log, stop := inProcess(t, Config{Data: data})
	if _, err := storage.Open(filepath.Join(data, "queue"), storage.Options{}); !errors.Is(err, storage.ErrLocked) {
		t.Fatalf("the store is not locked: %v", err)
	}
	for _, c := range []struct {
		args   string
		status int
		want   string
	}{
		{"queue list --json", exitOK, `"queue":"iothub.5","pending":3,"parked":3`},
		{"queue verify", exitOK, "ledger and data agree"},
		{"queue discard iothub.5 --sender d02", exitUsage, "hint: the same command with --yes"},
		{"queue parked retry --sender p", exitOK, "1 message may go again"},
		{"queue discard iothub.5 --sender d02 --yes", exitOK, "2 messages discarded"},
		{"queue parked list", exitOK, "whole sender         0"},
		{"queue show nowhere", exitFault, "hint: there are: iothub.5"},
		{"queue list --data " + data + " --json", exitOK, `"pending":4,"parked":0`},
	} {
		status, out, errs := execute(t.Context(), "", append(strings.Fields(c.args), "--data", data)...)
		if status != c.status || !strings.Contains(out+errs, c.want) {
			t.Errorf("%s: status %d, want %d and %q\n%s%s", c.args, status, c.status, c.want, out, errs)
		}
	}
	if !strings.Contains(log.String(), `msg="messages discarded by a person" service=console queue=iothub.5 sender=d02 count=2`) {
		t.Errorf("the log does not tell of it:\n%s", log)
	}
	file := filepath.Join(t.TempDir(), "parked.jsonl")
	if status, out, errs := execute(t.Context(), "", "queue", "parked", "export", file, "--data", data); status != exitOK || out != "0 messages in "+file+"\n" {
		t.Errorf("export: %d %s%s", status, out, errs)
	}
	stop()
	if _, err := os.Lstat(filepath.Join(data, controlSocket)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket is left behind: %v", err)
	}
	status, out, errs := execute(t.Context(), "", "queue", "list", "--json", "--data", data) // now the folder itself
	if status != exitOK || !strings.Contains(out, `"pending":4,"parked":0`) {
		t.Errorf("afterwards: %d %s%s", status, out, errs)
	}
}

// Somebody has the store and does not answer: that is said, not waited for.
func TestConsoleOfASilentGateway(t *testing.T) {
	data := t.TempDir()
	db, err := storage.Open(filepath.Join(data, "queue"), storage.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(300*time.Millisecond, cancel)
	status, _, _ := execute(ctx, "", "queue", "list", "--data", data)
	if status != exitFault {
		t.Errorf("interrupted: status %d", status)
	}
	status, _, errs := execute(t.Context(), "", "queue", "list", "--data", data)
	if status != exitFault || !strings.Contains(errs, "store is in use by another process") || !strings.Contains(errs, "hint: its console does not answer") {
		t.Errorf("status %d: %s", status, errs)
	}
}

// A device that the hub did not know is registered, its messages are tried again by
// hand, and they arrive at once and in order.
func TestConsoleRetryArrives(t *testing.T) {
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
	data := t.TempDir()
	ca := filepath.Join(data, "hub-ca.pem")
	if err := os.WriteFile(ca, h.CAPEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	var ms []hub.Message
	for i := range 20 {
		ms = append(ms, hub.Message{From: "d01", Body: fmt.Append(nil, i)})
	}
	if err := fillStore(data, nil, ms...); err != nil {
		t.Fatal(err)
	}
	cfg := Config{Data: data}
	cfg.IoTHub.Connection, cfg.IoTHub.Address, cfg.IoTHub.HTTPS, cfg.IoTHub.CA = h.ConnectionString("gw/$edgeHub"), h.MQTTAddr(), h.HTTPSAddr(), ca
	inProcess(t, cfg)

	var parked struct {
		Sender, Reason string
		Count          int
	}
	until(t, "the device is parked", func() bool {
		status, out, errs := execute(t.Context(), "", "queue", "parked", "list", "--json", "--data", data)
		if status != exitOK {
			t.Fatalf("parked list: %d %s", status, errs)
		}
		return json.Unmarshal([]byte(out), &parked) == nil
	})
	if parked.Sender != "d01" || parked.Count != 20 || !strings.Contains(parked.Reason, "refused") {
		t.Errorf("parked: %+v", parked)
	}
	h.Put(hubtest.Device{ID: "d01", Parent: "gw"})
	if status, out, errs := execute(t.Context(), "", "queue", "parked", "retry", "--all", "--data", data); status != exitOK || !strings.HasPrefix(out, "20 messages may go again") {
		t.Errorf("retry: %d %s%s", status, out, errs)
	}
	until(t, "all arrived", func() bool { return h.Count() >= 20 })
	for i, m := range h.Messages() {
		if string(m.Body) != fmt.Sprint(i) {
			t.Errorf("message %d is %q", i, m.Body)
		}
	}
	until(t, "all settled", func() bool {
		_, out, _ := execute(t.Context(), "", "queue", "list", "--json", "--data", data)
		return strings.Contains(out, `"pending":0,"parked":0,"bytes":0`)
	})
}
