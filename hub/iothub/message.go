package iothub

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"holdfast.dev/holdfast/hub"
	"holdfast.dev/holdfast/hub/wire"
	"holdfast.dev/holdfast/storage"
)

// Properties that the gateway adds to a message.
const (
	propID      = "holdfast-id"            // the same on a repeat
	propTopic   = "holdfast-topic"         // an ordinary client's topic
	propArrived = "holdfast-arrived"       // when it came, UTC, RFC 3339 with milliseconds; only if it waited
	propGrade   = "holdfast-arrived-grade" // what that time is worth: none, floor, network, rtc, ntp
	propHistory = "holdfast-history"       // "true" on what went beside fresher ones; absent else
)

const (
	waited    = 5 * time.Second // a message older than this says when it came
	maxTopic  = 65535           // bytes; the library would cut the length to 16 bits
	rfc3339ms = "2006-01-02T15:04:05.000Z07:00"
)

// encode puts a message into the form that goes out. The error is hub.ErrBad:
// IoT Hub would close the connection on it every time it came.
func encode(m *hub.Message, clock storage.Clock) (topic string, err error) {
	if n := m.Size(); n > wire.MaxMessage {
		return "", fmt.Errorf("%w: %d bytes, IoT Hub takes %d", hub.ErrBad, n, wire.MaxMessage)
	}
	if err := checkSender(m.From); err != nil {
		return "", fmt.Errorf("%w: %w", hub.ErrBad, err)
	}
	bag := m.Props.With(propID, m.ID)
	if m.Topic != "" {
		bag = bag.With(propTopic, m.Topic)
	}
	late := bag
	if m.History {
		late = late.With(propHistory, "true")
	}
	if hasWaited(m.Arrived, clock) {
		late = late.With(propArrived, m.Arrived.Wall.UTC().Format(rfc3339ms)).With(propGrade, m.Arrived.Grade.String())
	}
	if late != bag {
		if topic, err = telemetry(m, late); err == nil {
			return topic, nil
		}
		// Better without them than not at all.
	}
	return telemetry(m, bag)
}

func checkSender(id hub.Identity) error {
	if err := wire.CheckID(id.Device()); err != nil {
		return err
	}
	if m := id.Module(); m != "" {
		return wire.CheckID(m)
	}
	return nil
}

func telemetry(m *hub.Message, bag wire.Bag) (string, error) {
	// A device may have left these bare; in a topic that is published they end
	// the connection.
	clean := strings.NewReplacer("+", "%2B", "#", "%23", "\x00", "%00").Replace(string(bag))
	topic := wire.TelemetryTopic(m.From.Device(), m.From.Module(), wire.Bag(clean))
	switch n := packetSize(topic, m.Body); {
	case len(topic) > maxTopic:
		return "", fmt.Errorf("%w: properties of %d bytes, with the topic at most %d go", hub.ErrBad, len(bag), maxTopic)
	case n > wire.MaxMessage:
		return "", fmt.Errorf("%w: packet of %d bytes, IoT Hub takes %d", hub.ErrBad, n, wire.MaxMessage)
	case !utf8.ValidString(topic):
		return "", fmt.Errorf("%w: properties are not UTF-8", hub.ErrBad)
	}
	return topic, nil
}

// packetSize is that of a whole QoS 1 PUBLISH: fixed header, topic, id, body.
func packetSize(topic string, body []byte) int {
	rest := 2 + len(topic) + 2 + len(body)
	n := 1 + rest
	for ; rest > 0; rest >>= 7 {
		n++
	}
	return n
}

// hasWaited: for a message of another boot nobody may know how long, but it did.
func hasWaited(s storage.Stamp, clock storage.Clock) bool {
	if s.Wall.IsZero() {
		return false
	}
	age, _ := clock.Age(s)
	return age > waited || s.Boot != clock.Now().Boot
}
