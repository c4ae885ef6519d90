package iothub

import (
	"fmt"
	"unicode/utf8"

	"holdfast.dev/holdfast/hub"
	"holdfast.dev/holdfast/hub/wire"
)

// added is more than what the gateway adds to the properties of a message, its
// topic apart, and to its packet.
const added = 512 // bytes

// Fits says whether IoT Hub can ever take m, which may not have an id yet: hub.ErrBad
// and the reason if not. What it cannot take is better refused while the device
// still has it than parked for good once it is acknowledged.
func Fits(m *hub.Message) error {
	topic := len("devices/") + len(m.From) + len("/modules/messages/events/") + len(m.Props) + 3*len(m.Topic) + added
	if topic <= maxTopic && topic+len(m.Body) <= wire.MaxMessage && utf8.ValidString(string(m.Props)) {
		return nil // as good as all
	}
	bag := m.Props.With(propID, "0123456789abcdef01234567890abcdef")
	if m.Topic != "" {
		bag = bag.With(propTopic, m.Topic)
	}
	if _, err := telemetry(m, bag); err != nil {
		return fmt.Errorf("too much for IoT Hub, with what the gateway adds: %w", err)
	}
	return nil
}
