package mqtt

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"holdfast.dev/holdfast/hub"
	"holdfast.dev/holdfast/hub/wire"
	"holdfast.dev/holdfast/storage"
)

// publish takes a PUBLISH from mochi.
func (c *conn) publish(pk packets.Packet) {
	p, ok := c.expect(pk.PacketID, pk.FixedHeader.Qos)
	if !ok || c.doomed() || p.qos == 2 && !c.session.in.begin(c, p) {
		return
	}
	if c.device == "" {
		c.local(p, &pk)
		return
	}
	switch t := pk.TopicName; {
	case wire.IsMethodReply(t):
		c.methodReply(p, &pk)
	case strings.HasPrefix(t, "$iothub/twin/"):
		c.twin(p, t)
	default:
		c.telemetry(p, &pk)
	}
}

// telemetry is a message of an IoT Hub device or module.
func (c *conn) telemetry(p *publication, pk *packets.Packet) {
	props, err := c.ownTelemetry(pk.TopicName)
	if err != nil {
		reason := "bad topic"
		if errors.Is(err, errForeign) {
			reason = "foreign id"
		}
		c.refuse(p, cause{reason, codeNotAuthorized, err})
		return
	}
	if pk.FixedHeader.Retain {
		props = props.With("mqtt-retain", "true") // IoT Hub keeps no message for later subscribers, but says that it was asked to
	}
	m := hub.Message{From: c.device, QoS: p.qos, Props: props, Body: pk.Payload}
	if c.device.Module() != "" {
		m.Output, _ = props.Get(wire.Output)
	}
	c.keep(p, m, nil)
}

var errForeign = errors.New("topic is another identity's")

// ownTelemetry parses a telemetry topic and compares the ids in it with the one
// that was proven. Python's SDK percent-encodes ids in topics, the others do not.
func (c *conn) ownTelemetry(topic string) (wire.Bag, error) {
	device, module, props, err := wire.ParseTelemetry(topic)
	if err != nil {
		return "", err
	}
	if !sameID(device, c.device.Device()) || !sameID(module, c.device.Module()) {
		return "", fmt.Errorf("publish as %q: %w", wire.JoinID(device, module), errForeign)
	}
	return props, nil
}

func sameID(s, id string) bool {
	if s == id {
		return true
	}
	u, err := url.PathUnescape(s)
	return err == nil && u == id
}

// local is a message of an ordinary client.
func (c *conn) local(p *publication, pk *packets.Packet) {
	t := pk.TopicName
	switch {
	case t == "":
		c.hangUp(cause{"malformed", codeProtocol, errors.New("topic alias was never set")})
		c.lost(p)
		return
	case reserved(t) || !anyMatches(c.account.Publish, t):
		c.refuse(p, cause{"not authorized", codeNotAuthorized, fmt.Errorf("account %s may not publish on %q", c.account.Name, t)})
		return
	}
	others := c.b.local(pk, c.session.key)
	m := hub.Message{ID: others.id, From: c.from(), Topic: t, QoS: p.qos, Extra: others.extra(), Body: pk.Payload}
	if p.qos == 2 && c.session.lasting {
		m.With = append(m.With, storage.Change{Map: mapInbound, Key: idKey(c.session.key, p.packet), Value: []byte{1}})
	}
	c.keep(p, m, others)
}

// from is whose messages an ordinary client's are when they go up.
func (c *conn) from() hub.Identity {
	if c.account.From != "" {
		return c.account.From
	}
	return c.b.gateway
}

// local is what other clients get of an ordinary client's message.
func (b *Broker) local(pk *packets.Packet, from string) *message {
	m := &message{id: b.newID(), topic: pk.TopicName, body: pk.Payload, qos: pk.FixedHeader.Qos, retain: pk.FixedHeader.Retain, from: from}
	if pk.ProtocolVersion == v5 {
		m.live(pk.Properties.MessageExpiryInterval)
		m.props = endToEnd(&pk.Properties)
	}
	return m
}

// newID is an id of a message: the hub gives its own where there is none, but what is
// retained is known by it before.
func (b *Broker) newID() string {
	return b.prefix + strconv.FormatUint(b.messages.Add(1), 36)
}

// live sets how long m has to live, in seconds; 0: for ever.
func (m *message) live(seconds uint32) {
	m.lifetime = seconds
	if seconds > 0 {
		m.expires = time.Now().Add(time.Duration(seconds) * time.Second)
	}
}

// endToEnd are the properties that a server passes on (MQTT 5, section 3.3.2.3).
func endToEnd(p *packets.Properties) *packets.Properties {
	if !p.PayloadFormatFlag && p.ContentType == "" && p.ResponseTopic == "" && len(p.CorrelationData) == 0 && len(p.User) == 0 {
		return nil
	}
	return &packets.Properties{
		PayloadFormat: p.PayloadFormat, PayloadFormatFlag: p.PayloadFormatFlag, ContentType: p.ContentType,
		ResponseTopic: p.ResponseTopic, CorrelationData: p.CorrelationData, User: p.User,
	}
}

// keep hands a message to the hub. It is acknowledged when the hub has it, and
// only then given to other clients, if it is for them.
func (c *conn) keep(p *publication, m hub.Message, others *message) {
	if n := m.Size(); n > wire.MaxMessage {
		c.refuse(p, cause{"too large", codeSpecific, fmt.Errorf("message has %d bytes, at most %d are allowed", n, wire.MaxMessage)})
		return
	}
	m.Order = &c.order
	c.hand(attempt{p: p, m: m, others: others})
}

// notKept is for a message that the hub did not take into its custody and need not
// be asked for again. It is never acknowledged, so the client keeps it.
func (c *conn) notKept(p *publication, err error) {
	switch {
	case c.ctx.Err() != nil:
		c.lost(p)
	case errors.Is(err, hub.ErrOffline):
		c.hangUp(cause{"not kept", codeUnavailable, err}) // fate unknown: no reason code would be true
		c.lost(p)
	case errors.Is(err, hub.ErrBad):
		c.refuse(p, cause{"refused", codeSpecific, err})
	case errors.Is(err, hub.ErrRefused):
		c.refuse(p, cause{"refused", codeNotAuthorized, err})
	}
}
