package mqtt

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"holdfast.dev/holdfast/hub"
	"holdfast.dev/holdfast/hub/wire"
)

// granted says which filters an IoT Hub client may subscribe to.
func (s *session) granted(filter string) bool {
	d, m := s.device.Device(), s.device.Module()
	switch {
	case filter == wire.TwinFilter,
		strings.HasPrefix(filter, strings.TrimSuffix(wire.DesiredFilter, "#")),
		strings.HasPrefix(filter, strings.TrimSuffix(wire.MethodFilter, "#")),
		isDevicebound(filter, s.device):
		return true
	}
	// A module's inputs: either form is in use.
	prefix := "devices/" + d + "/modules/" + m + "/"
	return m != "" && (filter == prefix+"#" || filter == prefix+"inputs/#")
}

func isDevicebound(filter string, id hub.Identity) bool {
	topic, ok := strings.CutSuffix(filter, "#")
	if !ok {
		return false
	}
	d, m, props, err := wire.ParseDevicebound(topic)
	return err == nil && props == "" && sameID(d, id.Device()) && sameID(m, id.Module())
}

// kinds is what the client listens for, from what it subscribes to; s.mu is held.
func (s *session) kinds() (kinds []hub.Kind) {
	if _, _, ok := s.subscribed(hub.Method); ok {
		kinds = append(kinds, hub.Method)
	}
	if _, _, ok := s.subscribed(hub.CloudToDevice); ok {
		kinds = append(kinds, hub.CloudToDevice)
	}
	return kinds
}

func (s *session) subscribed(k hub.Kind) (filter string, qos byte, ok bool) {
	for f, sub := range s.subs {
		if k == hub.Method && strings.HasPrefix(f, strings.TrimSuffix(wire.MethodFilter, "#")) ||
			k == hub.CloudToDevice && isDevicebound(f, s.device) {
			return f, sub.qos, true
		}
	}
	return "", 0, false
}

// listen tells the hub that the client is here and what it listens for. Under mu,
// so that a connection that was taken over cannot have the last word.
func (s *session) listen(c *conn) {
	if s.device == "" {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn == c {
		s.gone = c.hub.Attach(s.device, s, s.kinds()...)
	}
}

// Do is the hub.Doer of one IoT Hub client.
func (s *session) Do(ctx context.Context, cmd hub.Command) (hub.Reply, error) {
	switch cmd.Kind {
	case hub.Method:
		return s.call(ctx, cmd)
	case hub.CloudToDevice:
		return s.send(ctx, cmd)
	}
	return hub.Reply{}, fmt.Errorf("%s to %s: %w", cmd.Kind, cmd.To, hub.ErrUnknown)
}

var errLeft = fmt.Errorf("connection ended before the answer: %w", hub.ErrUnknown)

// call makes a direct method call: the answer comes back under the rid.
func (s *session) call(ctx context.Context, cmd hub.Command) (hub.Reply, error) {
	if len(cmd.Body) > wire.MaxMethod || strings.ContainsAny(cmd.Name, "/+#") || cmd.Name == "" {
		return hub.Reply{}, fmt.Errorf("method %q of %s: name or payload: %w", cmd.Name, s.device, hub.ErrBad)
	}
	answer := make(chan hub.Reply, 1)
	s.mu.Lock()
	c := s.conn
	if _, _, ok := s.subscribed(hub.Method); c == nil || !ok {
		s.mu.Unlock()
		return hub.Reply{}, fmt.Errorf("method %s of %s: %w", cmd.Name, s.device, hub.ErrUnknown)
	}
	s.rid++
	rid := strconv.FormatUint(s.rid, 10)
	s.calls[rid] = answer
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.calls, rid)
		s.mu.Unlock()
	}()
	if err := c.tell(wire.MethodTopic(cmd.Name, rid), cmd.Body); err != nil {
		return hub.Reply{}, fmt.Errorf("method %s of %s: %w", cmd.Name, s.device, err)
	}
	select {
	case r := <-answer:
		return r, nil
	case <-ctx.Done():
		return hub.Reply{}, fmt.Errorf("method %s of %s: %w", cmd.Name, s.device, hub.ErrTimeout)
	case <-c.ctx.Done():
		return hub.Reply{}, fmt.Errorf("method %s of %s: %w", cmd.Name, s.device, errLeft)
	}
}

// tell writes a publish of quality 0 to this client alone: never through the
// topic tree, where these topics are the same for all.
func (c *conn) tell(topic string, body []byte) error {
	d := delivery{m: &message{topic: topic, body: body}}
	var buf bytes.Buffer
	if err := d.encode(c.version, &buf); err != nil {
		return err
	}
	c.reply(buf.Bytes())
	return nil
}

