package hubtest

import (
	"cmp"
	"encoding/base64"
	"net/http"
	"strconv"
	"strings"
	"time"

	"holdfast.dev/holdfast/hub/wire"
)

// identity is a device or module as registry and scope calls write it.
type identity struct {
	DeviceID         string       `json:"deviceId"`
	ModuleID         string       `json:"moduleId,omitempty"`
	ManagedBy        string       `json:"managedBy,omitempty"`
	GenerationID     string       `json:"generationId"`
	ETag             string       `json:"etag"`
	ConnectionState  string       `json:"connectionState"`
	Status           string       `json:"status,omitempty"` // a module has none
	StatusReason     string       `json:"statusReason,omitempty"`
	ConnectionTime   string       `json:"connectionStateUpdatedTime"`
	StatusTime       string       `json:"statusUpdatedTime,omitempty"`
	LastActivityTime string       `json:"lastActivityTime"`
	Letters          int          `json:"cloudToDeviceMessageCount"`
	Authentication   *credentials `json:"authentication,omitempty"`
	Capabilities     *abilities   `json:"capabilities,omitempty"`
	DeviceScope      string       `json:"deviceScope,omitempty"`
	ParentScopes     []string     `json:"parentScopes,omitempty"`
}

func (i identity) etag() string { return i.ETag }

type abilities struct {
	IotEdge bool `json:"iotEdge"`
}

type credentials struct {
	Type         string `json:"type"`
	SymmetricKey struct {
		Primary   *string `json:"primaryKey"`
		Secondary *string `json:"secondaryKey"`
	} `json:"symmetricKey"`
	Thumbprint struct {
		Primary   *string `json:"primaryThumbprint"`
		Secondary *string `json:"secondaryThumbprint"`
	} `json:"x509Thumbprint"`
}

// never is the time of what has not happened, as IoT Hub writes it.
const never = "0001-01-01T00:00:00Z"

// identity writes d as the service sees it.
func (h *Hub) identity(d Device) identity {
	device, module := wire.SplitID(d.ID)
	i := identity{
		DeviceID: device, ModuleID: module, ManagedBy: d.ManagedBy, GenerationID: d.Generation, ETag: d.ETag,
		ConnectionState: "Disconnected", ConnectionTime: never, LastActivityTime: never,
	}
	h.mu.Lock()
	if c := h.clients[d.ID]; c != nil {
		i.ConnectionState, i.ConnectionTime = "Connected", c.since.UTC().Format(time.RFC3339Nano)
	}
	if s := h.sessions[d.ID]; s != nil {
		i.Letters = len(s.letters)
	}
	h.mu.Unlock()
	i.Authentication = &credentials{Type: d.Auth}
	i.Authentication.SymmetricKey.Primary = encodeKey(d.Primary)
	i.Authentication.SymmetricKey.Secondary = encodeKey(d.Secondary)
	if module != "" {
		return i
	}
	i.Status, i.StatusReason, i.StatusTime = "enabled", d.Reason, never
	if d.Disabled {
		i.Status = "disabled"
	}
	i.Capabilities = &abilities{d.Edge}
	if parent, ok := h.registry.get(d.Parent); ok && d.Parent != "" {
		i.DeviceScope, i.ParentScopes = parent.scope(), []string{parent.scope()}
	}
	if d.Edge {
		i.DeviceScope = d.scope()
	}
	return i
}

func encodeKey(key []byte) *string {
	if len(key) == 0 {
		return nil
	}
	s := base64.StdEncoding.EncodeToString(key)
	return &s
}

// device reads a request's identity into a Device of the given id. What the
// request leaves out is as in old.
func (h *Hub) device(id string, i identity, old Device) (Device, error) {
	d := old
	d.ID, d.Reason, d.ManagedBy = id, i.StatusReason, cmp.Or(i.ManagedBy, old.ManagedBy)
	if device, module := wire.SplitID(id); i.DeviceID != "" && i.DeviceID != device || i.ModuleID != "" && i.ModuleID != module {
		return d, badRequest("body is of %s, path of %s", wire.JoinID(i.DeviceID, i.ModuleID), id)
	}
	switch i.Status {
	case "":
	case "enabled", "disabled":
		d.Disabled = i.Status == "disabled"
	default:
		return d, badRequest("status %q: want enabled or disabled", i.Status)
	}
	if i.Capabilities != nil {
		d.Edge = i.Capabilities.IotEdge
	}
	if err := readCredentials(&d, i.Authentication); err != nil {
		return d, err
	}
	return d, h.readParent(&d, i)
}

func readCredentials(d *Device, c *credentials) error {
	if c == nil {
		return nil
	}
	d.Auth = cmp.Or(c.Type, d.Auth)
	for _, k := range []struct {
		text *string
		key  *[]byte
	}{{c.SymmetricKey.Primary, &d.Primary}, {c.SymmetricKey.Secondary, &d.Secondary}} {
		if k.text == nil || *k.text == "" {
			continue
		}
		key, err := wire.DecodeKey(*k.text)
		if err != nil {
			return badRequest("symmetric %v", err)
		}
		*k.key = key
	}
	return nil
}

