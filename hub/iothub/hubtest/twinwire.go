package hubtest

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"holdfast.dev/holdfast/hub/wire"
)

// Twin topics, as a device sees them.
const (
	twinGet      = "$iothub/twin/GET/"
	twinReported = "$iothub/twin/PATCH/properties/reported/"
	twinRes      = "$iothub/twin/res/"
	twinDesired  = "$iothub/twin/PATCH/properties/desired/?$version="
)

// askTwin handles a twin request of the device. A topic that is none is an error.
func (c *client) askTwin(pk *packets.Packet) error {
	switch {
	case strings.HasPrefix(pk.TopicName, twinGet):
		rid, err := requestID(pk.TopicName, twinGet)
		if err != nil || rid == "" {
			return fmt.Errorf("topic %q: want %s?$rid={token}", pk.TopicName, twinGet)
		}
		c.answerTwin(200, rid, "", c.h.twinView(c.from.id))
	case strings.HasPrefix(pk.TopicName, twinReported):
		rid, err := requestID(pk.TopicName, twinReported)
		if err != nil {
			return err
		}
		c.report(rid, pk.Payload)
	default:
		return fmt.Errorf("topic %q: a device does not publish there", pk.TopicName)
	}
	return nil
}

// requestID is the token in "{prefix}?$rid=…", exactly as it stands, or "".
func requestID(topic, prefix string) (string, error) {
	query, ok := strings.CutPrefix(strings.TrimPrefix(topic, prefix), "?")
	if !ok && topic != prefix {
		return "", fmt.Errorf("topic %q: want %s?$rid={token}", topic, prefix)
	}
	for pair := range strings.SplitSeq(query, "&") {
		if v, ok := strings.CutPrefix(pair, "$rid="); ok {
			return v, nil
		}
	}
	return "", nil
}

// report merges a reported patch. Without a rid there is no answer.
func (c *client) report(rid string, body []byte) {
	patch, err := parsePatch(body)
	if err == nil {
		var version int
		version, err = c.h.changeTwin(c.from.id, func(t *twin) int {
			t.Reported.merge(patch)
			return t.Reported.Version
		})
		if err == nil {
			c.answerTwin(204, rid, fmt.Sprintf("&$version=%d", version), nil)
			return
		}
	}
	// Node's SDK looks at the body alone to tell an error from a success.
	c.answerTwin(400, rid, "", map[string]any{
		"errorCode": 400004, "trackingId": "", "message": err.Error(),
		"timestampUtc": time.Now().UTC().Format(time.RFC3339),
	})
}

func (c *client) answerTwin(status int, rid, more string, body any) {
	c.h.mu.Lock()
	defer c.h.mu.Unlock()
	if _, ok := c.h.session(c.from.id).filters[wire.TwinFilter]; !ok || rid == "" {
		return
	}
	var text []byte
	if body != nil {
		text, _ = json.Marshal(body) // of values that came out of JSON
	}
	c.write(publish(fmt.Sprintf("%s%d/?$rid=%s%s", twinRes, status, rid, more), 0, 0, false, text))
}

// twinView is the twin as its device sees it.
func (h *Hub) twinView(id string) map[string]any {
	view := map[string]any{"desired": map[string]any{}, "reported": map[string]any{}}
	h.registry.mu.Lock()
	defer h.registry.mu.Unlock()
	if e, ok := h.registry.entries[id]; ok {
		view["desired"], view["reported"] = e.Twin.Desired.view(), e.Twin.Reported.view()
	}
	return view
}

func (h *Hub) changeTwin(id string, change func(*twin) int) (int, error) {
	h.registry.mu.Lock()
	defer h.registry.mu.Unlock()
	e, ok := h.registry.entries[id]
	if !ok {
		return 0, fmt.Errorf("change twin of %s: %w", id, errUnknown)
	}
	e.Twin.Version++
	h.registry.touch()
	return change(&e.Twin), nil
}

// Desire patches the desired properties of id (null takes a member away) and
// tells the device if it listens. It gives the new version.
func (h *Hub) Desire(id string, patch []byte) (version int, err error) {
	p, err := parsePatch(patch)
	if err != nil {
		return 0, fmt.Errorf("change twin of %s: %w", id, err)
	}
	return h.desire(id, p)
}

// desire holds the lock of the clients over the change, so that a device gets
// the patches in the order of their versions.
func (h *Hub) desire(id string, patch map[string]any) (version int, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	version, err = h.changeTwin(id, func(t *twin) int {
		t.Desired.merge(patch)
		return t.Desired.Version
	})
	if err != nil {
		return 0, err
	}
	c := h.clients[id]
	if c == nil {
		return version, nil
	}
	if _, ok := h.session(id).filters[wire.DesiredFilter]; ok {
		body := merge(nil, nil)
		for k, v := range patch { // nulls are part of what the device is told
			body[k] = v
		}
		body["$version"] = version
		text, err := json.Marshal(body)
		if err != nil {
			return version, fmt.Errorf("encode patch for %s: %w", id, err)
		}
		c.write(publish(fmt.Sprintf("%s%d", twinDesired, version), 0, 0, false, text))
	}
	return version, nil
}

// Reported is what id says of itself, as JSON with "$version", or nil if there is no such identity.
func (h *Hub) Reported(id string) []byte {
	if _, ok := h.registry.get(id); !ok {
		return nil
	}
	text, _ := json.Marshal(h.twinView(id)["reported"]) // of values that came out of JSON
	return text
}
