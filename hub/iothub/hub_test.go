package iothub

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"holdfast.dev/holdfast/hub"
	"holdfast.dev/holdfast/hub/identity"
	"holdfast.dev/holdfast/hub/iothub/hubtest"
	"holdfast.dev/holdfast/hub/wire"
	"holdfast.dev/holdfast/storage"
)

// rig is a stand-in hub with a gateway "gw", two devices behind it and a module
// of one of them.
type rig struct {
	*hubtest.Hub
	cfg Config
}

func newRig(t *testing.T) *rig {
	t.Helper()
	h, err := hubtest.New(hubtest.Config{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- h.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-ended })
	h.Put(hubtest.Device{ID: "gw", Edge: true})
	for _, d := range []string{"d1", "d2"} {
		h.Put(hubtest.Device{ID: d, Parent: "gw"})
	}
	h.Put(hubtest.Device{ID: "d1/m"})
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, h.CAPEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	return &rig{h, Config{
		Connection: h.ConnectionString("gw/$edgeHub"), Address: h.MQTTAddr(), HTTPS: h.HTTPSAddr(), CA: ca,
		AckTimeout: hub.Duration(2 * time.Second),
	}}
}

func (r *rig) run(t *testing.T, h *fakeHub) *Upstream {
	t.Helper()
	u := newUpstream(t, r.cfg)
	start(t, u, h)
	until(t, "link up", 5*time.Second, u.Up)
	return u
}

// TestWire: what the hub sees of each kind of sender.
func TestWire(t *testing.T) {
	for _, transport := range []string{"mqtt", "websocket"} {
		t.Run(transport, func(t *testing.T) {
			r := newRig(t)
			r.cfg.Transport = transport
			if transport == "websocket" {
				r.cfg.Address = r.HTTPSAddr()
			}
			u := r.run(t, newFakeHub(nil))
			if got, want := u.Gateway(), hub.Identity("gw/$edgeHub"); got != want {
				t.Errorf("Gateway: %s, want %s", got, want)
			}
			o := &outcomes{t: t}
			senders := []hub.Identity{"d1", "d1/m", "gw/$edgeHub"}
			for _, from := range senders {
				o.publish(u, hub.Message{ID: string(from), From: from, Topic: "plant/a", Body: []byte(from), Props: wire.NewBag("a b", "c/d", wire.MessageID, "m1")})
				until(t, "done", 5*time.Second, func() bool { return o.count() == slices.Index(senders, from)+1 })
			}
			for i, m := range r.Messages() {
				id := string(senders[i])
				if got := wire.JoinID(m.Device, m.Module); got != id || string(m.Body) != id {
					t.Errorf("message %d is of %s with body %q, want %s", i, got, m.Body, id)
				}
				for k, v := range map[string]string{"a b": "c/d", "$.mid": "m1", "holdfast-id": id, "holdfast-topic": "plant/a"} {
					if m.Props[k] != v {
						t.Errorf("%s: property %s is %q, want %q", id, k, m.Props[k], v)
					}
				}
				if via, want := m.Via, "gw/$edgeHub"; i < 2 && via != want {
					t.Errorf("%s: via %q, want %q", id, via, want)
				}
				if _, ok := m.Props["holdfast-arrived"]; ok {
					t.Errorf("%s: holdfast-arrived on a message that did not wait", id)
				}
			}
		})
	}
}

// TestReturn: the way back is noticed within 2 s, and nothing goes out before.
func TestReturn(t *testing.T) {
	r := newRig(t)
	u := r.run(t, newFakeHub(nil))
	o := &outcomes{t: t}
	o.publish(u, message("d1", 0))
	until(t, "done", 5*time.Second, func() bool { return o.count() == 1 })
	for range 3 {
		r.Fault(hubtest.Faults{Down: true})
		until(t, "link down", 5*time.Second, func() bool { return !u.Up() })
		o := &outcomes{t: t}
		o.publish(u, message("d1", 1))
		until(t, "done", time.Second, func() bool { return o.count() == 1 })
		if r := o.all()[0]; !errors.Is(r.err, hub.ErrOffline) {
			t.Errorf("done while the link is down: %v, want %v", r.err, hub.ErrOffline)
		}
		probes := u.counts.probes.Load()
		until(t, "some probes", 5*time.Second, func() bool { return u.counts.probes.Load() > probes+1 })
		r.Fault(hubtest.Faults{})
		back := time.Now()
		until(t, "link up", 5*time.Second, u.Up)
		if d := time.Since(back); d > 2*time.Second {
			t.Errorf("link up after %v, want 2 s at most", d)
		}
	}
}

