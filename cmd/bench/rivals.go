package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/dgraph-io/badger/v4"
	"go.etcd.io/bbolt"
)

// badgerOptions are badger's own, durable, but for value log files that fit a small
// disk.
func badgerOptions(dir string) badger.Options {
	return badger.DefaultOptions(dir).WithSyncWrites(true).WithLogger(nil).WithValueLogFileSize(128 << 20)
}

// badgerEach is what an MQTT broker does with badger: a transaction for each
// message, many of them at once.
type badgerEach struct {
	db   *badger.DB
	n    atomic.Uint64 // messages
	kept atomic.Uint64
}

func openBadgerEach(dir string) (*badgerEach, error) {
	db, err := badger.Open(badgerOptions(dir))
	if err != nil {
		return nil, fmt.Errorf("open badger: %w", err)
	}
	return &badgerEach{db: db}, nil
}

func (b *badgerEach) put(m message, done func(error)) {
	txn := b.db.NewTransaction(true)
	defer txn.Discard()
	if err := txn.Set(number64(b.n.Add(1)), appendPacked(nil, []message{m})); err != nil {
		done(err)
		return
	}
	txn.CommitWith(func(err error) {
		if err == nil {
			b.kept.Add(1)
		}
		done(err)
	})
}

func (b *badgerEach) keep(group []message) error { return keepAll(b, group) }
func (b *badgerEach) commits() uint64            { return b.kept.Load() }
func (b *badgerEach) close() error               { return b.db.Close() }

// packed is a key value store used by one who knows what a flush costs: one value
// for a whole group, written in place. What was taken is removed with the next
// group.
type packed struct {
	s shelf

	mu          sync.Mutex
	first, last uint64   // groups: the next to be taken, the newest
	gone        [][]byte // keys of groups that were taken and are still there
}

// shelf is the key value store.
type shelf interface {
	// update is one durable transaction.
	update(key, value []byte, gone [][]byte) error
	get(key []byte) ([]byte, error)
	close() error
}

func (p *packed) keep(group []message) error {
	p.mu.Lock()
	gone, n := p.gone, p.last+1
	p.gone = nil
	p.mu.Unlock()
	if err := p.s.update(number64(n), appendPacked(nil, group), gone); err != nil {
		return err
	}
	p.mu.Lock()
	p.last = n
	p.mu.Unlock()
	return nil
}

func (p *packed) take(int) ([]message, error) {
	p.mu.Lock()
	none, key := p.first == p.last, number64(p.first+1)
	p.mu.Unlock()
	if none {
		return nil, nil
	}
	value, err := p.s.get(key)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.first++
	p.gone = append(p.gone, key)
	return unpack(value), nil
}

func (p *packed) commits() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.last
}

func (p *packed) close() error { return p.s.close() }

func openBadgerPacked(dir string) (*packed, error) {
	db, err := badger.Open(badgerOptions(dir))
	if err != nil {
		return nil, fmt.Errorf("open badger: %w", err)
	}
	return &packed{s: badgerShelf{db}}, nil
}

type badgerShelf struct{ db *badger.DB }

func (b badgerShelf) update(key, value []byte, gone [][]byte) error {
	err := b.db.Update(func(txn *badger.Txn) error {
		for _, k := range gone {
			if err := txn.Delete(k); err != nil {
				return err
			}
		}
		return txn.Set(key, value)
	})
	if err != nil {
		return fmt.Errorf("write to badger: %w", err)
	}
	return nil
}

func (b badgerShelf) get(key []byte) (value []byte, err error) {
	err = b.db.View(func(txn *badger.Txn) error {
		item, err := txn.Get(key)
		if err != nil {
			return err
		}
		value, err = item.ValueCopy(nil)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read from badger: %w", err)
	}
	return value, nil
}

func (b badgerShelf) close() error { return b.db.Close() }

func openBolt(dir string) (*packed, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	db, err := bbolt.Open(filepath.Join(dir, "bolt"), 0o600, nil)
	if err != nil {
		return nil, fmt.Errorf("open bbolt: %w", err)
	}
	b := boltShelf{db, []byte("groups")}
	err = db.Update(func(tx *bbolt.Tx) error {
		_, err := tx.CreateBucket(b.bucket)
		return err
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make a bbolt bucket: %w", err), db.Close())
	}
	return &packed{s: b}, nil
}

type boltShelf struct {
	db     *bbolt.DB
	bucket []byte
}

func (b boltShelf) update(key, value []byte, gone [][]byte) error {
	err := b.db.Update(func(tx *bbolt.Tx) error {
		bucket := tx.Bucket(b.bucket)
		for _, k := range gone {
			if err := bucket.Delete(k); err != nil {
				return err
			}
		}
		return bucket.Put(key, value)
	})
	if err != nil {
		return fmt.Errorf("write to bbolt: %w", err)
	}
	return nil
}

func (b boltShelf) get(key []byte) (value []byte, err error) {
	err = b.db.View(func(tx *bbolt.Tx) error {
		value = append(value, tx.Bucket(b.bucket).Get(key)...) // its memory ends with tx
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read from bbolt: %w", err)
	}
	return value, nil
}

func (b boltShelf) close() error { return b.db.Close() }

// number64 is a key that sorts by number.
func number64(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }
