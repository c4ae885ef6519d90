package identity

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"holdfast.dev/holdfast/hub"
	"holdfast.dev/holdfast/hub/wire"
	"holdfast.dev/holdfast/storage"
)

var errCloud = errors.New("cloud does not answer")

// fakeKeeper is a Keeper in memory.
type fakeKeeper struct {
	mu   sync.Mutex
	m    map[string][]byte
	err  error
	sets int
	most int // bytes in one Set
}

func (k *fakeKeeper) Get(key string) ([]byte, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	b, ok := k.m[key]
	return b, ok
}

func (k *fakeKeeper) Set(_ context.Context, changes map[string][]byte) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.err != nil {
		return k.err
	}
	if k.m == nil {
		k.m = map[string][]byte{}
	}
	n := 0
	for key, v := range changes {
		n += len(key) + len(v)
		if v == nil {
			delete(k.m, key)
		} else {
			k.m[key] = v
		}
	}
	k.sets, k.most = k.sets+1, max(k.most, n)
	return nil
}

func (k *fakeKeeper) Keys() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Sorted(maps.Keys(k.m))
}

func (k *fakeKeeper) refuse(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.err = err
}

// fakeSource is a cloud.
type fakeSource struct {
	mu     sync.Mutex
	scope  map[hub.Identity]Entry
	down   bool
	hang   time.Duration // before each answer; ends early with ctx
	ones   map[hub.Identity]int
	atOnce int // of One, now and at most
	peak   int
	scopes []time.Time
	inside func() // called while Scope's answer is already made up
}

func newSource(list ...Entry) *fakeSource {
	s := &fakeSource{scope: map[hub.Identity]Entry{}, ones: map[hub.Identity]int{}}
	s.put(list...)
	return s
}

func (s *fakeSource) put(list ...Entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range list {
		s.scope[e.ID] = e
	}
}

func (s *fakeSource) drop(id hub.Identity) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.scope, id)
}

func (s *fakeSource) setDown(down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = down
}

func (s *fakeSource) asks(id hub.Identity) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ones[id]
}

func (s *fakeSource) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.atOnce--
}

// most is how many questions were under way at a time.
func (s *fakeSource) most() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.peak
}

func (s *fakeSource) fetches() []time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.scopes)
}

func (s *fakeSource) wait(ctx context.Context) error {
	s.mu.Lock()
	hang := s.hang
	s.mu.Unlock()
	if hang == 0 {
		return nil
	}
	select {
	case <-time.After(hang):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *fakeSource) Scope(ctx context.Context) ([]Entry, error) {
	s.mu.Lock()
	s.scopes = append(s.scopes, time.Now())
	list, down, inside := slices.Collect(maps.Values(s.scope)), s.down, s.inside
	s.mu.Unlock()
	if inside != nil {
		inside()
	}
	if err := s.wait(ctx); err != nil {
		return nil, err
	}
	if down {
		return nil, errCloud
	}
	return list, nil
}

func (s *fakeSource) One(ctx context.Context, id hub.Identity) (Entry, error) {
	s.mu.Lock()
	s.ones[id]++
	s.atOnce++
	s.peak = max(s.peak, s.atOnce)
	defer s.leave()
	e, ok := s.scope[id]
	down := s.down
	s.mu.Unlock()
	if err := s.wait(ctx); err != nil {
		return Entry{}, err
	}
	switch {
	case down:
		return Entry{}, errCloud
	case !ok:
		return Entry{}, hub.ErrUnknown
	}
	return e, nil
}

// fakeLink is a way to the cloud that goes up and down by hand.
type fakeLink struct {
	mu      sync.Mutex
	up      bool
	changed chan struct{}
}

func newLink(up bool) *fakeLink { return &fakeLink{up: up, changed: make(chan struct{})} }

func (l *fakeLink) Up() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.up
}

func (l *fakeLink) Changed() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.changed
}

func (l *fakeLink) set(up bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.up = up
	close(l.changed)
	l.changed = make(chan struct{})
}

// fakeClock shows what it is told, with a grade.
type fakeClock struct {
	wall  time.Time
	grade storage.Grade
}

func (c fakeClock) Now() storage.Stamp {
	return storage.Stamp{Boot: 7, Up: time.Hour, Wall: c.wall, Grade: c.grade}
}

func (c fakeClock) Age(s storage.Stamp) (min, max time.Duration) {
	return c.wall.Sub(s.Wall), c.wall.Sub(s.Wall)
}

// What most tests use: a hub, a time, keys.
const testHost = "hub.local"

var (
	noon   = time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)
	clock  = fakeClock{noon, storage.GradeNTP}
	keyA   = []byte("a key of thirty-two bytes, or so")
	keyB   = []byte("b key of thirty-two bytes, or so")
	keyC   = []byte("c key of thirty-two bytes, or so")
	sealer = bytes.Repeat([]byte{9}, KeySize)
)

func entry(id hub.Identity, keys ...[]byte) Entry {
	e := Entry{ID: id, Enabled: true, Auth: SymmetricKey, Primary: keys[0]}
	if len(keys) > 1 {
		e.Secondary = keys[1]
	}
	return e
}

func user(id hub.Identity) wire.User {
	return wire.User{Host: testHost, Device: id.Device(), Module: id.Module(), APIVersion: "2021-04-12"}
}

func token(id hub.Identity, key []byte) string {
	return wire.NewSAS(testHost, id.Device(), id.Module(), key, noon.Add(time.Hour))
}

// try authenticates id with key and gives the sentinel that was answered.
func try(t *testing.T, d *Directory, id hub.Identity, key []byte) error {
	t.Helper()
	got, err := d.Device(t.Context(), user(id), token(id, key))
	if err == nil && got != id {
		t.Errorf("Device(%s) = %q", id, got)
	}
	return sentinel(t, err)
}

func sentinel(t *testing.T, err error) error {
	t.Helper()
	var found []error
	for _, s := range []error{hub.ErrUnauthorized, hub.ErrUnsure} {
		if errors.Is(err, s) {
			found = append(found, s)
		}
	}
	switch {
	case err == nil:
		return nil
	case len(found) != 1:
		t.Errorf("error %q is %d of ErrUnauthorized and ErrUnsure, want one", err, len(found))
		return err
	}
	return found[0]
}

func mustNew(t *testing.T, c Config, d Deps) *Directory {
	t.Helper()
	if d.Clock == nil {
		d.Clock = clock
	}
	if d.Keep != nil && d.Key == nil {
		d.Key = sealer
	}
	dir, err := New(c, d)
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	return dir
}

// listener is a log that is searched for secrets.
type listener struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *listener) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *listener) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *listener) log() *slog.Logger {
	return slog.New(slog.NewJSONHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func fired(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func has(s string, parts ...string) bool {
	for _, p := range parts {
		if !strings.Contains(s, p) {
			return false
		}
	}
	return true
}
