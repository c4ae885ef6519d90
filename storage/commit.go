package storage

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"holdfast.dev/holdfast/storage/journal"
)

// request is what one caller wants of the next commit: all of it or nothing.
type request struct {
	changes []change
	done    func(error)
	lazy    bool // may wait for company
	again   bool // goes back into the line where a full store has no room for it, as a lazy one does
	bytes   bool // grows the store: refused when it is full
	weight  int  // of a lazy one, in positions
	spans   int  // runs of positions that it ends
	size    int
}

const (
	lazyWait  = time.Second      // a settlement is committed alone after this
	lazyCount = 1000             // or when so many positions wait
	fullWait  = 30 * time.Second // the same in a full store, where each frame eats of the reserve
)

// timerSlack is about what the shortest sleep really takes.
const timerSlack = 200 * time.Microsecond

// reserve is what is left free in a segment while no other stands ready, so that
// settlements find room until it is known whether there will be one.
func (db *DB) reserve() int { return db.o.SegmentBytes / 8 }

// Append hands a record over. done is called exactly once, in the order of the
// calls: nil once the record and its Changes are on disk, for all queues, else
// ErrFull, ErrTooBig, ErrClosed or ErrBroken, and then it is in none. Append
// blocks only while half a segment is waiting already, until ctx ends.
func (db *DB) Append(ctx context.Context, r Record, done func(error)) {
	req := &request{done: done}
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
	if err := db.room.Acquire(ctx, int64(req.size)); err != nil {
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
		alone = nil
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

// linger waits a little for company, a tenth of what a commit takes, if the last
// group had any: alone, a lone client would only lose by it. On a disk so fast that
// a timer is slower, it does not wait at all: 20 publishes under way lost a third of
// their rate to a sleep that was meant to last 27 µs.
func (db *DB) linger() {
	if db.lastGroup <= 1 || db.o.Linger < 0 {
		return
	}
	if d := min(db.o.Linger, db.usual/10); d >= timerSlack {
		time.Sleep(d)
	}
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
	for n < len(db.line) && (n == 0 || size+db.line[n].size <= db.o.SegmentBytes/2) {
		size += db.line[n].size
		db.lineLazy -= db.line[n].weight
		n++
	}
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

// makeRoom sees to it that the batch fits the present segment, taking a fresh one
// where it does not. When none is to be had, appends are refused, and others too
// if even the reserve is used up: their callers lose nothing but time.
func (db *DB) makeRoom(batch []*request, verdict []error) error {
	if slices.ContainsFunc(db.aside, func(r *request) bool { return r.again }) {
		db.queueUp(batch, verdict)
	}
	db.checkQuota(batch, verdict)
	db.full.Store(false)
	if db.fits(batch, verdict) {
		return nil
	}
	if !db.j.Spacious() && slices.ContainsFunc(batch, func(r *request) bool { return r.bytes }) {
		// What is left is for settlements.
		db.full.Store(true)
		db.refuse(batch, verdict, func(r *request) bool { return r.bytes })
		if db.fits(batch, verdict) {
			return nil
		}
	}
	err := db.rotate()
	if err == nil && !db.fits(batch, verdict) { // the picture left too little
		err = db.j.Rotate()
	}
	if err != nil && !errors.Is(err, journal.ErrNoSpace) {
		return err
	}
	if err != nil || !db.fits(batch, verdict) {
		db.full.Store(true)
		db.refuse(batch, verdict, func(*request) bool { return true })
	}
	return nil
}

// queueUp keeps parkings and unparkings in order: none overtakes one that waits.
func (db *DB) queueUp(batch []*request, verdict []error) {
	for i, r := range batch {
		if r.again && verdict[i] == nil {
			verdict[i] = errLater
		}
	}
}

// checkQuota refuses what the maps have no room for.
func (db *DB) checkQuota(batch []*request, verdict []error) {
	held := db.mapBytes
	for i, r := range batch {
		if verdict[i] != nil {
			continue
		}
		grows := db.growth(r)
		if grows > 0 && held+grows > db.mapQuota() {
			verdict[i] = fmt.Errorf("change maps: %w: at most %d bytes of keys and values", ErrFull, db.mapQuota())
			continue
		}
		held += grows
	}
}

// fits says whether all that is not refused may go into the present segment.
func (db *DB) fits(batch []*request, verdict []error) bool {
	size, spare := slack, 0
	for i, r := range batch {
		if verdict[i] == nil {
			size += r.size
			spare = max(spare, db.spared(r))
		}
	}
	return db.j.Fits(size, spare)
}

// spared is what a request must leave of the present segment. While a fresh one
// stands ready that is nothing. Of the last there is, appends get none, and what
// is neither append nor end of a record only half: with each of them a page goes,
// and the rest must do for a drain.
func (db *DB) spared(r *request) int {
	switch {
	case len(r.changes) == 0, db.j.Ready():
		return 0
	case !db.j.Last():
		return db.reserve()
	case r.bytes:
		return db.o.SegmentBytes
	case r.spans == 0:
		return db.o.SegmentBytes / 2
	}
	return 0
}

// growth is what a request adds to the maps at most: what it removes is not told off.
func (db *DB) growth(r *request) (n int) {
	for _, c := range r.changes {
		s, ok := c.(setKey)
		if !ok || s.Value == nil {
			continue
		}
		if old, ok := db.maps[s.Map][s.Key]; ok { // only the committer changes maps
			n += max(0, len(s.Value)-len(old))
		} else {
			n += len(s.Key) + len(s.Value)
		}
	}
	return n
}

// slack is room in a frame for what belongs to none of its records.
const slack = 4096

// refuse decides what of a batch a full store still takes, of those that are which
// is true for: what fits, each in its share. A settlement that nobody waits for, and
// what must become true, goes back into the line; a repeat is all that a crash
// would cost meanwhile.
func (db *DB) refuse(batch []*request, verdict []error, which func(*request) bool) {
	used, waits := slack, false // waits: a parking does, and none may overtake it
	for i, r := range batch {
		if verdict[i] != nil || !which(r) {
			continue
		}
		switch {
		case len(r.changes) == 0:
		case r.again && waits:
			verdict[i] = errLater
		case db.j.Fits(used+r.size, db.spared(r)):
			used += r.size
		case r.lazy || r.again:
			verdict[i], waits = errLater, waits || r.again
		default:
			verdict[i] = fmt.Errorf("%w: %w", ErrFull, journal.ErrNoSpace)
			db.unsettle(r)
		}
	}
}

// errLater marks a request that is put back into the line.
var errLater = errors.New("later")

// unsettle makes the records of a settlement that was refused readable again.
func (db *DB) unsettle(r *request) {
	db.mu.Lock()
	defer db.mu.Unlock()
	for _, c := range r.changes {
		s, ok := c.(*settle)
		if !ok {
			continue
		}
		for _, sp := range s.spans {
			for p := sp.first; p < sp.first+sp.n; p++ {
				switch e := s.q.at(p); {
				case e == nil || e.settled():
				case e.state() == settling:
					e.set(pending)
				case e.state() == settlingParked:
					e.set(parked)
				}
			}
		}
	}
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
