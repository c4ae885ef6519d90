package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestOutage tells the whole story against fakes: all is well with a gateway that
// keeps its promise, and each fault of one that does not is found.
func TestOutage(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds for each case")
	}
	for _, tt := range []struct {
		fault, wrong string
	}{
		{"", ""},
		{"lose", "acknowledged messages were lost"},
		{"reorder", "arrived after a later one"},
		{"rename", "under a new holdfast-id"},
		{"deaf", "the local subscriber heard nothing"},
		{"die", "no more of this"},
	} {
		t.Run("fault "+tt.fault, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			dir := filepath.Join(t.TempDir(), "work")
			p := profile{devices: 6, messages: 1800, outage: time.Second, kills: 2, drain: 1, payload: 100,
				window: 20, once: true, dir: dir, bin: fakeBin(t), stall: 20 * time.Second, env: []string{"BENCH_FAULT=" + tt.fault}}
			if tt.fault != "" { // what is missing will not come
				p.stall = 2 * time.Second
			}
			err := runOutage(t.Context(), p, &console{out: &out, start: time.Now()})
			if tt.wrong == "" && err != nil || tt.wrong != "" && (err == nil || !strings.Contains(err.Error(), tt.wrong)) {
				t.Fatalf("the run ended with %v, want %q; it said:\n%s", err, tt.wrong, &out)
			}
			if tt.fault == "die" {
				return
			}
			for _, want := range []string{"cutting the uplink for 1s", "SIGKILL to the gateway", "p02", "link up", "Nothing acknowledged was lost"} {
				if tt.wrong != "" && strings.HasPrefix(want, "Nothing") {
					continue
				}
				if !strings.Contains(out.String(), want) {
					t.Errorf("%q is not in the story:\n%s", want, &out)
				}
			}
			if n := strings.Count(out.String(), "SIGKILL"); n != 3 {
				t.Errorf("%d kills, want 3", n)
			}
		})
	}
}

func TestOutageWithoutBinaries(t *testing.T) {
	p := profile{devices: 1, messages: 10, outage: time.Second, once: true, dir: t.TempDir(), bin: t.TempDir()}
	err := runOutage(t.Context(), p, &console{out: &bytes.Buffer{}, start: time.Now()})
	if err == nil || !strings.Contains(err.Error(), "make build") {
		t.Errorf("got %v, want to be told to build", err)
	}
}

func TestWorkDir(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	if got, temporary, err := workDir(dir); got != dir || temporary || err != nil {
		t.Fatalf("workDir(new): %s, %v, %v", got, temporary, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "x"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, _, err := workDir(dir); err == nil || !strings.Contains(err.Error(), "not empty") {
		t.Errorf("workDir(used): %v, want it refused", err)
	}
}

func TestChildren(t *testing.T) {
	kids := newChildren(t.TempDir())
	defer kids.close()
	k, err := kids.start("talker", "/bin/sh", "-c", "for i in 1 2 3; do echo line $i; done; exit 3")
	if err != nil {
		t.Fatal(err)
	}
	if died := <-kids.died; died != k {
		t.Fatalf("%s died, want talker", died.name)
	}
	for _, want := range []string{"talker stopped unexpectedly (exit status 3)", "line 1\nline 2\nline 3"} {
		if got := k.obituary().Error(); !strings.Contains(got, want) {
			t.Errorf("the obituary lacks %q:\n%s", want, got)
		}
	}
	if got := string(tail(k.log, 2)); got != "line 2\nline 3" {
		t.Errorf("the last two lines are %q", got)
	}
	for _, end := range []func(*child){(*child).kill, func(k *child) { k.stop(50 * time.Millisecond) }} {
		// It ignores SIGTERM, so stop must come to SIGKILL.
		k, err := kids.start("sleeper", "/bin/sh", "-c", "trap '' TERM; while :; do sleep 1; done")
		if err != nil {
			t.Fatal(err)
		}
		end(k)
		select {
		case <-k.done:
		case <-kids.died:
			t.Error("an end that was asked for came as a surprise")
		}
	}
}

func TestReadyTellsTheEnd(t *testing.T) {
	kids := newChildren(t.TempDir())
	defer kids.close()
	k, err := kids.start("failer", "/bin/sh", "-c", "echo port in use; exit 1")
	if err != nil {
		t.Fatal(err)
	}
	err = ready(t.Context(), k, func() error { return context.DeadlineExceeded })
	if err == nil || !strings.Contains(err.Error(), "port in use") {
		t.Errorf("got %v, want what it said last", err)
	}
}
