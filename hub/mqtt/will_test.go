package mqtt

import (
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
)

// A will with a delay goes out when its session ends, if that is earlier, and not
// at all when the session is continued in time (MQTT 5, section 3.1.3.2.2).
func TestDelayedWill(t *testing.T) {
	for _, clean := range []bool{true, false} {
		b, _, _ := start(t, Config{})
		sub := ordinary(t, b, v311, "sub", "all", nil)
		sub.subscribe("#", 1)
		c := ordinary(t, b, v5, "c", "all", func(pk *packets.Packet) {
			pk.Connect.WillFlag, pk.Connect.WillTopic, pk.Connect.WillPayload = true, "will", []byte("gone")
			pk.Connect.WillProperties.WillDelayInterval = 300
			pk.Properties.SessionExpiryInterval, pk.Properties.SessionExpiryIntervalFlag = 600, true
		})
		c.nc.Close()
		eventually(t, "c is away", func() bool { return metric(b, "mqtt_clients") == 1 })
		c = ordinary(t, b, v5, "c", "all", func(pk *packets.Packet) { pk.Connect.Clean = clean })
		if clean {
			if pk := sub.want(packets.Publish); pk.TopicName != "will" {
				t.Errorf("got %s, want the will", pk.TopicName)
			}
			continue
		}
		c.publish("later", 1, 1, "x")
		if pk := sub.want(packets.Publish); pk.TopicName != "later" {
			t.Errorf("got %s of a session that goes on", pk.TopicName)
		}
	}
}

// A will that comes while the store is full is not lost for that, and not kept
// for ever.
func TestWillWaitsForRoom(t *testing.T) {
	for _, tt := range []struct {
		full time.Duration
		want int
	}{
		{5 * time.Second, 1},
		{2 * holdTime, 0},
	} {
		bubble(t, Config{}, func(b *Broker, h *fullHub) {
			c := pipe(t, b, v311)
			c.send(packets.Connect, func(pk *packets.Packet) {
				hello(pk)
				pk.Connect.WillFlag, pk.Connect.WillTopic, pk.Connect.WillPayload = true, "will", []byte("gone")
			})
			c.want(packets.Connack)
			c.nc.Close()
			time.Sleep(tt.full)
			h.room(nil)
			time.Sleep(time.Minute)
			if got := h.bodies(); len(got) != tt.want {
				t.Errorf("full for %v: kept %v, want %d", tt.full, got, tt.want)
			}
		})
	}
}
