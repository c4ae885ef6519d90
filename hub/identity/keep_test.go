package identity

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"holdfast.dev/holdfast/hub"
	"holdfast.dev/holdfast/storage"
)

// kept is a Keeper as a Directory that has seen this scope leaves it.
func kept(t *testing.T, scope ...Entry) *fakeKeeper {
	t.Helper()
	k := &fakeKeeper{}
	keepScope(t, k, sealer, scope...)
	return k
}

func keepScope(t *testing.T, k *fakeKeeper, key []byte, scope ...Entry) {
	t.Helper()
	s, err := newSafe(k, key, "")
	if err != nil {
		t.Fatal(err)
	}
	m := map[hub.Identity]Entry{}
	for _, e := range scope {
		m[e.ID] = e
	}
	if err := s.keepAll(t.Context(), m, clock.Now()); err != nil {
		t.Fatal(err)
	}
}

func TestKeptRoundTrip(t *testing.T) {
	off := Entry{ID: "d2", Auth: SelfSigned}
	k := kept(t, entry("d1", keyA, keyB), off, entry("d1/m1", keyC))
	if want := []string{"entry/d1", "entry/d1/m1", "entry/d2", "synced"}; !slices.Equal(k.Keys(), want) {
		t.Errorf("keys %q, want %q", k.Keys(), want)
	}
	s, _ := newSafe(k, sealer, "")
	scope, synced, complete, err := s.load()
	if err != nil {
		t.Fatal(err)
	}
	if !complete || !synced.Wall.Equal(noon) || synced.Boot != 7 || synced.Up != time.Hour || synced.Grade != storage.GradeNTP {
		t.Errorf("synced %+v, complete %v", synced, complete)
	}
	for _, want := range []Entry{entry("d1", keyA, keyB), off, entry("d1/m1", keyC)} {
		if got := scope[want.ID]; !got.equal(want) {
			t.Errorf("loaded %v, want %v", got, want)
		}
	}
	for key, v := range k.m {
		if bytes.Contains(v, keyA) || bytes.Contains(v, []byte("enabled")) {
			t.Errorf("%s is not sealed", key)
		}
	}
}

func TestKeepWritesWhatDiffers(t *testing.T) {
	k := kept(t, entry("d1", keyA), entry("d2", keyA), entry("d3", keyA))
	before := map[string][]byte{}
	for _, key := range k.Keys() {
		before[key], _ = k.Get(key)
	}
	keepScope(t, k, sealer, entry("d1", keyA), entry("d2", keyB))
	for key, want := range map[string]bool{"entry/d1": true, "entry/d2": false, "synced": false} {
		if now, _ := k.Get(key); bytes.Equal(now, before[key]) != want {
			t.Errorf("%s: unchanged %v, want %v", key, !want, want)
		}
	}
	if _, there := k.Get("entry/d3"); there {
		t.Error("entry/d3 is still kept")
	}
}

func TestNonceIsFresh(t *testing.T) {
	s, _ := newSafe(&fakeKeeper{}, sealer, "")
	seen := map[string]bool{}
	for range 100 {
		b, err := s.seal("entry/d1", keptEntry{})
		if err != nil {
			t.Fatal(err)
		}
		seen[string(b[1:25])] = true
	}
	if len(seen) != 100 {
		t.Errorf("100 values have %d nonces", len(seen))
	}
}

func TestKeepInAtoms(t *testing.T) {
	var scope []Entry
	for i := range 5000 {
		scope = append(scope, entry(hub.Identity(fmt.Sprintf("device-with-a-long-name-%04d", i)), keyA, keyB))
	}
	k := kept(t, scope...)
	if len(k.Keys()) != 5001 || k.sets < 2 || k.most > atom+4096 {
		t.Errorf("%d keys in %d sets of %d bytes at most; want 5001, several, %d", len(k.Keys()), k.sets, k.most, atom)
	}
	keepScope(t, k, sealer) // all of them go
	if len(k.Keys()) != 1 || k.most > atom+4096 {
		t.Errorf("%d keys left, %d bytes at most", len(k.Keys()), k.most)
	}
}

func TestKeptThatDoesNotOpen(t *testing.T) {
	other := bytes.Repeat([]byte{8}, KeySize)
	for _, c := range []struct {
		name   string
		key    []byte
		harm   func(k *fakeKeeper)
		want   string
		sealed bool
	}{
		{"other key", other, func(*fakeKeeper) {}, "with /state/identity.key: sealing key does not fit: put back the key file", true},
		{"a bit flipped", sealer, func(k *fakeKeeper) { v := k.m["entry/d1"]; v[len(v)-1] ^= 1 }, "entry/d1", true},
		{"moved to another name", sealer, func(k *fakeKeeper) { k.m["entry/d2"] = k.m["entry/d1"] }, "entry/d2", true},
		{"cut short", sealer, func(k *fakeKeeper) { k.m["entry/d1"] = k.m["entry/d1"][:20] }, "20 bytes are not a sealed value", false},
		{"empty", sealer, func(k *fakeKeeper) { k.m["synced"] = []byte{} }, "not a sealed value", false},
		{"newer format", sealer, func(k *fakeKeeper) { k.m["synced"][0] = 2 }, "newer version (format 2)", false},
		{"short key", sealer[:31], func(*fakeKeeper) {}, "/state/identity.key has 31 bytes, want 32", false},
		{"no key", nil, func(*fakeKeeper) {}, "has 0 bytes", false},
	} {
		k := kept(t, entry("d1", keyA))
		c.harm(k)
		sets := k.sets
		_, err := New(Config{}, Deps{Keep: k, Key: c.key, KeyFile: "/state/identity.key"})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q in it", c.name, err, c.want)
		}
		if errors.Is(err, ErrSealed) != c.sealed {
			t.Errorf("%s: is ErrSealed %v, want %v", c.name, !c.sealed, c.sealed)
		}
		if k.sets != sets {
			t.Errorf("%s: something was written", c.name)
		}
	}
}

func TestForget(t *testing.T) {
	k := kept(t, entry("d1", keyA), entry("d2", keyA))
	k.m["other"] = []byte("stays")
	if err := Forget(t.Context(), k); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(k.Keys(), []string{"other"}) {
		t.Errorf("left: %q", k.Keys())
	}
	if _, err := New(Config{}, Deps{Keep: k, Key: bytes.Repeat([]byte{1}, KeySize)}); err != nil {
		t.Errorf("New with another key afterwards: %v", err)
	}
}
