package hubtest

import (
	"cmp"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"sync"

	"holdfast.dev/holdfast/hub/wire"
)

// Device is an identity of the registry: a device or a module.
type Device struct {
	ID         string `json:"id"`                   // "device" or "device/module"
	Parent     string `json:"parent,omitempty"`     // the gateway of a device, or the parent gateway of a gateway
	Edge       bool   `json:"edge,omitempty"`       // it is a gateway: others may have it as Parent
	Disabled   bool   `json:"disabled,omitempty"`   // it may not connect, nor may those behind it
	Auth       string `json:"auth,omitempty"`       // "sas" if empty; others are kept but cannot connect
	Primary    []byte `json:"primary,omitempty"`    // key; random if nil
	Secondary  []byte `json:"secondary,omitempty"`  // key; random if nil
	Generation string `json:"generation,omitempty"` // set by the hub: tells a new device from an older one of the same id
	ETag       string `json:"etag,omitempty"`       // set by the hub at each change
	Reason     string `json:"reason,omitempty"`     // why it is disabled
	ManagedBy  string `json:"managed_by,omitempty"` // of a module
}

// hubModule is the module as which a gateway's hub connects.
const hubModule = "$edgeHub"

// scope is what others name the gateway d by in deviceScope and parentScopes.
func (d Device) scope() string { return "ms-azure-iot-edge://" + d.ID + "-" + d.Generation }

func (d Device) isModule() bool { return strings.Contains(d.ID, "/") }

// entry is a Device and its twin.
type entry struct {
	Device
	Twin twin `json:"twin"`
}

// registry is who there is. Its methods lock; entries never leave it.
type registry struct {
	mu      sync.Mutex
	entries map[string]*entry
	dirty   chan struct{} // has one element when there is something to save
}

func newRegistry() *registry {
	return &registry{entries: map[string]*entry{}, dirty: make(chan struct{}, 1)}
}

func (r *registry) touch() {
	select {
	case r.dirty <- struct{}{}:
	default:
	}
}

func (r *registry) get(id string) (Device, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e, ok := r.entries[id]
	if !ok {
		return Device{}, false
	}
	return e.Device, true
}

// list is a copy of those that keep wants, by id.
func (r *registry) list(keep func(Device) bool) []Device {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := []Device{} // an empty list is [] in JSON
	for _, e := range r.entries {
		if keep(e.Device) {
			out = append(out, e.Device)
		}
	}
	slices.SortFunc(out, func(a, b Device) int { return cmp.Compare(a.ID, b.ID) })
	return out
}

// put stores d if check agrees with what is there now, and gives what was stored.
func (r *registry) put(d Device, check func(old Device, exists bool) error) (Device, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e, exists := r.entries[d.ID]
	if !exists {
		e = &entry{Twin: newTwin()}
	}
	if check != nil {
		if err := check(e.Device, exists); err != nil {
			return Device{}, err
		}
	}
	d.complete(e.Device)
	e.Device = d
	r.entries[d.ID] = e
	device, module := wire.SplitID(d.ID)
	if _, ok := r.entries[device]; module != "" && !ok {
		r.add(Device{ID: device})
	}
	if _, ok := r.entries[d.ID+"/"+hubModule]; d.Edge && !ok {
		r.add(Device{ID: d.ID + "/" + hubModule, ManagedBy: "iotEdge"})
	}
	r.touch()
	return d, nil
}

func (r *registry) add(d Device) {
	d.complete(Device{})
	r.entries[d.ID] = &entry{Device: d, Twin: newTwin()}
}

// complete sets what the caller left open: from the older one, else anew.
func (d *Device) complete(old Device) {
	d.Generation = cmp.Or(old.Generation, digits(18))
	d.ETag = base64.StdEncoding.EncodeToString([]byte(digits(9)))
	d.Auth = cmp.Or(d.Auth, old.Auth, "sas")
	if d.Auth != "sas" {
		return
	}
	for _, k := range []struct{ key, old *[]byte }{{&d.Primary, &old.Primary}, {&d.Secondary, &old.Secondary}} {
		if *k.key == nil {
			*k.key = *k.old
		}
		if *k.key == nil {
			*k.key = randomKey()
		}
	}
}

// remove takes id away, and its modules; check may refuse.
func (r *registry) remove(id string, check func(Device) error) (gone []string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e, ok := r.entries[id]
	if !ok {
		return nil, fmt.Errorf("remove %s: %w", id, errUnknown)
	}
	if check != nil {
		if err := check(e.Device); err != nil {
			return nil, err
		}
	}
	for other := range r.entries {
		if other == id || strings.HasPrefix(other, id+"/") {
			delete(r.entries, other)
			gone = append(gone, other)
		}
	}
	r.touch()
	return gone, nil
}

func digits(n int) string {
	limit := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(n)), nil)
	v, _ := rand.Int(rand.Reader, limit) // the reader never fails
	return fmt.Sprintf("%0*d", n, v)
}

// Put registers a device or module, or changes one, and gives what was stored:
// keys that were nil are those it had, or new. The device of a module is
// registered with it, and the module "$edgeHub" with a gateway. Connections that
// the change forbids are closed. It panics on an id that IoT Hub does not allow.
func (h *Hub) Put(d Device) Device {
	if err := checkID(d.ID); err != nil {
		panic("hubtest: put: " + err.Error())
	}
	stored, _ := h.registry.put(d, nil) // nothing is checked, so nothing is refused
	h.expel()
	return stored
}

func checkID(id string) error {
	device, module := wire.SplitID(id)
	if err := wire.CheckID(device); err != nil {
		return fmt.Errorf("device %w", err)
	}
	if module != "" || strings.HasSuffix(id, "/") {
		if err := wire.CheckID(module); err != nil {
			return fmt.Errorf("module %w", err)
		}
	}
	return nil
}

// Remove takes an identity away, a device with its modules, and closes their connections.
func (h *Hub) Remove(id string) {
	gone, _ := h.registry.remove(id, nil) // one that is not there is gone already
	h.forget(gone)
}

// forget ends what removed identities still have.
func (h *Hub) forget(gone []string) {
	h.mu.Lock()
	for _, id := range gone {
		delete(h.sessions, id)
	}
	h.mu.Unlock()
	h.expel()
}

// Devices is the registry, by id.
func (h *Hub) Devices() []Device { return h.registry.list(func(Device) bool { return true }) }

// ConnectionString is what the owner of id gives to an SDK, or "" if there is no such identity.
func (h *Hub) ConnectionString(id string) string {
	d, ok := h.registry.get(id)
	if !ok {
		return ""
	}
	device, module := wire.SplitID(id)
	s := "HostName=" + h.cfg.Host + ";DeviceId=" + device
	if module != "" {
		s += ";ModuleId=" + module
	}
	return s + ";SharedAccessKey=" + base64.StdEncoding.EncodeToString(d.Primary)
}

// PolicyConnectionString is what a service SDK is given.
func (h *Hub) PolicyConnectionString() string {
	return "HostName=" + h.cfg.Host + ";SharedAccessKeyName=" + h.cfg.Policy +
		";SharedAccessKey=" + base64.StdEncoding.EncodeToString(h.cfg.PolicyKey)
}