// readParent takes the parent from parentScopes, or for a leaf from deviceScope:
// either names the gateway with its generation.
func (h *Hub) readParent(d *Device, i identity) error {
	scope := i.DeviceScope
	if d.Edge { // its deviceScope is its own
		scope = ""
	}
	if len(i.ParentScopes) > 0 {
		scope = i.ParentScopes[0]
	}
	if scope == "" {
		return nil
	}
	for _, g := range h.registry.list(func(g Device) bool { return g.Edge }) {
		if g.scope() == scope && g.ID != d.ID {
			d.Parent = g.ID
			return nil
		}
	}
	return badRequest("scope %q is not that of a gateway", scope)
}

func (h *Hub) registryRoutes(mux *http.ServeMux) {
	for _, path := range []string{"/devices/{device}", "/devices/{device}/modules/{module}"} {
		mux.HandleFunc("GET "+path, h.service(h.getIdentity))
		mux.HandleFunc("PUT "+path, h.service(h.putIdentity))
		mux.HandleFunc("DELETE "+path, h.service(h.deleteIdentity))
	}
	for _, path := range []string{"/devices", "/devices/{$}"} {
		mux.HandleFunc("GET "+path, h.service(h.listDevices))
		mux.HandleFunc("POST "+path, h.service(h.bulk))
	}
	mux.HandleFunc("GET /devices/{device}/modules", h.service(h.listModules))
	mux.HandleFunc("GET /statistics/devices", h.service(h.statistics))
}

func (h *Hub) getIdentity(r *http.Request) (any, error) {
	id, err := target(r)
	if err != nil {
		return nil, err
	}
	d, ok := h.registry.get(id)
	if !ok {
		return nil, notFound(id)
	}
	return h.identity(d), nil
}

// putIdentity creates without If-Match and updates with it.
func (h *Hub) putIdentity(r *http.Request) (any, error) {
	id, err := target(r)
	if err != nil {
		return nil, err
	}
	var i identity
	if err := read(r, &i); err != nil {
		return nil, err
	}
	d, err := h.write(id, i, r.Header.Get("If-Match"))
	if err != nil {
		return nil, err
	}
	return h.identity(d), nil
}

func (h *Hub) write(id string, i identity, ifMatch string) (Device, error) {
	old, _ := h.registry.get(id)
	d, err := h.device(id, i, old)
	if err != nil {
		return d, err
	}
	d, err = h.registry.put(d, func(now Device, exists bool) error {
		switch {
		case ifMatch == "" && exists:
			return &problem{http.StatusConflict, alreadyExists(id), id + " is registered already"}
		case ifMatch != "" && !exists:
			return notFound(id)
		case now.ETag != old.ETag: // changed since it was read
			return &problem{http.StatusPreconditionFailed, "PreconditionFailed", id + " has changed meanwhile"}
		}
		return match(ifMatch, now.ETag)
	})
	if err == nil {
		h.expel()
	}
	return d, err
}

func alreadyExists(id string) string {
	if strings.Contains(id, "/") {
		return "ModuleAlreadyExistsOnDevice"
	}
	return "DeviceAlreadyExists"
}

func (h *Hub) deleteIdentity(r *http.Request) (any, error) {
	id, err := target(r)
	if err != nil {
		return nil, err
	}
	return nil, h.erase(id, r.Header.Get("If-Match"))
}

func (h *Hub) erase(id, ifMatch string) error {
	if _, ok := h.registry.get(id); !ok {
		return notFound(id)
	}
	gone, err := h.registry.remove(id, func(d Device) error { return match(ifMatch, d.ETag) })
	if err != nil {
		return err
	}
	h.forget(gone)
	return nil
}

// listDevices gives devices alone; "top" bounds their number, 1000 at most.
func (h *Hub) listDevices(r *http.Request) (any, error) {
	top := 1000
	if s := r.URL.Query().Get("top"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 {
			return nil, badRequest("top %q: want a number from 1", s)
		}
		top = min(top, n)
	}
	devices := h.registry.list(func(d Device) bool { return !d.isModule() })
	return h.identities(devices[:min(top, len(devices))]), nil
}

func (h *Hub) listModules(r *http.Request) (any, error) {
	device := r.PathValue("device")
	if _, ok := h.registry.get(device); !ok {
		return nil, notFound(device)
	}
	return h.identities(h.modulesOf(device)), nil
}

func (h *Hub) modulesOf(device string) []Device {
	return h.registry.list(func(d Device) bool { return strings.HasPrefix(d.ID, device+"/") })
}

func (h *Hub) identities(devices []Device) []identity {
	out := make([]identity, 0, len(devices))
	for _, d := range devices {
		out = append(out, h.identity(d))
	}
	return out
}

func (h *Hub) statistics(*http.Request) (any, error) {
	n := map[string]int{"totalDeviceCount": 0, "enabledDeviceCount": 0, "disabledDeviceCount": 0}
	for _, d := range h.registry.list(func(d Device) bool { return !d.isModule() }) {
		n["totalDeviceCount"]++
		if d.Disabled {
			n["disabledDeviceCount"]++
		} else {
			n["enabledDeviceCount"]++
		}
	}
	return n, nil
}
