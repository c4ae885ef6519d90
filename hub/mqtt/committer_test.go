package mqtt

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"holdfast.dev/holdfast/hub"
)

// stuckLog takes nothing until it is let go.
type stuckLog struct {
	slog.Handler
	reached, let chan struct{}
}

func (l *stuckLog) Enabled(context.Context, slog.Level) bool { return true }

func (l *stuckLog) Handle(_ context.Context, r slog.Record) error {
	if r.Level < slog.LevelWarn {
		return nil
	}
	select {
	case l.reached <- struct{}{}:
	default:
	}
	<-l.let
	return nil
}

// The hub calls back on the goroutine that commits for all: a log that takes
// nothing, as a full pipe does, must not stop it.
func TestCommitterDoesNotWaitForLog(t *testing.T) {
	for _, err := range []error{hub.ErrBad, hub.ErrRefused, hub.ErrOffline} {
		for _, v := range []byte{v311, v5} {
			t.Run(fmt.Sprint(err, v), func(t *testing.T) {
				log := &stuckLog{reached: make(chan struct{}, 1), let: make(chan struct{})}
				h, g := newFakes()
				b, e := New(Config{Listen: "127.0.0.1:0"}, stored(t, Deps{Gate: g, Log: slog.New(log)}))
				if e != nil {
					t.Fatal(e)
				}
				run(t, b, h)
				defer close(log.let)
				h.set(true, nil)
				c := ordinary(t, b, v, "c", "all", nil)
				c.publish("t", 1, 1, "x")
				c.publish("t", 0, 0, "y")
				eventually(t, "both are under way", func() bool { return h.waiting() == 2 })
				within(t, "done", func() { h.commit(2, err) })
				select {
				case <-log.reached:
				case <-time.After(patience):
					t.Errorf("nothing was logged")
				}
			})
		}
	}
}

// Who reads the figures may be slow too.
func TestCommitterDoesNotWaitForMetrics(t *testing.T) {
	b, h, _ := start(t, Config{})
	b.count("a")
	h.set(true, nil)
	c := ordinary(t, b, v5, "c", "all", nil)
	c.publish("t", 1, 1, "x")
	eventually(t, "it is under way", func() bool { return h.waiting() == 1 })
	let := make(chan struct{})
	reached := make(chan struct{})
	read := make(chan struct{})
	go func() {
		b.Metrics(func(name string, _ float64, _ ...string) {
			if name == "mqtt_refused_total" {
				close(reached)
				<-let
			}
		})
		close(read)
	}()
	<-reached
	within(t, "done", func() { h.commit(1, hub.ErrBad) })
	close(let)
	<-read
	c.want(packets.Puback)
}

func within(t *testing.T, what string, f func()) {
	t.Helper()
	ended := make(chan struct{})
	go func() { f(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(2 * time.Second):
		t.Errorf("%s blocks", what)
	}
}
