package storage

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"holdfast.dev/holdfast/storage/journal"
)

// request is what one caller wants of the next commit: all of it or nothing.
type request struct {
	changes []change
	done    func(error)
	lazy    bool // may wait for company
	again   bool // goes back into the line where a full store has no room for it, as a lazy one does
	alone   bool // has a frame of its own
	bytes   bool // grows the store: refused when it is full
	weight  int  // of a lazy one, in positions
	spans   int  // runs of positions that it ends
	order   *Order
	size    int
}

const (
	lazyWait  = time.Second      // a settlement is committed alone after this
	lazyCount = 1000             // or when so many positions wait
	fullWait  = 30 * time.Second // the same in a full store, where each frame eats of the reserve
)

// Append hands a record over. done is called exactly once, in the order of the
// calls: nil once the record and its Changes are on disk, for all queues, else
// ErrFull, ErrTooBig, ErrClosed or ErrBroken, and then it is in none. Append
// blocks only while half a segment is waiting already, or while the journal is longer
// than its ring and records are being moved out of it, until ctx ends.
func (db *DB) Append(ctx context.Context, r Record, done func(error)) {
	req := &request{done: done, order: r.Order}
	if len(r.To) > 0 {
		req.changes, req.bytes = append(req.changes, &store{rec: &r}), true
	}
	for _, c := range r.With {
		req.changes = append(req.changes, setKey{c})
		req.bytes = req.bytes || c.Value != nil // a full store can still forget
	}
	for _, c := range req.changes {
		req.size += c.size()
	}
	if req.size > MaxRecord {
		db.submit(&request{done: func(error) {
			done(fmt.Errorf("append record of %d bytes: %w: at most %d", req.size, ErrTooBig, MaxRecord))
		}})
		return
	}
	var err error
	if len(r.To) > 0 {
		err = db.pass(ctx)
	}
	if err == nil {
		err = db.room.Acquire(ctx, int64(req.size))
	}
	if err != nil {
		db.submit(&request{done: func(error) { done(err) }}) // through the line, for order's sake
		return
	}
	req.done = func(err error) { db.room.Release(int64(req.size)); done(err) }
	db.submit(req)
}

// Unrouted counts a message of sender that no queue wanted.
func (db *DB) Unrouted(sender string) {
	db.submit(&request{changes: []change{&unrouted{sender, 1}}, lazy: true, weight: 1})
}

// submit puts a request into the line and wakes the committer.
func (db *DB) submit(r *request) {
	if r.size == 0 {
		for _, c := range r.changes {
			r.size += c.size()
		}
	}
	db.lineMu.Lock()
	if db.lineErr != nil {
		err := db.lineErr
		db.lineMu.Unlock()
		if r.done != nil {
			r.done(err)
		}
		return
	}
	db.line = append(db.line, r)
	db.lined.Add(1)
	db.lineLazy += r.weight
	wake := !r.lazy || db.lineLazy >= lazyCount
	db.lineMu.Unlock()
	signal := db.soon
	if wake {
		signal = db.now
	}
	select {
	case signal <- struct{}{}:
	default:
	}
}

// commitLoop is the one goroutine that writes. It takes everything that waits,
// writes one frame, flushes once, and calls back in order.
func (db *DB) commitLoop() {
	defer close(db.ended)
	var alone <-chan time.Time
	for {
		select {
		case <-db.now:
		case <-alone:
		case <-db.soon:
			if alone == nil {
				alone = time.After(db.wait())
			}
			continue
		case <-db.quit:
			if db.commitAll() {
				db.stop(ErrClosed)
			}
			return
		}
		if alone = nil; db.waiting() == 0 {
			continue // whoever woke us went with the last group
		}
		db.linger()
		if !db.commitAll() {
			return
		}
	}
}

// commitAll commits until nothing waits; it says whether the store is still good.
func (db *DB) commitAll() bool {
	for {
		more, err := db.commit()
		if err != nil {
			db.putBack(db.aside)
			db.stop(err)
			return false
		}
		if !more {
			db.putBack(db.aside) // now, or the line would never come to its end
			db.aside = nil
			return true
		}
	}
}

func (db *DB) wait() time.Duration {
	if db.full.Load() {
		return fullWait
	}
	return lazyWait
}

// commit writes what waits, up to half a segment, and says whether more is there.
func (db *DB) commit() (more bool, err error) {
	batch, more := db.takeBatch()
	if len(batch) == 0 {
		return false, nil
	}
	begin := time.Now()
	kept, err := db.write(batch)
	if err != nil { // nobody of the batch has been answered
		err = db.broken(err)
		for _, r := range batch {
			r.finish(err)
		}
		return false, err
	}
	if err := db.reclaim(); err != nil { // all of it has, and is on disk
		return false, db.broken(err)
	}
	took := time.Since(begin)
	db.usual += (took - db.usual) / 8
	db.lastGroup = kept
	return more, nil
}

