package hubtest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"holdfast.dev/holdfast/hub/wire"
)

// controls are the calls with which a test or an operator looks and meddles:
//
//	GET  /sim/messages?after=N     telemetry with n > N, JSON Lines
//	GET  /sim/state                counters, faults, connections
//	GET  /sim/faults               those in force
//	PUT  /sim/faults               replaces them; {} lifts all
//	POST /sim/c2d/{id}?wait=10s    a cloud-to-device message; its properties are a bag in "props"
//	POST /sim/drop/{id}            closes the identity's connection
//
// An id with a slash in it is one path segment: device%2Fmodule.
func (h *Hub) controls() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /sim/messages", h.simMessages)
	mux.HandleFunc("GET /sim/state", respond(h.simState))
	mux.HandleFunc("GET /sim/faults", respond(func(*http.Request) (any, error) { return h.Faults(), nil }))
	mux.HandleFunc("PUT /sim/faults", respond(h.simFault))
	mux.HandleFunc("POST /sim/c2d/{id}", h.simSend)
	mux.HandleFunc("POST /sim/drop/{id}", respond(func(r *http.Request) (any, error) {
		h.Drop(r.PathValue("id"))
		return nil, nil
	}))
	return mux
}

// simMessages writes what there is when it is asked, a batch at a time: the whole
// list may be large.
func (h *Hub) simMessages(w http.ResponseWriter, r *http.Request) {
	after := 0
	if s := r.URL.Query().Get("after"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 0 {
			fail(w, badRequest("after %q: want a number from 0", s))
			return
		}
		after = n
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	out := json.NewEncoder(w)
	for end := h.Count(); after < end; {
		batch := h.messages.after(after, min(1000, end-after))
		for _, m := range batch {
			if out.Encode(m) != nil {
				return // who asked has gone
			}
		}
		after += len(batch)
	}
}

// simStateBody is the answer of GET /sim/state.
type simStateBody struct {
	Host        string       `json:"host"`
	MQTT        string       `json:"mqtt"`
	HTTPS       string       `json:"https"`
	Messages    int          `json:"messages"`
	Devices     int          `json:"devices"`
	Connections []Connection `json:"connections"`
	Faults      Faults       `json:"faults"`
}

func (h *Hub) simState(*http.Request) (any, error) {
	return simStateBody{
		Host: h.cfg.Host, MQTT: h.MQTTAddr(), HTTPS: h.HTTPSAddr(), Messages: h.Count(),
		Devices:     len(h.registry.list(func(d Device) bool { return !d.isModule() })),
		Connections: h.Connections(), Faults: h.Faults(),
	}, nil
}

func (h *Hub) simFault(r *http.Request) (any, error) {
	var f Faults
	if err := read(r, &f); err != nil {
		return nil, err
	}
	h.Fault(f)
	return f, nil
}

// simSend answers 200 when the device has acknowledged the message within the
// time of "wait", 202 when it waits for the device.
func (h *Hub) simSend(w http.ResponseWriter, r *http.Request) {
	wait, err := time.Duration(0), error(nil)
	if s := r.URL.Query().Get("wait"); s != "" {
		if wait, err = time.ParseDuration(s); err != nil {
			fail(w, badRequest("wait %q: want a duration as 10s", s))
			return
		}
	}
	bag, err := wire.ParseBag(r.URL.Query().Get("props"))
	if err != nil {
		fail(w, badRequest("props: %v", err))
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, wire.MaxMessage))
	if err != nil {
		fail(w, badRequest("read body: %v", err))
		return
	}
	id := r.PathValue("id")
	l, err := h.post(id, bag, body)
	switch {
	case errors.Is(err, errUnknown):
		fail(w, notFound(id))
		return
	case err != nil:
		fail(w, &problem{http.StatusForbidden, "DeviceMaximumQueueDepthExceeded", fmt.Sprint(err)})
		return
	}
	status := http.StatusAccepted
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-l.done:
		status = http.StatusOK
	case <-timer.C:
	case <-r.Context().Done():
	}
	answer(w, status, map[string]bool{"acknowledged": status == http.StatusOK})
}
