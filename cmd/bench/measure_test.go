package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// measured runs a subcommand as a process, on as little as possible, and gives its
// rows.
func measured(t *testing.T, args ...string) []figure {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, append(args, "--json", "--quick", "--tiny", "--dir", filepath.Join(t.TempDir(), "work"))...)
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v: %s", args[0], err, &said)
	}
	rows, err := parseRows(out)
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

// TestMeasurements runs each of them: what they say of a machine that others use is
// not judged here, only that every target has its row, and the ones that hang on no
// speed.
func TestMeasurements(t *testing.T) {
	if testing.Short() {
		t.Skip("some seconds")
	}
	for _, tt := range []struct {
		args []string
		ids  []string // that it must have
		kept []string // ids of rows that must be good, where they were measured
	}{
		{[]string{"steady"}, []string{"S1", "S2", "S3"}, []string{"S2"}},
		{[]string{"ingest"}, []string{"ingest"}, nil},
		{[]string{"backlog"}, []string{"backlog", "S4", "S2"}, nil},
		{[]string{"drain"}, []string{"drain", "S6"}, []string{"S6"}},
		{[]string{"memory"}, []string{"S4"}, nil},
		{[]string{"reopen", "--cold=false"}, []string{"S5"}, nil},
		{[]string{"full"}, []string{"S8"}, []string{"S8"}},
		{[]string{"latency"}, []string{"S9", "S12"}, nil},
	} {
		t.Run(tt.args[0], func(t *testing.T) {
			t.Parallel()
			rows := measured(t, tt.args...)
			for _, id := range tt.ids {
				if !slices.ContainsFunc(rows, func(f figure) bool { return f.ID == id }) {
					t.Errorf("no row %s in %+v", id, rows)
				}
			}
			for _, f := range rows {
				if f.What == "" || !f.skipped() && f.Value < 0 && f.Unit != "MB" {
					t.Errorf("row %+v says nothing", f)
				}
				if slices.Contains(tt.kept, f.ID) && f.OK != nil && !*f.OK {
					t.Errorf("%s, %s: %s, want %s", f.ID, f.What, f.amount(), f.Target)
				}
			}
		})
	}
}
