package hubtest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// Faults is how the hub misbehaves. The zero value is no fault; they combine.
// Faults of PUBACKs concern telemetry alone, not twin or method traffic. None
// touches the control listener.
type Faults struct {
	// Down closes the listening sockets and drops every connection, so that new
	// ones are refused. Lifting it listens again on the same ports.
	Down bool `json:"down,omitempty"`

	// Hang lets nothing through either way, on connections old and new, without a
	// reset: to its peers it looks like a network that drops packets. Lifting it
	// delivers what was held up.
	Hang bool `json:"hang,omitempty"`

	// Connack is the return code that a CONNECT of an identity gets before its
	// credential is looked at; "*" is everybody. 3 is "server unavailable", 5 "not
	// authorized". Connections that are open stay so: see Hub.Drop.
	Connack map[string]byte `json:"connack,omitempty"`

	// Refuse are identities that may connect but not speak: their connection is
	// closed at a telemetry message, which is neither kept nor acknowledged.
	Refuse []string `json:"refuse,omitempty"`

	// CloseAfter closes each connection at the telemetry message after this many.
	CloseAfter int `json:"close_after,omitempty"`

	// PubackDelay is the time from keeping a message to its PUBACK.
	PubackDelay time.Duration `json:"-"` // "puback_delay": "2s"

	// PubackDrop leaves every so manieth message of the hub unacknowledged for
	// ever, though it is kept. 1 is every one.
	PubackDrop int `json:"puback_drop,omitempty"`

	// PubackRepeat sends each PUBACK twice.
	PubackRepeat bool `json:"puback_repeat,omitempty"`

	// PubackReorder sends PUBACKs in windows of so many, each window backwards. A
	// window that does not fill up is sent after 200 ms.
	PubackReorder int `json:"puback_reorder,omitempty"`

	// PubackReuse acknowledges the packet id acknowledged last instead of the one
	// to acknowledge, and that one up to 200 ms later. A client that has given
	// the id to another message meanwhile cannot tell, so it must not.
	PubackReuse bool `json:"puback_reuse,omitempty"`

	// Throttle is how many messages a second the hub acknowledges, over all
	// connections. 0 is no limit.
	Throttle float64 `json:"throttle,omitempty"`

	// Lie acknowledges every so manieth message of the hub without keeping it. It
	// is for tests of what counts losses: they must find one.
	Lie int `json:"lie,omitempty"`

	// RegistryStatus is the HTTP status that the scope calls answer with.
	RegistryStatus int `json:"registry_status,omitempty"`
}

// plainFaults is Faults without its methods, for JSON.
type plainFaults Faults

type jsonFaults struct {
	plainFaults
	PubackDelay string `json:"puback_delay,omitempty"`
}

// MarshalJSON writes PubackDelay as "puback_delay" in the form "1.5s".
func (f Faults) MarshalJSON() ([]byte, error) {
	j := jsonFaults{plainFaults: plainFaults(f)}
	if f.PubackDelay != 0 {
		j.PubackDelay = f.PubackDelay.String()
	}
	return json.Marshal(j)
}

// UnmarshalJSON is the reverse of MarshalJSON; what is left out is no fault, and a
// name that is none is an error: a fault misspelt must not pass for one survived.
func (f *Faults) UnmarshalJSON(b []byte) error {
	var j jsonFaults
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&j); err != nil {
		return err
	}
	if j.PubackDelay != "" {
		d, err := time.ParseDuration(j.PubackDelay)
		if err != nil {
			return fmt.Errorf("puback_delay: %w", err)
		}
		j.plainFaults.PubackDelay = d
	}
	*f = Faults(j.plainFaults)
	return nil
}

func (f *Faults) connack(id string) (code byte, ok bool) {
	if code, ok = f.Connack[id]; !ok {
		code, ok = f.Connack["*"]
	}
	return code, ok
}

func (f *Faults) refuses(id string) bool { return slices.Contains(f.Refuse, id) }

// faults holds those in force. They are read for every packet, so without a lock.
type faults struct {
	now   atomic.Pointer[Faults]
	kept  atomic.Int64 // telemetry messages that came, for Lie
	acked atomic.Int64 // PUBACKs that were due, for PubackDrop
	limit *rate.Limiter

	mu sync.Mutex // one change at a time
}

func (f *faults) get() *Faults {
	if p := f.now.Load(); p != nil {
		return p
	}
	return &Faults{}
}

// every says whether this is one of each n that count counts.
func every(n int, count *atomic.Int64) bool {
	return n > 0 && count.Add(1)%int64(n) == 0
}

// Fault replaces the faults in force; the zero value lifts all. On return they are
// in force: with Down nobody is connected, without it the ports are open.
func (h *Hub) Fault(f Faults) {
	h.faults.mu.Lock()
	defer h.faults.mu.Unlock()
	h.faults.now.Store(&f)
	limit := rate.Inf
	if f.Throttle > 0 {
		limit = rate.Limit(f.Throttle)
	}
	h.faults.limit.SetLimit(limit)
	h.gate.set(f.Hang)
	for _, e := range []*endpoint{h.mqtt, h.https} {
		if f.Down {
			e.shut()
		} else {
			e.open()
		}
	}
	h.log.Info("faults changed", "faults", f)
}

// Faults are those in force.
func (h *Hub) Faults() Faults { return *h.faults.get() }