// TestHalfDead: a hub that takes connections and never answers is not hammered,
// and is found back when it lives again.
func TestHalfDead(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.Fault(hubtest.Faults{Hang: true})
	u := newUpstream(t, r.cfg)
	start(t, u, newFakeHub(nil))
	until(t, "two attempts", 20*time.Second, func() bool { return u.State().Attempts >= 2 })
	if st := u.State(); st.Up || st.LastError == "" {
		t.Errorf("state: up %v, last error %q; want false and a reason", st.Up, st.LastError)
	}
	r.Fault(hubtest.Faults{})
	until(t, "link up", 20*time.Second, u.Up)
	if n := u.State().Attempts; n > 8 {
		t.Errorf("attempts: %d, want fewer", n)
	}
}

// TestOutage: a Forwarder's loop across outages and all that hubtest can do to
// acknowledgements: nothing is lost, first copies are in order.
func TestOutage(t *testing.T) {
	t.Parallel()
	faults := []hubtest.Faults{
		{CloseAfter: 40}, {PubackDrop: 30}, {PubackRepeat: true}, {PubackReorder: 7}, {PubackReuse: true},
		{PubackDelay: 20 * time.Millisecond}, {Throttle: 400},
	}
	r := newRig(t)
	u := r.run(t, newFakeHub(nil))
	ctx, cancel := context.WithCancel(t.Context())
	changed := make(chan struct{})
	go func() {
		defer close(changed)
		for i := 0; ctx.Err() == nil; i++ {
			r.Fault(faults[i%len(faults)])
			select {
			case <-time.After(300 * time.Millisecond):
			case <-ctx.Done():
			}
			if i%3 == 1 {
				r.Drop("d1") // of the gateway's own TestReturn has enough
			}
		}
	}()
	const n = 800
	for i := 0; i < n; i += 20 {
		repeatFrom(t, u, "d1", i, i+20, 60*time.Second)
	}
	cancel()
	<-changed
	first, seen := []string{}, map[string]bool{}
	for _, m := range r.Messages() {
		if id := m.Props["holdfast-id"]; !seen[id] {
			first, seen[id] = append(first, id), true
		}
	}
	if len(first) != n || !slices.IsSorted(first) {
		t.Errorf("hub has %d messages, first copies in order: %v; want %d, true", len(first), slices.IsSorted(first), n)
	}
	t.Logf("%d copies of %d messages over %d connections, %d strays", r.Count(), n, r.Connects("d1"), u.State().Strays)
}

// TestCommands: methods and cloud-to-device messages reach the hub, many methods
// at once, and a message is acknowledged only when the device has.
func TestCommands(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	var took, refusals atomic.Int32
	free := make(chan struct{})
	h := newFakeHub(func(ctx context.Context, c hub.Command) (hub.Reply, error) {
		switch {
		case c.Kind == hub.CloudToDevice && refusals.Add(1) < 3:
			return hub.Reply{}, hub.ErrTimeout
		case c.Kind == hub.CloudToDevice:
			if v, _ := c.Props.Get("k"); v != "v" || string(c.Body) != "hello" || c.To != "d1" {
				t.Errorf("command: %+v", c)
			}
			return hub.Reply{Status: 200}, nil
		case c.Name == "wait":
			took.Add(1)
			<-free
			return hub.Reply{Status: 201, Body: c.Body}, nil
		case c.Name == "late":
			return hub.Reply{}, hub.ErrTimeout
		}
		return hub.Reply{}, hub.ErrUnknown
	})
	gone := h.Attach("d1", nil, hub.Method, hub.CloudToDevice)
	u := r.run(t, h)
	filters := func(want int) func() bool {
		return func() bool {
			for _, c := range r.Connections() {
				if c.ID == "d1" {
					return len(c.Filters) == want
				}
			}
			return false
		}
	}
	until(t, "subscribed", 5*time.Second, filters(2))
	ctx := t.Context()
	replies := make(chan string, 20)
	for i := range 20 {
		go func() {
			status, body, err := r.Invoke(ctx, "d1", "wait", fmt.Appendf(nil, "%d", i))
			replies <- fmt.Sprint(status, string(body) == fmt.Sprint(i), err)
		}()
	}
	until(t, "20 methods at once", 5*time.Second, func() bool { return took.Load() == 20 })
	close(free)
	for range 20 {
		if got, want := <-replies, "201 true <nil>"; got != want {
			t.Errorf("Invoke: %s, want %s", got, want)
		}
	}
	for name, want := range map[string]int{"late": 504, "none": 404} {
		status, body, err := r.Invoke(ctx, "d1", name, []byte("{}"))
		if status != want || !json.Valid(body) || err != nil {
			t.Errorf("Invoke %s: %d %s %v, want %d and JSON", name, status, body, err, want)
		}
	}
	if err := r.Send(ctx, "d1", wire.NewBag("k", "v"), []byte("hello")); err != nil {
		t.Errorf("Send: %v", err)
	}
	if n := refusals.Load(); n != 3 {
		t.Errorf("the device was asked %d times, want 3: acknowledged only when it has taken it", n)
	}
	repeat(t, u, "d1", 5, 5*time.Second) // so that the connection is needed
	gone()
	until(t, "unsubscribed", 5*time.Second, filters(0))
}

