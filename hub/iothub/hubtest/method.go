package hubtest

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/mochi-mqtt/server/v2/packets"

	"holdfast.dev/holdfast/hub/wire"
)

// Why a call to a device, or to the registry, did not come about.
var (
	errUnknown   = errors.New("no such identity")
	errOffline   = errors.New("device is not online")
	errTimeout   = errors.New("device has not answered in time")
	errQueueFull = errors.New("50 messages wait already")
	errDropped   = errors.New("connection was dropped on request")
	errOver      = errors.New("hub has ended")
)

// call is a direct method that waits for its answer.
type call struct {
	id    string
	reply chan reply // one element
}

type reply struct {
	status int
	body   []byte
}

// Invoke calls a direct method and gives the device's answer. It fails at once if
// the device is not connected or does not listen for methods, and when ctx ends.
func (h *Hub) Invoke(ctx context.Context, id, method string, payload []byte) (status int, body []byte, err error) {
	if _, ok := h.registry.get(id); !ok {
		return 0, nil, fmt.Errorf("invoke %s on %s: %w", method, id, errUnknown)
	}
	rid, reply := h.calls.open(id)
	defer h.calls.close(rid)
	gone, err := h.callOut(id, wire.MethodTopic(url.PathEscape(method), rid), payload)
	if err != nil {
		return 0, nil, fmt.Errorf("invoke %s on %s: %w", method, id, err)
	}
	select {
	case r := <-reply:
		return r.status, r.body, nil
	case <-ctx.Done():
		return 0, nil, fmt.Errorf("invoke %s on %s: %w: %w", method, id, errTimeout, ctx.Err())
	case <-gone:
		return 0, nil, fmt.Errorf("invoke %s on %s: %w: it has disconnected", method, id, errTimeout)
	case <-h.over:
		return 0, nil, fmt.Errorf("invoke %s on %s: %w", method, id, errOver)
	}
}

// callOut sends the request; gone is closed when that connection ends.
func (h *Hub) callOut(id, topic string, payload []byte) (gone <-chan struct{}, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	c := h.clients[id]
	if c == nil {
		return nil, errOffline
	}
	if _, ok := h.session(id).filters[wire.MethodFilter]; !ok {
		return nil, fmt.Errorf("%w: it does not listen for methods", errOffline)
	}
	c.write(publish(topic, 0, 0, false, payload)) // never queued, so never at QoS 1
	return c.ctx.Done(), nil
}

// waitFor waits until id listens for methods; false when ctx ended first.
func (h *Hub) waitFor(ctx context.Context, id string) bool {
	for {
		h.mu.Lock()
		_, ok := h.session(id).filters[wire.MethodFilter]
		ok = ok && h.clients[id] != nil
		if h.arrived == nil {
			h.arrived = make(chan struct{})
		}
		arrived := h.arrived
		h.mu.Unlock()
		if ok {
			return true
		}
		select {
		case <-arrived:
		case <-ctx.Done():
			return false
		}
	}
}

// replied handles a device's answer. One that nobody waits for is not an error:
// the caller's time was over.
func (c *client) replied(pk *packets.Packet) error {
	status, rid, err := wire.ParseMethodReply(pk.TopicName)
	if err != nil {
		return err
	}
	c.h.calls.answer(c.from.id, strings.ToLower(rid), reply{status, pk.Payload})
	return nil
}
