package hubtest

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"holdfast.dev/holdfast/hub/wire"
)

// The scope calls: what a gateway asks about those behind it.
//
//	POST …/devicesAndModulesInTargetDeviceScope   all, page by page
//	POST …/getDeviceAndModuleOnBehalfOf           one
//	GET  …/devicesAndModulesInDeviceScope         all, the older form
//	GET  …/deviceAndModuleInDeviceScope           one, the older form
func (h *Hub) scopeRoutes(mux *http.ServeMux) {
	const prefix = "/devices/{device}/modules/{module}/"
	mux.HandleFunc("POST "+prefix+"devicesAndModulesInTargetDeviceScope", h.gateway(h.scopeByChain))
	mux.HandleFunc("POST "+prefix+"getDeviceAndModuleOnBehalfOf", h.gateway(h.oneByChain))
	mux.HandleFunc("GET "+prefix+"devicesAndModulesInDeviceScope", h.gateway(h.scopeOfActor))
	mux.HandleFunc("GET "+prefix+"deviceAndModuleInDeviceScope", h.gateway(h.oneOfActor))
}

// scopePage is the answer of all four.
type scopePage struct {
	Devices []identity `json:"devices"`
	Modules []identity `json:"modules"`
	Next    *string    `json:"continuationLink"`
}

// scopeCall is a scope call of the gateway actor.
type scopeCall func(actor string, r *http.Request) (any, error)

// gateway makes a handler of f for a gateway's "$edgeHub". The error bodies are
// those of the real service.
func (h *Hub) gateway(f scopeCall) http.HandlerFunc {
	return respond(func(r *http.Request) (any, error) {
		if status := h.faults.get().RegistryStatus; status != 0 {
			return nil, &problem{status, "ServiceUnavailable", "this status was asked for"}
		}
		actor := r.PathValue("device")
		err := h.enabled(actor)
		switch d, _ := h.registry.get(actor); {
		case err != nil:
		case !d.Edge || r.PathValue("module") != hubModule:
			err = fmt.Errorf("%s/%s is not the hub of a gateway", actor, r.PathValue("module"))
		default:
			_, err = h.checkToken(r.Header.Get("Authorization"), actor+"/"+hubModule)
		}
		if err != nil {
			return nil, &problem{http.StatusUnauthorized, "IotHubUnauthorizedAccess", err.Error()}
		}
		return f(actor, r)
	})
}

// scopeRequest is the body of the POSTs.
type scopeRequest struct {
	PageSize     int    `json:"pageSize"`
	Continuation string `json:"continuationLink"`
	AuthChain    string `json:"authChain"` // "{target};…;{root}"
	Device       string `json:"targetDeviceId"`
	Module       string `json:"targetModuleId"`
}

func (h *Hub) scopeByChain(actor string, r *http.Request) (any, error) {
	var q scopeRequest
	if err := read(r, &q); err != nil {
		return nil, err
	}
	chain := strings.Split(q.AuthChain, ";")
	if err := h.inChain(actor, chain); err != nil {
		return nil, err
	}
	page, next := h.scope(chain[0], q.PageSize, q.Continuation)
	if next != "" {
		page.Next = &next
	}
	return page, nil
}

func (h *Hub) oneByChain(actor string, r *http.Request) (any, error) {
	var q scopeRequest
	if err := read(r, &q); err != nil {
		return nil, err
	}
	id := wire.JoinID(q.Device, q.Module)
	if _, ok := h.registry.get(id); !ok {
		return nil, notFound(id)
	}
	if err := h.inChain(actor, chainTo(id, strings.Split(q.AuthChain, ";"))); err != nil {
		return nil, err
	}
	return h.one(id)
}

// chainTo is the chain from id up. IoT Edge's hub sends that of the gateway which
// id is behind, others begin with id itself.
func chainTo(id string, chain []string) []string {
	if chain[0] == id {
		return chain
	}
	below := []string{id}
	if device, module := wire.SplitID(id); module != "" && device != chain[0] {
		below = append(below, device)
	}
	return append(below, chain...)
}

// inChain checks that the chain is true and that the actor is part of it.
func (h *Hub) inChain(actor string, chain []string) error {
	err := h.checkChain(chain[0], chain)
	if err == nil && !slices.Contains(chain, actor) {
		err = fmt.Errorf("authChain does not hold %s", actor)
	}
	if err != nil {
		return &problem{http.StatusForbidden, "IotHubUnauthorizedAccess", err.Error()}
	}
	return nil
}

func (h *Hub) scopeOfActor(actor string, r *http.Request) (any, error) {
	q := r.URL.Query()
	size := 0
	if s := q.Get("deviceCount"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			return nil, badRequest("deviceCount %q: want a number", s)
		}
		size = n
	}
	page, next := h.scope(actor, size, q.Get("continuationToken"))
	if next != "" { // the older form is followed as it stands
		q.Set("continuationToken", next)
		link := (&url.URL{Path: r.URL.Path, RawQuery: q.Encode()}).String()
		page.Next = &link
	}
	return page, nil
}

func (h *Hub) oneOfActor(actor string, r *http.Request) (any, error) {
	q := r.URL.Query()
	id := wire.JoinID(q.Get("targetDeviceId"), q.Get("targetModuleId"))
	d, ok := h.registry.get(id)
	if !ok {
		return nil, notFound(id)
	}
	device, _ := wire.SplitID(d.ID)
	if device != actor && h.parent(device) != actor {
		return nil, &problem{http.StatusForbidden, "IotHubUnauthorizedAccess", id + " is not behind " + actor}
	}
	return h.one(id)
}

// one is a single device, or a module and its device.
func (h *Hub) one(id string) (any, error) {
	device, module := wire.SplitID(id)
	page := scopePage{Devices: []identity{}, Modules: []identity{}}
	for _, id := range slices.Compact([]string{device, wire.JoinID(device, module)}) {
		d, ok := h.registry.get(id)
		if !ok {
			return nil, notFound(id)
		}
		page.add(h.identity(d))
	}
	return page, nil
}

func (p *scopePage) add(i identity) {
	if i.ModuleID != "" {
		p.Modules = append(p.Modules, i)
	} else {
		p.Devices = append(p.Devices, i)
	}
}

// maxPage is how many devices a page has at most, and if nothing is said.
const maxPage = 100

// scope is a page of what is behind a gateway: itself and its children, by id,
// each with its modules; not those of a child gateway, which asks for its own.
// next is the id to go on from, or "".
func (h *Hub) scope(gateway string, size int, from string) (page scopePage, next string) {
	if size <= 0 || size > maxPage {
		size = maxPage
	}
	page = scopePage{Devices: []identity{}, Modules: []identity{}}
	devices := h.registry.list(func(d Device) bool {
		return !d.isModule() && (d.ID == gateway || d.Parent == gateway) && d.ID >= from
	})
	if len(devices) > size {
		devices, next = devices[:size], devices[size].ID
	}
	for _, d := range devices {
		page.add(h.identity(d))
		if d.Edge && d.ID != gateway {
			continue
		}
		for _, m := range h.modulesOf(d.ID) {
			page.add(h.identity(m))
		}
	}
	return page, next
}