// methodReply is the device's answer to call.
func (c *conn) methodReply(p *publication, pk *packets.Packet) {
	status, rid, err := wire.ParseMethodReply(pk.TopicName)
	if err != nil {
		c.refuse(p, cause{"bad topic", codeTopicInvalid, err})
		return
	}
	s := c.session
	s.mu.Lock()
	answer := s.calls[rid]
	delete(s.calls, rid)
	s.mu.Unlock()
	if answer != nil {
		answer <- hub.Reply{Status: status, Body: pk.Payload}
	}
	c.settle(p, 0)
	c.release()
}

// send delivers a cloud-to-device message: done when the device has acknowledged
// it, or at once where it subscribes with quality 0.
func (s *session) send(ctx context.Context, cmd hub.Command) (hub.Reply, error) {
	acked := make(chan struct{})
	m := &message{qos: 1, body: cmd.Body, acked: func() { close(acked) }}
	s.mu.Lock()
	c := s.conn
	filter, qos, ok := s.subscribed(hub.CloudToDevice)
	if c == nil || !ok {
		s.mu.Unlock()
		return hub.Reply{}, fmt.Errorf("message to %s: %w", s.device, hub.ErrUnknown)
	}
	m.topic = strings.TrimSuffix(filter, "#") + string(addressed(s.device, cmd.Props))
	if len(m.topic) > 0xffff || len(cmd.Body) > wire.MaxMessage {
		s.mu.Unlock()
		return hub.Reply{}, fmt.Errorf("message to %s: too large: %w", s.device, hub.ErrBad)
	}
	if qos == 0 {
		s.mu.Unlock()
		return hub.Reply{Status: 200}, c.tell(m.topic, m.body)
	}
	s.put(&delivery{m: m, qos: 1})
	s.mu.Unlock()
	select {
	case <-acked:
		return hub.Reply{Status: 200}, nil
	case <-ctx.Done():
		return hub.Reply{}, fmt.Errorf("message to %s: %w", s.device, hub.ErrTimeout)
	case <-c.ctx.Done():
		return hub.Reply{}, fmt.Errorf("message to %s: %w", s.device, errLeft)
	}
}

// addressed makes sure of one system property at least: some SDKs refuse a
// message without.
func addressed(id hub.Identity, props wire.Bag) wire.Bag {
	for k := range props.All() {
		if strings.HasPrefix(k, "$.") {
			return props
		}
	}
	to := "/" + strings.TrimSuffix(wire.DeviceboundTopic(id.Device(), id.Module(), ""), "/")
	return props.With(wire.To, to)
}

// twin answers a twin request: twins are not offered yet, and an SDK that gets no
// answer would wait for minutes.
func (c *conn) twin(p *publication, topic string) {
	rid, err := twinRequest(topic)
	if err != nil {
		c.refuse(p, cause{"bad topic", codeTopicInvalid, err})
		return
	}
	s := c.session
	s.mu.Lock()
	_, listens := s.subs[wire.TwinFilter]
	s.mu.Unlock()
	c.settle(p, 0)
	c.release()
	if rid == "" || !listens {
		return
	}
	body, err := json.Marshal(twinError{501000, "twins are not offered by this gateway yet", c.id + "-" + rid, time.Now().UTC().Format(time.RFC3339)})
	if err == nil {
		err = c.tell("$iothub/twin/res/501/?$rid="+rid, body)
	}
	if err != nil {
		c.hangUp(cause{"bad topic", codeTopicInvalid, err})
	}
}

// twinError is the body in which IoT Hub says what went wrong; Node's SDK looks
// at nothing else.
type twinError struct {
	ErrorCode    int    `json:"errorCode"`
	Message      string `json:"message"`
	TrackingID   string `json:"trackingId"`
	TimestampUTC string `json:"timestampUtc"`
}

func twinRequest(topic string) (rid string, err error) {
	query, get := strings.CutPrefix(topic, "$iothub/twin/GET/?")
	if !get {
		var patch bool
		if query, patch = strings.CutPrefix(topic, "$iothub/twin/PATCH/properties/reported/?"); !patch {
			return "", fmt.Errorf("topic %q is not a twin request", topic)
		}
	}
	for pair := range strings.SplitSeq(query, "&") {
		if v, ok := strings.CutPrefix(pair, "$rid="); ok && v != "" {
			return v, nil
		}
	}
	if get {
		return "", errors.New("twin request: $rid is missing")
	}
	return "", nil // a patch without one wants no answer
}
