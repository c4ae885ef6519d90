package storage

import (
	"context"
	"fmt"
	"slices"
)

// mapQuota bounds what all maps of a DB hold, keys and values; a picture of them
// must fit in a segment beside the rest.
func (db *DB) mapQuota() int { return db.o.SegmentBytes / 4 }

// Map is small keyed state, held in memory and changed through the journal.
type Map struct {
	db   *DB
	name string
}

// Map gives the map of that name; an empty one costs nothing.
func (db *DB) Map(name string) *Map { return &Map{db, name} }

// Get gives the value of key. It must not be changed.
func (m *Map) Get(key string) ([]byte, bool) {
	m.db.mu.Lock()
	defer m.db.mu.Unlock()
	v, ok := m.db.maps[m.name][key]
	return v, ok
}

// Keys gives all keys, sorted.
func (m *Map) Keys() []string {
	m.db.mu.Lock()
	defer m.db.mu.Unlock()
	keys := make([]string, 0, len(m.db.maps[m.name]))
	for k := range m.db.maps[m.name] {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// Set makes all changes at once and waits until they are on disk; a nil value
// removes its key. If ctx ends first, they may still become true.
func (m *Map) Set(ctx context.Context, changes map[string][]byte) error {
	r := Record{}
	for k, v := range changes {
		r.With = append(r.With, Change{Map: m.name, Key: k, Value: v})
	}
	done := make(chan error, 1)
	m.db.Append(ctx, r, func(err error) { done <- err })
	select {
	case err := <-done:
		if err != nil {
			return fmt.Errorf("change map %s: %w", m.name, err)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("change map %s: %w", m.name, ctx.Err())
	}
}

// set makes a change that is on disk. Called with db.mu held.
func (db *DB) set(c Change) {
	m := db.maps[c.Map]
	if m == nil {
		m = map[string][]byte{}
		db.maps[c.Map] = m
	}
	if old, ok := m[c.Key]; ok {
		db.mapBytes -= len(c.Key) + len(old)
		delete(m, c.Key)
	}
	if c.Value != nil {
		m[c.Key] = c.Value
		db.mapBytes += len(c.Key) + len(c.Value)
	}
}