// TestScope: all children page by page, and nobody else.
func TestScope(t *testing.T) {
	r := newRig(t)
	for i := range 130 {
		r.Put(hubtest.Device{ID: fmt.Sprintf("x%03d", i), Parent: "gw", Disabled: i == 7})
	}
	r.Put(hubtest.Device{ID: "stranger"})
	key := r.Put(hubtest.Device{ID: "d1", Parent: "gw"}).Primary
	u := newUpstream(t, r.cfg)
	all, err := u.Scope(t.Context())
	if err != nil {
		t.Fatalf("Scope: %v", err)
	}
	byID := map[hub.Identity]identity.Entry{}
	for _, e := range all {
		byID[e.ID] = e
	}
	if len(all) != 133 || len(byID) != 133 {
		t.Errorf("Scope: %d entries, %d ids, want 133", len(all), len(byID))
	}
	if e := byID["d1"]; !e.Enabled || e.Auth != identity.SymmetricKey || !bytes.Equal(e.Primary, key) || len(e.Secondary) == 0 {
		t.Errorf("Scope: d1 enabled %v, auth %s, key right %v", e.Enabled, e.Auth, bytes.Equal(e.Primary, key))
	}
	if byID["x007"].Enabled {
		t.Errorf("Scope: x007 is enabled, want disabled")
	}
	for _, id := range []hub.Identity{"gw", "gw/$edgeHub", "stranger"} {
		if _, ok := byID[id]; ok {
			t.Errorf("Scope: holds %s", id)
		}
	}
}

// TestScopeTrouble: an answer that says nothing about the child is not ErrUnknown.
func TestScopeTrouble(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	u := newUpstream(t, r.cfg)
	for _, status := range []int{401, 429, 503} {
		r.Fault(hubtest.Faults{RegistryStatus: status})
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		_, err := u.One(ctx, "d1")
		cancel()
		if err == nil || errors.Is(err, hub.ErrUnknown) {
			t.Errorf("One, hub answers %d: %v, want another error", status, err)
		}
	}
}

// TestArrived: a message that waited says since when, and what that is worth.
func TestArrived(t *testing.T) {
	clock := storage.SystemClock()
	now := clock.Now()
	old, other := now, now
	old.Up -= 6 * time.Second
	other.Boot++
	other.Grade = storage.GradeFloor
	tests := []struct {
		name  string
		stamp storage.Stamp
		want  string
		grade string
	}{
		{"just now", now, "", ""},
		{"no stamp", storage.Stamp{}, "", ""},
		{"6 s", old, old.Wall.UTC().Format("2006-01-02T15:04:05.000Z"), old.Grade.String()},
		{"another boot", other, other.Wall.UTC().Format("2006-01-02T15:04:05.000Z"), "floor"},
	}
	for _, tt := range tests {
		topic, err := encode(&hub.Message{ID: "1", From: "d1", Arrived: tt.stamp}, clock)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		_, _, bag, err := wire.ParseTelemetry(topic)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		got, _ := bag.Get("holdfast-arrived")
		grade, _ := bag.Get("holdfast-arrived-grade")
		if got != tt.want || grade != tt.grade {
			t.Errorf("%s: arrived %q, grade %q; want %q, %q", tt.name, got, grade, tt.want, tt.grade)
		}
	}
}

// TestHistoryIsMarked: what went beside fresher messages says so, what did not
// has no such property, and no message is too big for the mark.
func TestHistoryIsMarked(t *testing.T) {
	clock := storage.SystemClock()
	for _, tt := range []struct {
		history bool
		props   int // bytes
		want    string
	}{{true, 10, "true"}, {false, 10, ""}, {true, maxTopic - 55, ""}} {
		m := hub.Message{ID: "1", From: "d1", Arrived: clock.Now(), History: tt.history, Props: wire.Bag("a=" + strings.Repeat("x", tt.props))}
		topic, err := encode(&m, clock)
		if err != nil {
			t.Fatalf("history %v, properties of %d bytes: %v", tt.history, tt.props, err)
		}
		_, _, bag, err := wire.ParseTelemetry(topic)
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := bag.Get("holdfast-history"); got != tt.want {
			t.Errorf("history %v, properties of %d bytes: marked %q, want %q", tt.history, tt.props, got, tt.want)
		}
	}
}
