package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

func TestRingKeepsTheLast(t *testing.T) {
	for _, written := range []int{0, 1, ringLines, ringLines + 1, 3*ringLines + 7} {
		r := new(ring)
		for i := range written {
			fmt.Fprintf(r, "line %d\n", i)
		}
		for _, n := range []int{0, 1, 50, ringLines, ringLines + 5} {
			want := []string{}
			for i := max(0, written-min(n, ringLines)); i < written; i++ {
				want = append(want, fmt.Sprintf("line %d", i))
			}
			if got := r.last(n); !reflect.DeepEqual(got, want) {
				t.Errorf("last %d of %d: %d lines, %.40q …", n, written, len(got), got)
			}
		}
	}
}

func TestNewLog(t *testing.T) {
	tests := []struct {
		c     LogConfig
		lines int
		json  bool
	}{
		{LogConfig{}, 1, false}, {LogConfig{"debug", "text"}, 2, false}, {LogConfig{"warn", "json"}, 0, true}, {LogConfig{"info", "json"}, 1, true},
	}
	for _, tt := range tests {
		var out bytes.Buffer
		r := new(ring)
		log := newLog(tt.c, &out, r).With("service", "s")
		log.Debug("quiet")
		log.Info("loud", "n", 1)
		if got := len(r.last(10)); got != tt.lines || strings.Count(out.String(), "\n") != tt.lines {
			t.Errorf("%+v: %d lines in the ring, want %d; wrote %q", tt.c, got, tt.lines, out.String())
		}
		if tt.lines == 0 {
			continue
		}
		if got := json.Valid(bytes.Split(out.Bytes(), []byte("\n"))[0]); got != tt.json {
			t.Errorf("%+v: wrote %q", tt.c, out.String())
		}
		if got := r.last(1)[0]; !strings.Contains(got, "level=INFO msg=loud service=s n=1") {
			t.Errorf("%+v: ring has %q", tt.c, got)
		}
	}
}
