package main

import (
	"io"
	"log/slog"
	"strings"
	"sync"
)

// ringLines is how many lines of the log are kept for the page.
const ringLines = 1000

// ring keeps the last lines of the log. It is a Writer that takes one line with
// each Write, as slog's handlers write.
type ring struct {
	mu    sync.Mutex
	lines []string
	next  int // where the next line goes once there are ringLines
}

// Write keeps the line. It never fails.
func (r *ring) Write(p []byte) (int, error) {
	line := strings.TrimRight(string(p), "\n")
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.lines) < ringLines {
		r.lines = append(r.lines, line)
	} else {
		r.lines[r.next] = line
		r.next = (r.next + 1) % ringLines
	}
	return len(p), nil
}

// last gives the last n lines, oldest first.
func (r *ring) last(n int) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	n = min(n, len(r.lines))
	out := make([]string, 0, n)
	for i := len(r.lines) - n; i < len(r.lines); i++ {
		out = append(out, r.lines[(r.next+i)%len(r.lines)])
	}
	return out
}

// newLog makes the logger of the program: to w in the form that the configuration
// asks for, and as text to the ring.
func newLog(c LogConfig, w io.Writer, r *ring) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.Level)); err != nil {
		level = slog.LevelInfo // Load has judged it; empty is info
	}
	o := &slog.HandlerOptions{Level: level}
	var h slog.Handler = slog.NewTextHandler(w, o)
	if c.Format == "json" {
		h = slog.NewJSONHandler(w, o)
	}
	return slog.New(slog.NewMultiHandler(h, slog.NewTextHandler(r, o)))
}
