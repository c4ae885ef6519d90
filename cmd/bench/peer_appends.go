package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	"github.com/dgraph-io/badger/v4"

	"holdfast.dev/holdfast/storage"
)

// storeResult is what the process that measures a store says.
type storeResult struct {
	Acked   int     `json:"acked"`
	Seconds float64 `json:"seconds"`
}

// store is what appends is given: append hands over a message of a producer, and
// done runs once it is durable, or could not be made so.
type store interface {
	append(ctx context.Context, producer int, body []byte, done func(error)) error
	close() error
}

// stores measures in this process: a store that maps files must not share one with
// a disk model, and one that is slow to close must not hold up the next.
func (s served) stores(ctx context.Context, kind string) error {
	st, err := openPeerStore(kind, s.dir)
	if err != nil {
		return err
	}
	b, wait, err := appends(ctx, st, s.load, peersPaces{warm: s.warm, length: s.length})
	if err != nil {
		return err
	}
	if kind == "storage" { // it is measured again; the others end with the process
		if err := errors.Join(wait(), st.close()); err != nil {
			return err
		}
	}
	out, err := json.Marshal(storeResult{Acked: b.acked, Seconds: b.seconds})
	if err != nil {
		return err
	}
	return os.WriteFile(s.result, out, 0o644)
}

func openPeerStore(kind, dir string) (store, error) {
	switch kind {
	case "storage":
		db, err := storage.Open(dir, storage.Options{MaxBytes: 8 << 30})
		st := &ourStore{db: db, clock: storage.SystemClock(), senders: make([]string, producers)}
		for i := range st.senders {
			st.senders[i] = clientName(i)
		}
		return st, err
	case "badger":
		db, err := badger.Open(badger.DefaultOptions(dir).WithSyncWrites(true).WithLoggingLevel(badger.ERROR))
		return &badgerStore{db: db}, err
	}
	return nil, fmt.Errorf("open store %s: want storage or badger", kind)
}

// producers is how many there are at most.
const producers = 16

// ourStore is Holdfast's storage, with one queue and a sender for each producer.
type ourStore struct {
	db      *storage.DB
	clock   storage.Clock
	senders []string
}

func (s *ourStore) append(ctx context.Context, producer int, body []byte, done func(error)) error {
	s.db.Append(ctx, storage.Record{
		Sender: s.senders[producer], Stamp: s.clock.Now(), Body: body, To: []storage.Dest{{Queue: "cloud"}},
	}, done)
	return nil
}

func (s *ourStore) close() error { return s.db.Close() }

// badgerStore is badger as one would use it without a second thought: a
// transaction for each message, with its default options and SyncWrites.
type badgerStore struct {
	db  *badger.DB
	key atomic.Uint64
}

func (s *badgerStore) append(_ context.Context, _ int, body []byte, done func(error)) error {
	txn := s.db.NewTransaction(true)
	key := binary.BigEndian.AppendUint64(nil, s.key.Add(1))
	if err := txn.Set(key, body); err != nil {
		txn.Discard()
		return err
	}
	txn.CommitWith(done)
	return nil
}

func (s *badgerStore) close() error { return s.db.Close() }

// appends lets producers append, each with a window of messages under way, and
// counts what became durable. wait waits for what is under way then.
func appends(ctx context.Context, st store, l load, pace peersPaces) (found burst, wait func() error, err error) {
	r := &run{stop: make(chan struct{})}
	ctx, fail := context.WithCancelCause(ctx)
	var wg, open sync.WaitGroup
	for producer := range l.clients {
		wg.Go(func() { r.append(ctx, st, producer, l.window, &open, fail) })
	}
	found = r.count(ctx, pace, l)
	close(r.stop)
	wait = func() error {
		wg.Wait()
		open.Wait()
		err := context.Cause(ctx)
		fail(nil)
		return err
	}
	if err := context.Cause(ctx); err != nil {
		return found, wait, errors.Join(fmt.Errorf("append: %w", err), wait())
	}
	if found.acked == 0 {
		return found, wait, fmt.Errorf("append: nothing was durable in %.1f s", found.seconds)
	}
	return found, wait, nil
}

// append is one producer, until the run is stopped or something went wrong.
func (r *run) append(ctx context.Context, st store, producer, window int, open *sync.WaitGroup, fail func(error)) {
	template := append([]byte(peerTopic(producer)), peerBody(producer, 0)...) // as a broker would store it
	slots := make(chan struct{}, window)
	done := func(err error) {
		if err != nil {
			fail(err)
		} else {
			r.acked.Add(1)
		}
		<-slots
		open.Done()
	}
	for n := 1; ; n++ {
		select {
		case <-r.stop:
			return
		case <-ctx.Done():
			return
		case slots <- struct{}{}:
		}
		open.Add(1)
		if err := st.append(ctx, producer, numbered(template, n), done); err != nil {
			done(err)
		}
	}
}
