package hubtest

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"holdfast.dev/holdfast/hub/wire"
)

// session is what the hub keeps for an identity between its connections: the
// filters of a client that came with clean=0, and cloud-to-device messages.
type session struct {
	filters map[string]byte // granted QoS by filter
	stored  bool            // filters outlive the connection
	letters []*letter       // not yet acknowledged by the device, oldest first
}

// letter is one cloud-to-device message.
type letter struct {
	bag  wire.Bag
	body []byte
	sent bool          // once at least: the next time it is a repeat
	done chan struct{} // closed when the device has it
}

// maxLetters is how many cloud-to-device messages wait for one device, as in IoT Hub.
const maxLetters = 50

// session of id, made if there is none. h.mu is held.
func (h *Hub) session(id string) *session {
	s := h.sessions[id]
	if s == nil {
		s = &session{filters: map[string]byte{}}
		h.sessions[id] = s
	}
	return s
}

// begin starts a connection and says whether a session was present.
func (s *session) begin(clean bool) (present bool) {
	present = s.stored && !clean
	if !present {
		s.filters = map[string]byte{}
	}
	s.stored = !clean
	return present
}

// handOut sends the letters that wait, if the client has subscribed to them.
func (c *client) handOut() {
	c.deliver.Lock()
	defer c.deliver.Unlock()
	h := c.h
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.clients[c.from.id] != c {
		return
	}
	s := h.session(c.from.id)
	qos, ok := s.filters[wire.DeviceboundFilter(c.from.device, c.from.module)]
	if !ok {
		return
	}
	underWay := map[*letter]bool{}
	for _, l := range c.posted {
		underWay[l] = true
	}
	for _, l := range slices.Clone(s.letters) {
		if underWay[l] {
			continue
		}
		topic := wire.DeviceboundTopic(c.from.device, c.from.module, l.bag)
		if qos == 0 { // IoT Hub, too, takes sending as the end of it then
			c.write(publish(topic, 0, 0, false, l.body))
			s.done(l)
			continue
		}
		id := c.packetID()
		c.posted[id] = l
		c.write(publish(topic, 1, id, l.sent, l.body))
		l.sent = true
	}
}

// packetID gives one that is not under way. h.mu is held.
func (c *client) packetID() uint16 {
	for {
		c.nextID++
		if _, taken := c.posted[c.nextID]; c.nextID != 0 && !taken {
			return c.nextID
		}
	}
}

// done takes a letter out of the queue. h.mu is held.
func (s *session) done(l *letter) {
	if i := slices.Index(s.letters, l); i >= 0 {
		s.letters = slices.Delete(s.letters, i, i+1)
		close(l.done)
	}
}

// acknowledged handles a PUBACK of the device.
func (c *client) acknowledged(id uint16) {
	c.h.mu.Lock()
	defer c.h.mu.Unlock()
	if l, ok := c.posted[id]; ok {
		delete(c.posted, id)
		c.h.session(c.from.id).done(l)
	}
}

// Send sends a cloud-to-device message and waits until the device has acknowledged
// it. While the device is away the message waits in the hub, at most 50 for one
// device; it stays there when ctx ends first, and a device that has it may get it
// again if its acknowledgement was lost. The bag gets "$.to", which SDKs want.
func (h *Hub) Send(ctx context.Context, id string, bag wire.Bag, body []byte) error {
	l, err := h.post(id, bag, body)
	if err != nil {
		return err
	}
	select {
	case <-l.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("send to %s: not acknowledged: %w", id, ctx.Err())
	case <-h.over:
		return fmt.Errorf("send to %s: %w", id, errOver)
	}
}

// post puts a letter into the queue of id and on its way if id is connected.
func (h *Hub) post(id string, bag wire.Bag, body []byte) (*letter, error) {
	if _, ok := h.registry.get(id); !ok {
		return nil, fmt.Errorf("send to %s: %w", id, errUnknown)
	}
	device, module := wire.SplitID(id)
	if _, ok := bag.Get(wire.To); !ok {
		to := "/devices/" + device
		if module != "" {
			to += "/modules/" + module
		}
		bag = bag.With(wire.To, to+"/messages/devicebound")
	}
	l := &letter{bag: bag, body: body, done: make(chan struct{})}
	h.mu.Lock()
	s := h.session(id)
	if len(s.letters) >= maxLetters {
		h.mu.Unlock()
		return nil, fmt.Errorf("send to %s: %w", id, errQueueFull)
	}
	s.letters = append(s.letters, l)
	c := h.clients[id]
	h.mu.Unlock()
	if c != nil {
		c.handOut()
	}
	return l, nil
}

// Connections are the MQTT clients that are connected, by identity.
func (h *Hub) Connections() []Connection {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := []Connection{}
	for _, id := range slices.Sorted(maps.Keys(h.clients)) {
		c := h.clients[id]
		out = append(out, Connection{
			ID: id, Via: c.from.via, Since: c.since, Connects: h.connects[id], Transport: c.kind,
			ClientType: c.user.ClientType, Filters: slices.Sorted(maps.Keys(h.session(id).filters)),
		})
	}
	return out
}

// Connects is how many connections id has opened since New.
func (h *Hub) Connects(id string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.connects[id]
}

// Drop closes the connections of these identities, or all if none is named,
// without a word to them.
func (h *Hub) Drop(ids ...string) {
	for _, c := range h.connected() {
		if len(ids) == 0 || slices.Contains(ids, c.from.id) {
			c.close(errDropped)
		}
	}
}
