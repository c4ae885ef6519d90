package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// lines is a log that a test can read while others write.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func testLog() (*slog.Logger, *lines) {
	l := new(lines)
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug})), l
}

// diary records what happened in which order.
type diary struct {
	mu    sync.Mutex
	words []string
}

func (d *diary) add(format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.words = append(d.words, fmt.Sprintf(format, args...))
}

func (d *diary) String() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return strings.Join(d.words, " ")
}

func TestGroupStopsBackwards(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, _ := testLog()
		var d diary
		var services []Service
		for _, name := range []string{"a", "b", "c"} {
			services = append(services, Service{Name: name, Run: func(ctx context.Context) error {
				<-ctx.Done()
				time.Sleep(time.Second) // of the bubble; the next may not stop before this is over
				d.add("%s", name)
				return ctx.Err()
			}})
		}
		ctx, cancel := context.WithCancel(t.Context())
		result := make(chan error)
		go func() { result <- runGroup(ctx, log, services) }()
		synctest.Wait()
		cancel()
		if err := <-result; err != nil {
			t.Errorf("runGroup: %v, want nil", err)
		}
		if got, want := d.String(), "c b a"; got != want {
			t.Errorf("stopped in the order %s, want %s", got, want)
		}
	})
}

func TestGroupRunsAgain(t *testing.T) {
	tests := []struct {
		name string
		run  func() error
		log  string
	}{
		{"error", func() error { return errors.New("broken") }, `msg="service ended" service=s again_in=`},
		{"nil", func() error { return nil }, `msg="service ended"`},
		{"panic", func() error { panic("ouch") }, `level=ERROR msg="service panicked"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log, out := testLog()
				begun := time.Now()
				var at []time.Duration
				ctx, cancel := context.WithCancel(t.Context())
				err := runGroup(ctx, log, []Service{{Name: "s", Run: func(context.Context) error {
					at = append(at, time.Since(begun))
					if len(at) == 10 {
						cancel()
						return nil
					}
					return tt.run()
				}}})
				if err != nil {
					t.Errorf("runGroup: %v", err)
				}
				checkPauses(t, at)
				if !strings.Contains(out.String(), tt.log) {
					t.Errorf("log lacks %q:\n%s", tt.log, out)
				}
			})
		})
	}
}

// checkPauses wants 1 s doubling to 1 min, give or take a quarter.
func checkPauses(t *testing.T, at []time.Duration) {
	t.Helper()
	if len(at) != 10 {
		t.Fatalf("ran %d times, want 10", len(at))
	}
	want := time.Second
	for i := 1; i < len(at); i++ {
		if got := at[i] - at[i-1]; got < want*3/4 || got > want*5/4 {
			t.Errorf("pause %d: %v, want about %v", i, got, want)
		}
		want = min(2*want, time.Minute)
	}
}

func TestGroupForgivesAfterRunningWell(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, _ := testLog()
		ctx, cancel := context.WithCancel(t.Context())
		runs, ended := 0, time.Time{}
		var pause time.Duration
		_ = runGroup(ctx, log, []Service{{Name: "s", Run: func(context.Context) error {
			runs++
			switch {
			case runs == 9:
				pause = time.Since(ended)
				cancel()
			case runs == 8: // by now the pauses are a minute
				time.Sleep(ranWell)
				ended = time.Now()
			}
			return errors.New("broken")
		}}})
		if pause > firstPause*5/4 {
			t.Errorf("pause after running well: %v, want about %v", pause, firstPause)
		}
	})
}

func TestGroupFatal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, _ := testLog()
		broken := errors.New("disk is gone")
		var d diary
		quiet := func(name string) Service {
			return Service{Name: name, Run: func(ctx context.Context) error {
				<-ctx.Done()
				d.add("%s", name)
				return nil
			}}
		}
		err := runGroup(t.Context(), log, []Service{
			quiet("a"),
			{Name: "store", Run: func(context.Context) error {
				time.Sleep(time.Second)
				return fmt.Errorf("flush: %w", fatal(withHint(broken, "replace the card")))
			}},
			quiet("b"),
		})
		if !errors.Is(err, broken) || !strings.HasPrefix(err.Error(), "store: ") {
			t.Errorf("runGroup: %v, want store: %v", err, broken)
		}
		if got := hintOf(err); got != "replace the card" {
			t.Errorf("hint %q", got)
		}
		if got, want := d.String(), "b a"; got != want {
			t.Errorf("stopped %q, want %q", got, want)
		}
	})
}

func TestGroupLeavesWhoDoesNotStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, out := testLog()
		release := make(chan struct{})
		first := false
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		begun := time.Now()
		err := runGroup(ctx, log, []Service{
			{Name: "first", Run: func(ctx context.Context) error { <-ctx.Done(); first = true; return nil }},
			{Name: "deaf", Grace: 3 * time.Second, Run: func(context.Context) error { <-release; return nil }},
		})
		if took := time.Since(begun); err != nil || took != 3*time.Second {
			t.Errorf("runGroup: %v after %v, want nil after the grace of 3 s", err, took)
		}
		if !first {
			t.Error("the one before it was not stopped")
		}
		if want := `msg="service does not stop, leaving it" service=deaf`; !strings.Contains(out.String(), want) {
			t.Errorf("log lacks %q:\n%s", want, out)
		}
		close(release)
	})
}
