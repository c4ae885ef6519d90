package iothub

import (
	"errors"
	"strings"
	"testing"

	"holdfast.dev/holdfast/hub"
	"holdfast.dev/holdfast/hub/wire"
	"holdfast.dev/holdfast/storage"
)

// What Fits lets through, encode sends; what it refuses, encode would have refused.
func TestFitsAgreesWithWhatIsSent(t *testing.T) {
	clock := storage.SystemClock()
	for _, body := range []int{0, 1000, wire.MaxMessage - 2000, wire.MaxMessage - 600, wire.MaxMessage - 130, wire.MaxMessage - 60, wire.MaxMessage, wire.MaxMessage + 1} {
		for _, props := range []wire.Bag{"", "a=b", wire.Bag("a=" + strings.Repeat("x", 40_000)), wire.Bag("a=" + strings.Repeat("x", 65_500)), "a=\xff"} {
			for _, topic := range []string{"", "plant/a", strings.Repeat("plant/ä/", 3000)} {
				m := &hub.Message{From: "d1", Topic: topic, Props: props, Body: make([]byte, body)}
				fits := Fits(m)
				m.ID, m.Arrived = "0123456789ab-zzzzzzzzzzzz", storage.Stamp{Boot: 1, Wall: clock.Now().Wall}
				_, err := encode(m, clock)
				if fits == nil && err != nil {
					t.Errorf("body %d, properties %d, topic %d: let through, then %v", body, len(props), len(topic), err)
				}
				if fits != nil && (!errors.Is(fits, hub.ErrBad) || err == nil && body < wire.MaxMessage-200 && len(props) < 60_000) {
					t.Errorf("body %d, properties %d, topic %d: refused with %v, sent with %v", body, len(props), len(topic), fits, err)
				}
			}
		}
	}
}
