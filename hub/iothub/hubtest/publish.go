package hubtest

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"holdfast.dev/holdfast/hub/wire"
)

// published handles a PUBLISH. An error closes the connection, without PUBACK.
func (c *client) published(pk *packets.Packet) error {
	if pk.FixedHeader.Qos > 1 {
		return fmt.Errorf("publish %q: QoS 2 is not supported", pk.TopicName)
	}
	switch {
	case strings.HasPrefix(pk.TopicName, "devices/"):
		return c.speak(pk)
	case wire.IsMethodReply(pk.TopicName):
		if err := c.replied(pk); err != nil {
			return err
		}
	default:
		if err := c.askTwin(pk); err != nil {
			return err
		}
	}
	if pk.FixedHeader.Qos == 1 {
		c.write(puback(pk.PacketID))
	}
	return nil
}

// speak keeps a telemetry message, then has it acknowledged.
func (c *client) speak(pk *packets.Packet) error {
	r, err := c.telemetry(pk)
	if err != nil {
		return err
	}
	f := c.h.faults.get()
	if f.refuses(c.from.id) {
		return fmt.Errorf("telemetry of %s is refused", c.from.id)
	}
	if f.CloseAfter > 0 && c.heard >= f.CloseAfter {
		return fmt.Errorf("closed after %d messages", c.heard)
	}
	c.heard++
	if !every(f.Lie, &c.h.faults.kept) {
		c.h.messages.add(r)
	}
	if pk.FixedHeader.Qos == 1 {
		c.acks.add(pk.PacketID)
	}
	return nil
}

// telemetry makes a record of a message if it is one that this client may send.
func (c *client) telemetry(pk *packets.Packet) (record, error) {
	device, module, bag, err := wire.ParseTelemetry(pk.TopicName)
	if err != nil {
		return record{}, err
	}
	if device != c.from.device || module != c.from.module {
		return record{}, fmt.Errorf("telemetry of %s on the connection of %s", wire.JoinID(device, module), c.from.id)
	}
	size := len(pk.Payload)
	for k, v := range bag.All() {
		size += len(k) + len(v)
	}
	if size > wire.MaxMessage {
		return record{}, fmt.Errorf("message has %d bytes with its properties, at most %d are allowed", size, wire.MaxMessage)
	}
	r := record{at: time.Now().UnixNano(), from: c.from, bag: string(bag), body: pk.Payload, bits: pk.FixedHeader.Qos}
	if pk.FixedHeader.Dup {
		r.bits |= dupBit
	}
	if pk.FixedHeader.Retain {
		r.bits |= retainBit
	}
	return r, nil
}

// sendWill keeps the client's last will as telemetry, marked as IoT Hub marks it.
func (c *client) sendWill() {
	r, err := c.telemetry(c.will)
	if err != nil {
		c.h.log.Error("will that was good at CONNECT", "id", c.from.id, "error", err)
		return
	}
	r.bag = string(wire.Bag(r.bag).With("iothub-MessageType", "Will"))
	c.h.messages.add(r)
}

// filter says with what QoS f is granted to c, at most 1.
func (c *client) filter(f string, qos byte) (byte, error) {
	s := c.from
	known := []string{wire.MethodFilter, wire.TwinFilter, wire.DesiredFilter, wire.DeviceboundFilter(s.device, s.module)}
	if s.module != "" {
		all := "devices/" + s.device + "/modules/" + s.module + "/"
		known = append(known, all+"#", all+"inputs/#")
	}
	for _, k := range known {
		if f == k {
			return min(qos, 1), nil
		}
	}
	return 0, errors.New("no such filter")
}

// subackFailure is the return code of a filter that is not granted.
const subackFailure = 0x80

func (c *client) subscribe(pk *packets.Packet) {
	answer := &packets.Packet{PacketID: pk.PacketID}
	c.h.mu.Lock()
	s := c.h.session(c.from.id)
	for _, f := range pk.Filters {
		qos, err := c.filter(f.Filter, f.Qos)
		if err != nil {
			qos = subackFailure
			c.h.log.Info("subscription refused", "id", c.from.id, "filter", f.Filter)
		} else {
			s.filters[f.Filter] = qos
		}
		answer.ReasonCodes = append(answer.ReasonCodes, qos)
	}
	c.write(encode(packets.Suback, answer))
	c.h.wake()
	c.h.mu.Unlock()
	c.handOut()
}

func (c *client) unsubscribe(pk *packets.Packet) {
	c.h.mu.Lock()
	s := c.h.session(c.from.id)
	for _, f := range pk.Filters {
		delete(s.filters, f.Filter)
	}
	c.h.mu.Unlock()
	c.write(encode(packets.Unsuback, &packets.Packet{PacketID: pk.PacketID}))
}
