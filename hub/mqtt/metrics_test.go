package mqtt

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// countLog counts lines of level Warn.
type countLog struct {
	slog.Handler
	n atomic.Int64
}

func (l *countLog) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelWarn }
func (l *countLog) Handle(context.Context, slog.Record) error        { l.n.Add(1); return nil }

// Who comes under a new name each time must not fill the log, and a trouble that
// lasts is told again.
func TestLogIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &countLog{}
		b, err := New(Config{Listen: "off"}, stored(t, Deps{Log: slog.New(log)}))
		if err != nil {
			t.Fatal(err)
		}
		for i := range 20 * maxSaid {
			b.refused(fmt.Sprint(i), "not authorized", errors.New("password is wrong"))
			time.Sleep(10 * time.Millisecond)
		}
		if n := log.n.Load(); n > maxSaid {
			t.Errorf("%d lines within minutes, at most %d are allowed", n, maxSaid)
		}
		time.Sleep(saidTime)
		before := log.n.Load()
		for range 2 {
			b.refused("1", "not authorized", errors.New("password is wrong"))
		}
		if n := log.n.Load() - before; n != 1 {
			t.Errorf("%d lines for one client an hour later, want 1", n)
		}
	})
}
