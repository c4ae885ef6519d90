package hubtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strconv"
	"time"

	"holdfast.dev/holdfast/hub/wire"
)

func (h *Hub) twinRoutes(mux *http.ServeMux) {
	for _, path := range []string{"/twins/{device}", "/twins/{device}/modules/{module}"} {
		mux.HandleFunc("GET "+path, h.service(h.getTwin))
		mux.HandleFunc("PATCH "+path, h.service(h.patchTwin))
		mux.HandleFunc("PUT "+path, h.service(h.replaceTwin))
		mux.HandleFunc("POST "+path+"/methods", h.service(h.invoke))
	}
}

// document is a twin as services see it.
type document map[string]any

func (d document) etag() string { s, _ := d["etag"].(string); return s }

func (h *Hub) document(id string) (document, error) {
	d, ok := h.registry.get(id)
	if !ok {
		return nil, notFound(id)
	}
	i := h.identity(d)
	doc := document{
		"deviceId": i.DeviceID, "deviceEtag": d.ETag, "status": i.Status, "connectionState": i.ConnectionState,
		"lastActivityTime": i.LastActivityTime, "cloudToDeviceMessageCount": i.Letters, "authenticationType": d.Auth,
		"x509Thumbprint": map[string]any{"primaryThumbprint": nil, "secondaryThumbprint": nil},
	}
	if i.ModuleID != "" {
		doc["moduleId"] = i.ModuleID
		delete(doc, "status")
	} else {
		doc["capabilities"], doc["deviceScope"], doc["parentScopes"] = i.Capabilities, i.DeviceScope, i.ParentScopes
	}
	h.registry.mu.Lock()
	defer h.registry.mu.Unlock()
	e, ok := h.registry.entries[id]
	if !ok {
		return nil, notFound(id)
	}
	t := &e.Twin
	doc["etag"], doc["version"], doc["tags"] = t.etag(), t.Version, maps.Clone(t.Tags)
	doc["properties"] = map[string]any{"desired": t.Desired.metadata(), "reported": t.Reported.metadata()}
	return doc, nil
}

// etag of what services may change.
func (t *twin) etag() string { return strconv.Itoa(t.Version) }

func (h *Hub) getTwin(r *http.Request) (any, error) {
	id, err := target(r)
	if err != nil {
		return nil, err
	}
	doc, err := h.document(id)
	if err != nil {
		return nil, err
	}
	return doc, nil
}

// change is the body of PATCH and PUT.
type change struct {
	Tags       map[string]any `json:"tags"`
	Properties struct {
		Desired json.RawMessage `json:"desired"`
	} `json:"properties"`
}

func (h *Hub) patchTwin(r *http.Request) (any, error) {
	return h.alterTwin(r, func(_, patch map[string]any) map[string]any { return patch })
}

// replaceTwin is a patch that also takes away what the new value does not have.
func (h *Hub) replaceTwin(r *http.Request) (any, error) {
	return h.alterTwin(r, func(old, value map[string]any) map[string]any {
		patch := map[string]any{}
		for k := range old {
			patch[k] = nil
		}
		maps.Copy(patch, value)
		return patch
	})
}

func (h *Hub) alterTwin(r *http.Request, patchOf func(old, given map[string]any) map[string]any) (any, error) {
	id, err := target(r)
	if err != nil {
		return nil, err
	}
	var c change
	if err := read(r, &c); err != nil {
		return nil, err
	}
	doc, err := h.document(id)
	if err != nil {
		return nil, err
	}
	if err := match(r.Header.Get("If-Match"), doc.etag()); err != nil {
		return nil, err
	}
	if c.Properties.Desired != nil {
		given, err := parsePatch(stripService(c.Properties.Desired))
		if err != nil {
			return nil, badRequest("%v", err)
		}
		old := doc["properties"].(map[string]any)["desired"].(map[string]any)
		delete(old, "$version")
		delete(old, "$metadata")
		if _, err := h.desire(id, patchOf(old, given)); err != nil {
			return nil, err
		}
	}
	if c.Tags != nil {
		patch := patchOf(doc["tags"].(map[string]any), c.Tags)
		if _, err := h.changeTwin(id, func(t *twin) int { t.Tags = merge(t.Tags, patch); return 0 }); err != nil {
			return nil, err
		}
	}
	return h.getTwin(r)
}

// stripService leaves out what services send back to us as they got it.
func stripService(text json.RawMessage) json.RawMessage {
	var m map[string]json.RawMessage
	if json.Unmarshal(text, &m) != nil || m == nil {
		return text
	}
	delete(m, "$version")
	delete(m, "$metadata")
	out, _ := json.Marshal(m) // of raw JSON
	return out
}

// invocation is the body of a method call; times are in seconds.
type invocation struct {
	Method  string          `json:"methodName"`
	Wait    *int            `json:"responseTimeoutInSeconds"` // 5 to 300, 30 if not given
	Connect int             `json:"connectTimeoutInSeconds"`  // 0 to 300
	Payload json.RawMessage `json:"payload"`
}

func (h *Hub) invoke(r *http.Request) (any, error) {
	id, err := target(r)
	if err != nil {
		return nil, err
	}
	var v invocation
	if err := read(r, &v); err != nil {
		return nil, err
	}
	wait := 30
	if v.Wait != nil {
		wait = *v.Wait
	}
	switch {
	case v.Method == "" || len(v.Method) > 100:
		return nil, badRequest("methodName has %d characters, 1 to 100 are allowed", len(v.Method))
	case wait < 5 || wait > 300:
		return nil, badRequest("responseTimeoutInSeconds is %d, 5 to 300 are allowed", wait)
	case v.Connect < 0 || v.Connect > 300:
		return nil, badRequest("connectTimeoutInSeconds is %d, 0 to 300 are allowed", v.Connect)
	case len(v.Payload) > wire.MaxMethod:
		return nil, badRequest("payload has %d bytes, at most %d are allowed", len(v.Payload), wire.MaxMethod)
	}
	return h.invokeWithin(r.Context(), id, v, time.Duration(wait)*time.Second)
}

func (h *Hub) invokeWithin(ctx context.Context, id string, v invocation, wait time.Duration) (any, error) {
	if v.Connect > 0 {
		early, cancel := context.WithTimeout(ctx, time.Duration(v.Connect)*time.Second)
		h.waitFor(early, id) // if not, Invoke says so
		cancel()
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	status, body, err := h.Invoke(ctx, id, v.Method, v.Payload)
	switch {
	case errors.Is(err, errUnknown):
		return nil, notFound(id)
	case errors.Is(err, errOffline):
		return nil, inner(http.StatusNotFound, "DeviceNotOnline", 404103, "Timed out waiting for device to connect.")
	case err != nil:
		return nil, inner(http.StatusGatewayTimeout, "GatewayTimeout", 504101, "Timed out waiting for the response from device.")
	}
	var payload json.RawMessage // null in JSON
	if len(body) > 0 {
		if !json.Valid(body) {
			return nil, &problem{http.StatusBadGateway, "InvalidResponse", "the device's answer is not JSON"}
		}
		payload = body
	}
	return map[string]any{"status": status, "payload": payload}, nil
}

// inner is an error that carries another one in its text, as method calls do.
func inner(status int, code string, number int, text string) error {
	return &problem{status, code, fmt.Sprintf(`{"errorCode":%d,"trackingId":"","message":%q,"timestampUtc":%q}`,
		number, text, time.Now().UTC().Format(time.RFC3339))}
}
