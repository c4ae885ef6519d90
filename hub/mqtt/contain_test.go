package mqtt

import (
	"context"
	"io"
	"log/slog"
	"testing"

	"github.com/mochi-mqtt/server/v2/packets"
)

// fragileLog panics at each refusal that it is to log.
type fragileLog struct{ slog.Handler }

func (fragileLog) Enabled(context.Context, slog.Level) bool { return true }

func (fragileLog) Handle(_ context.Context, r slog.Record) error {
	if r.Level == slog.LevelWarn {
		panic("the log breaks")
	}
	return nil
}

// connOf is the connection of an ordinary client.
func connOf(b *Broker, id string) *conn {
	b.mu.RLock()
	defer b.mu.RUnlock()
	s := b.sessions["client\x00"+id]
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conn
}

// A panic costs the connection that it happens on, whichever of its goroutines it
// is, and nothing of the connection is left behind.
func TestPanicsAreContained(t *testing.T) {
	h, g := newFakes()
	b, err := New(Config{Listen: "127.0.0.1:0"}, stored(t, Deps{Gate: g, Log: slog.New(fragileLog{})}))
	if err != nil {
		t.Fatal(err)
	}
	run(t, b, h)
	other := ordinary(t, b, v5, "other", "all", nil)
	for i, tt := range []struct {
		name string
		do   func(c *client)
	}{
		{"reader", func(c *client) { c.publish("t", 1, 1, "panic") }},
		{"reader, logging", func(c *client) {
			c.send(packets.Subscribe, func(pk *packets.Packet) {
				pk.PacketID, pk.Filters = 1, packets.Subscriptions{{Filter: "devices/#"}}
			})
		}},
		{"writer", func(c *client) { c.publish("$SYS/x", 1, 1, "x") }},
		{"committer", func(*client) {
			c := connOf(b, "c")
			defer func() { c.containDone(recover()) }()
			panic("a callback breaks")
		}},
	} {
		c := ordinary(t, b, v5, "c", "all", func(pk *packets.Packet) {
			pk.Properties.SessionExpiryInterval, pk.Properties.SessionExpiryIntervalFlag = 0, true
		})
		c.ping()
		tt.do(c)
		for {
			if _, err := c.read(); err != nil {
				if err != io.EOF {
					t.Logf("%s: %v", tt.name, err)
				}
				break
			}
		}
		eventually(t, tt.name+": the connection is gone", func() bool {
			b.mu.RLock()
			defer b.mu.RUnlock()
			return b.live == 1 && len(b.conns) == 1 && len(b.sessions) == 1 && b.server.Clients.Len() == 1
		})
		eventually(t, tt.name+": it is counted", func() bool { return metric(b, "mqtt_panics_total") == float64(i+1) })
		other.ping()
	}
}