func (db *DB) broken(err error) error {
	err = fmt.Errorf("%w: %w", ErrBroken, err)
	db.log.Error("store can no longer be written", "folder", db.dir, "error", err)
	return err
}

// takeBatch takes requests from the line, as many as a frame may hold.
func (db *DB) takeBatch() (batch []*request, more bool) {
	db.lineMu.Lock()
	defer db.lineMu.Unlock()
	n, size := 0, 0
	for n < len(db.line) && (n == 0 || size+db.line[n].size <= db.o.SegmentBytes/2 && !db.line[n].alone && !db.line[0].alone) {
		size += db.line[n].size
		db.lineLazy -= db.line[n].weight
		n++
	}
	db.lined.Add(int64(-n))
	batch = db.line[:n:n]
	if n == len(db.line) {
		db.line = nil
	} else {
		db.line = db.line[n:]
	}
	return batch, len(db.line) > 0
}

// putBack returns requests to the head of the line.
func (db *DB) putBack(rs []*request) {
	if len(rs) == 0 {
		return
	}
	db.lineMu.Lock()
	defer db.lineMu.Unlock()
	db.line = append(rs, db.line...)
	db.lined.Add(int64(len(rs)))
	for _, r := range rs {
		db.lineLazy += r.weight
	}
	select {
	case db.soon <- struct{}{}:
	default:
	}
}

func (r *request) finish(err error) {
	if r.done != nil {
		r.done(err)
	}
}

// write makes one frame of the batch. What does not fit a full store is refused,
// the rest goes on. All are answered, or, where the error is not nil, none; the
// error is final.
func (db *DB) write(batch []*request) (kept int, err error) {
	verdict := make([]error, len(batch))
	if err := db.makeRoom(batch, verdict); err != nil {
		return 0, err
	}
	keepOrder(batch, verdict)
	db.mu.Lock()
	g := db.group()
	for i, r := range batch {
		if verdict[i] == nil {
			for _, c := range r.changes {
				c.encode(db, g)
			}
		}
	}
	db.mu.Unlock()
	if g.n > 0 {
		loc, err := db.j.Write(g.n, g.body)
		if err != nil {
			return 0, err
		}
		db.apply(batch, verdict, loc, g)
	}
	for i, r := range batch {
		if verdict[i] == errLater {
			db.aside = append(db.aside, r)
			continue
		}
		r.finish(verdict[i])
		if verdict[i] == nil && r.bytes {
			kept++
		}
	}
	return kept, nil
}

// apply makes the changes true in memory, now that they are on disk.
func (db *DB) apply(batch []*request, verdict []error, loc journal.Loc, g *group) {
	db.mu.Lock()
	defer db.mu.Unlock()
	for _, q := range g.opened {
		q.written = true
	}
	for q := range g.given {
		defer q.wake()
	}
	for i, r := range batch {
		if verdict[i] != nil {
			continue
		}
		for _, c := range r.changes {
			if s, ok := c.(*store); ok {
				s.loc = journal.Loc{Segment: loc.Segment, Offset: loc.Offset + s.loc.Offset}
			}
			c.apply(db)
		}
	}
	db.stats.Commits++
	db.stats.Records += uint64(g.n)
	db.stats.Bytes += uint64(len(g.body))
}

// group is a frame being put together.
type group struct {
	db      *DB
	body    []byte
	scratch []byte
	n       int
	given   map[*Queue]Position
	opened  []*Queue
}

func (db *DB) group() *group {
	g := &group{db: db, body: appendStamp(db.body[:0], db.o.Clock.Now()), scratch: db.scratch, given: map[*Queue]Position{}}
	return g
}

// record appends one record and gives the place of its payload in the body.
func (g *group) record(k kind, fill func([]byte) []byte) (start, n int) {
	g.body, g.scratch = appendRecord(g.body, g.scratch, k, fill)
	g.n++
	g.db.body, g.db.scratch = g.body, g.scratch
	return len(g.body) - len(g.scratch), len(g.scratch)
}

// open writes the queue's name if the journal does not have it yet.
func (g *group) open(q *Queue) {
	for _, o := range g.opened {
		if o == q {
			return
		}
	}
	if q.written {
		return
	}
	g.opened = append(g.opened, q)
	g.record(kindQueue, func(b []byte) []byte {
		return appendString(binary.AppendUvarint(b, uint64(q.id)), q.name)
	})
}

// position gives the next position of q in this group.
func (g *group) position(q *Queue) Position {
	p := q.next() + g.given[q]
	g.given[q]++
	return p
}
