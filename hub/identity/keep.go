package identity

import (
	"context"
	"crypto/cipher"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/crypto/chacha20poly1305"

	"holdfast.dev/holdfast/hub"
	"holdfast.dev/holdfast/storage"
)

// Keeper is a small map on disk of which the Directory is the only user.
type Keeper interface {
	Get(key string) ([]byte, bool)
	// Set makes the changes; a nil value removes its key. They are durable when it
	// returns nil, all or none.
	Set(ctx context.Context, changes map[string][]byte) error
	Keys() []string
}

// What is kept: a value for each identity of the scope, and one that says when
// the scope was last whole.
//
//	key     "entry/" + identity, or "synced"
//	value   version, 1 byte: 1
//	        nonce, 24 bytes, random, never the same twice
//	        XChaCha20-Poly1305 of JSON, the map's key as additional data, so that
//	        a value moved under another name does not open
const (
	entryPrefix = "entry/"
	syncedKey   = "synced"
	sealVersion = 1
)

// atom is how many bytes of changes go into one Set at most: the scope of a large
// plant is bigger than a record of the store may be. Each entry is good by itself
// and "synced" comes last, so a cut between two atoms tells no lies.
const atom = 128 << 10

// ErrSealed is what New answers when something kept does not open with its key.
var ErrSealed = errors.New("sealing key does not fit")

type keptEntry struct {
	Enabled   bool     `json:"enabled"`
	Auth      AuthKind `json:"auth"`
	Primary   []byte   `json:"primary,omitempty"`
	Secondary []byte   `json:"secondary,omitempty"`
}

type keptStamp struct {
	Boot  uint64        `json:"boot"`
	Up    time.Duration `json:"up"` // nanoseconds
	Wall  time.Time     `json:"wall"`
	Grade storage.Grade `json:"grade"`
}

// Forget removes all that a Directory has kept in k, without opening it: the way
// out when the sealing key is lost. The scope must then be fetched once before
// anybody in it can connect again.
func Forget(ctx context.Context, k Keeper) error {
	b := batch{keeper: k}
	for _, key := range k.Keys() {
		if strings.HasPrefix(key, entryPrefix) || key == syncedKey {
			if err := b.add(ctx, key, nil); err != nil {
				return err
			}
		}
	}
	return b.flush(ctx)
}

// safe is a Keeper behind a seal.
type safe struct {
	keeper Keeper // nil: nothing is kept
	aead   cipher.AEAD
	file   string // where the key came from, for messages
}

func newSafe(k Keeper, key []byte, file string) (*safe, error) {
	if k == nil {
		return &safe{}, nil
	}
	if file == "" {
		file = "sealing key"
	}
	aead, err := chacha20poly1305.NewX(key)
	if err != nil {
		return nil, fmt.Errorf("%s has %d bytes, want %d", file, len(key), KeySize)
	}
	return &safe{keeper: k, aead: aead, file: file}, nil
}

// load opens everything, and fails if anything does not open: an identity that
// was dropped in silence would be a device that is locked out without a reason.
func (s *safe) load() (scope map[hub.Identity]Entry, synced storage.Stamp, complete bool, err error) {
	scope = map[hub.Identity]Entry{}
	if s.keeper == nil {
		return scope, synced, false, nil
	}
	for _, key := range s.keeper.Keys() {
		switch {
		case strings.HasPrefix(key, entryPrefix):
			e, err := s.entry(key)
			if err != nil {
				return nil, synced, false, err
			}
			scope[e.ID] = e
		case key == syncedKey:
			var k keptStamp
			if err := s.open(key, &k); err != nil {
				return nil, synced, false, err
			}
			synced, complete = storage.Stamp(k), true
		}
	}
	return scope, synced, complete, nil
}

