package mqtt

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"holdfast.dev/holdfast/hub"
	"holdfast.dev/holdfast/hub/identity"
	"holdfast.dev/holdfast/hub/wire"
	"holdfast.dev/holdfast/storage"
)

const patience = 10 * time.Second

// fakeHub keeps what it is given and says done at once, or when it is told to.
type fakeHub struct {
	mu       sync.Mutex
	hold     bool
	err      error
	messages []hub.Message
	dones    []func(error)
	doers    map[hub.Identity]hub.Doer
	kinds    map[hub.Identity][]hub.Kind
	turns    map[hub.Identity]int // which Attach counts
	core     *hub.Core            // keeps what is kept; may be nil
	attached int
}

func (h *fakeHub) Publish(ctx context.Context, m hub.Message, done func(error)) {
	if string(m.Body) == "panic" {
		panic("hub panics")
	}
	h.mu.Lock()
	h.messages = append(h.messages, m)
	if core, answer := h.core, done; core != nil {
		done = func(err error) {
			if err != nil {
				answer(err)
				return
			}
			core.Publish(ctx, m, answer)
		}
	}
	if h.hold {
		h.dones = append(h.dones, done)
		h.mu.Unlock()
		return
	}
	err := h.err
	h.mu.Unlock()
	done(err)
}

// commit says done to the n oldest that wait.
func (h *fakeHub) commit(n int, err error) {
	h.mu.Lock()
	n = min(n, len(h.dones))
	due := h.dones[:n]
	h.dones = h.dones[n:]
	h.mu.Unlock()
	for _, d := range due {
		d(err)
	}
}

func (h *fakeHub) set(hold bool, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.hold, h.err = hold, err
}

func (h *fakeHub) kept() []hub.Message {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.messages)
}

func (h *fakeHub) waiting() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.dones)
}

func (h *fakeHub) Do(ctx context.Context, c hub.Command) (hub.Reply, error) {
	h.mu.Lock()
	d := h.doers[c.To]
	h.mu.Unlock()
	if d == nil {
		return hub.Reply{}, hub.ErrUnknown
	}
	return d.Do(ctx, c)
}

func (h *fakeHub) Attach(id hub.Identity, d hub.Doer, kinds ...hub.Kind) func() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.attached++
	turn := h.attached
	h.doers[id], h.kinds[id], h.turns[id] = d, kinds, turn
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.turns[id] == turn {
			delete(h.doers, id)
			delete(h.kinds, id)
		}
	}
}

func (h *fakeHub) Changed() <-chan struct{} { return nil }
func (h *fakeHub) List() []hub.Present      { return nil }

// fakeGate lets in every device whose password is "key" and two accounts.
type fakeGate struct {
	mu      sync.Mutex
	unknown map[hub.Identity]bool
	changed chan struct{}
}

func (g *fakeGate) Device(_ context.Context, u wire.User, password string) (hub.Identity, error) {
	id := hub.Identity(u.ClientID())
	switch {
	case password == "unsure":
		return "", hub.ErrUnsure
	case password != "key" || !g.Known(id):
		return "", hub.ErrUnauthorized
	}
	return id, nil
}

func (g *fakeGate) Account(ctx context.Context, name, password string) (identity.Account, error) {
	switch password {
	case "unsure":
		return identity.Account{}, hub.ErrUnsure
	case "slow":
		<-ctx.Done()
		return identity.Account{}, hub.ErrUnsure
	}
	if password != "secret" {
		return identity.Account{}, hub.ErrUnauthorized
	}
	switch name {
	case "all":
		return identity.Account{Name: name, Publish: []string{"#"}, Subscribe: []string{"#"}}, nil
	case "plant":
		return identity.Account{Name: name, From: "press", Publish: []string{"plant/+/up"}, Subscribe: []string{"plant/#"}}, nil
	}
	return identity.Account{}, hub.ErrUnauthorized
}

func (g *fakeGate) Known(id hub.Identity) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return !g.unknown[id]
}

func (g *fakeGate) Changed() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.changed
}

func (g *fakeGate) forget(id hub.Identity) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.unknown[id] = true
	close(g.changed)
	g.changed = make(chan struct{})
}

func newFakes() (*fakeHub, *fakeGate) {
	return &fakeHub{doers: map[hub.Identity]hub.Doer{}, kinds: map[hub.Identity][]hub.Kind{}, turns: map[hub.Identity]int{}},
		&fakeGate{unknown: map[hub.Identity]bool{}, changed: make(chan struct{})}
}

// start runs a broker on a port of its own until the test ends.
func start(t testing.TB, cfg Config) (*Broker, *fakeHub, *fakeGate) {
	t.Helper()
	h, g := newFakes()
	if cfg.Listen == "" {
		cfg.Listen = "127.0.0.1:0"
	}
	b, err := New(cfg, stored(t, Deps{Gate: g, Gateway: "gw", Log: slog.New(slog.DiscardHandler)}))
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	h.core = hub.NewCore(b.store, b.clock, b.Route)
	run(t, b, h)
	return b, h, g
}

// stored is d with a store of its own.
func stored(t testing.TB, d Deps) Deps {
	t.Helper()
	d.Clock = storage.SystemClock()
	d.Store = openStore(t, t.TempDir())
	t.Cleanup(func() { d.Store.Close() })
	return d
}

func openStore(t testing.TB, dir string) *storage.DB {
	t.Helper()
	db, err := storage.Open(dir, storage.Options{SegmentBytes: 1 << 20, MaxBytes: 64 << 20, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatalf("open store: %v", err)
	}
	return db
}

func run(t testing.TB, b *Broker, h hub.Hub) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx, h) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(patience):
			t.Errorf("Run did not end")
		}
	})
	eventually(t, "the broker runs", func() bool { return b.running() != nil })
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	end := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(end) {
			t.Fatalf("waited in vain: %s", what)
		}
		select {
		case <-time.After(2 * time.Millisecond):
		case <-t.Context().Done():
		}
	}
}

func (h *fakeHub) listens(id hub.Identity, k hub.Kind) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Contains(h.kinds[id], k)
}