func (s *safe) open(key string, into any) error {
	b, _ := s.keeper.Get(key)
	n := 1 + s.aead.NonceSize()
	if len(b) > 0 && b[0] > sealVersion {
		return fmt.Errorf("open kept %q: it was written by a newer version (format %d): run that version again", key, b[0])
	}
	if len(b) < n || b[0] != sealVersion {
		return fmt.Errorf("open kept %q: %d bytes are not a sealed value", key, len(b))
	}
	plain, err := s.aead.Open(nil, b[1:n], b[n:], []byte(key))
	if err != nil {
		return fmt.Errorf("open kept %q with %s: %w: put back the key file that this store was made with", key, s.file, ErrSealed)
	}
	if err := json.Unmarshal(plain, into); err != nil {
		return fmt.Errorf("open kept %q: it is not in the expected form", key) // err could quote a key
	}
	return nil
}

func (s *safe) seal(key string, v any) ([]byte, error) {
	plain, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("seal %q: %w", key, err)
	}
	b := make([]byte, 1+s.aead.NonceSize(), 1+s.aead.NonceSize()+len(plain)+s.aead.Overhead())
	b[0] = sealVersion
	if _, err := rand.Read(b[1:]); err != nil {
		return nil, fmt.Errorf("seal %q: %w", key, err)
	}
	return s.aead.Seal(b, b[1:], plain, []byte(key)), nil
}

// keepOne keeps one entry.
func (s *safe) keepOne(ctx context.Context, e Entry) error {
	if s.keeper == nil {
		return nil
	}
	b := batch{keeper: s.keeper}
	if err := s.keep(ctx, &b, e); err != nil {
		return err
	}
	return b.flush(ctx)
}

// keepAll makes the kept scope equal to scope. Only what differs is written: a
// card wears by what is written each hour, changed or not.
func (s *safe) keepAll(ctx context.Context, scope map[hub.Identity]Entry, at storage.Stamp) error {
	if s.keeper == nil {
		return nil
	}
	b := batch{keeper: s.keeper}
	for _, e := range scope {
		if err := s.keep(ctx, &b, e); err != nil {
			return err
		}
	}
	for _, key := range s.keeper.Keys() {
		id, isEntry := strings.CutPrefix(key, entryPrefix)
		if _, there := scope[hub.Identity(id)]; !isEntry || there {
			continue
		}
		if err := b.add(ctx, key, nil); err != nil {
			return err
		}
	}
	sealed, err := s.seal(syncedKey, keptStamp(at))
	if err != nil {
		return err
	}
	if err := b.add(ctx, syncedKey, sealed); err != nil {
		return err
	}
	return b.flush(ctx)
}

// keep adds e to b if it is kept differently.
func (s *safe) keep(ctx context.Context, b *batch, e Entry) error {
	key := entryPrefix + string(e.ID)
	if _, there := s.keeper.Get(key); there {
		was, err := s.entry(key)
		if err != nil {
			return err // never overwritten
		}
		if e.equal(was) {
			return nil
		}
	}
	sealed, err := s.seal(key, keptEntry{Enabled: e.Enabled, Auth: e.Auth, Primary: e.Primary, Secondary: e.Secondary})
	if err != nil {
		return err
	}
	return b.add(ctx, key, sealed)
}

func (s *safe) entry(key string) (Entry, error) {
	var k keptEntry
	err := s.open(key, &k)
	id := hub.Identity(strings.TrimPrefix(key, entryPrefix))
	return Entry{ID: id, Enabled: k.Enabled, Auth: k.Auth, Primary: k.Primary, Secondary: k.Secondary}, err
}

// batch gathers changes into atoms.
type batch struct {
	keeper  Keeper
	changes map[string][]byte
	size    int // bytes
}

func (b *batch) add(ctx context.Context, key string, value []byte) error {
	if b.changes == nil {
		b.changes = map[string][]byte{}
	}
	b.changes[key] = value
	if b.size += len(key) + len(value); b.size < atom {
		return nil
	}
	return b.flush(ctx)
}

func (b *batch) flush(ctx context.Context) error {
	if len(b.changes) == 0 {
		return nil
	}
	if err := b.keeper.Set(ctx, b.changes); err != nil {
		return fmt.Errorf("keep scope: %w", err)
	}
	b.changes, b.size = nil, 0
	return nil
}
