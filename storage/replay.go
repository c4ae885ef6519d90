package storage

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"holdfast.dev/holdfast/storage/journal"
)

// replay brings the state back from the frames of the journal.
//
// The picture at the head of the oldest segment is the ground; everything after is
// applied to it in order. A later picture says what is known already, unless
// something could not be read: from then on the maps and the ledger of each take the
// place of ours, and what the last one counted as open but is not in the index is
// lost to damage. A later picture that is not whole itself says nothing.
type replay struct {
	db       *DB
	pictured bool     // the ground has been laid
	ever     bool     // something was missing
	taken    *picture // being read
	segment  uint32   // of the frame at hand
	whole    uint32   // segment in which the last whole picture ends
	frames   int
	absent   map[uint32]error // generations that the journal speaks of and that are not there, or not whole
}

func (r *replay) frame(f journal.Frame) error {
	r.segment = f.Loc.Segment
	r.frames++
	first := firstKind(f.Body)
	if f.Gap > 0 {
		r.missing()
		if r.taken != nil {
			r.taken.partial = true
		}
	}
	switch {
	case r.taken == nil && first == kindMore && r.pictured:
		return nil // the rest of a picture that has lost its beginning, and is not needed
	case r.taken == nil && first == kindMore:
		r.missing()
		r.taken = newPicture(r.segment)
		r.taken.partial = true
	case r.taken != nil && first != kindMore && first != kindBegin:
		if err := r.abandon(); err != nil {
			return err
		}
	}
	return records(f.Body, func(k kind, p []byte, off int) error {
		loc := journal.Loc{Segment: f.Loc.Segment, Offset: f.Loc.Offset + uint32(off)}
		if err := r.record(k, p, loc); err != nil {
			return fmt.Errorf("record of kind %d: %w", k, err)
		}
		return nil
	})
}

// missing notes that something could not be read.
func (r *replay) missing() { r.ever = true }

// abandon gives up a picture that was never finished: by a crash, for want of
// room, or because damage took its end.
func (r *replay) abandon() error {
	taken := r.taken
	r.taken = nil
	if r.pictured {
		r.db.reach("a picture was not finished")
		return nil
	}
	r.missing()
	r.pictured = true
	return taken.lay(r, true) // some ground is better than none
}

func (r *replay) record(k kind, p []byte, loc journal.Loc) error {
	switch {
	case k == kindBegin:
		r.taken = newPicture(r.segment)
		return nil
	case k == kindMore:
		return nil
	case r.taken != nil:
		return r.taken.record(r, k, p)
	case !r.pictured:
		r.missing() // records before any picture: their ground was lost
	}
	in := &reader{b: p}
	var err error
	switch k {
	case kindMessage:
		err = r.message(p, loc)
	case kindSettled:
		err = r.settled(in)
	case kindPark:
		q := r.queue(in)
		c := &parkSender{q: q, sender: in.string(), reason: in.string()}
		r.change(in, q, c)
	case kindUnpark:
		q := r.queue(in)
		r.change(in, q, &unparkSender{q: q, sender: in.string()})
	case kindParked:
		q := r.queue(in)
		who := r.db.number(in.string())
		r.change(in, q, &parkRecord{q: q, who: who, pos: Position(in.uint()), reason: in.string()})
	case kindSet:
		r.set(in)
	case kindUnparked:
		q := r.queue(in)
		who := r.db.number(in.string())
		r.change(in, q, &unparkRecord{q: q, who: who, pos: Position(in.uint())})
	case kindUnrouted:
		c := &unrouted{sender: in.string(), n: in.uint()}
		if in.err == nil {
			c.apply(r.db)
		}
	case kindQueue:
		r.open(uint32(in.uint()), in.string())
	case kindGeneration:
		return r.install(in)
	case kindRow:
		return r.row(in)
	case kindRemoved:
		(&removeQueue{r.queue(in)}).apply(r.db)
	case kindPackEnd:
		return r.endPack(in)
	default:
		return fmt.Errorf("%w: unknown kind", ErrVersion)
	}
	if err == nil {
		err = in.err
	}
	return err
}

// queue reads a queue's number. Damage may have taken the record that named it.
func (r *replay) queue(in *reader) *Queue { return r.numbered(uint32(in.uint())) }

func (r *replay) numbered(id uint32) *Queue {
	if q := r.db.byID[id]; q != nil {
		return q
	}
	r.open(id, fmt.Sprintf("unnamed-%08x", id))
	r.db.byID[id].unnamed = true
	return r.db.byID[id]
}

func (r *replay) open(id uint32, name string) {
	db := r.db
	if q := db.byID[id]; q != nil {
		if q.name != name { // named at last
			delete(db.byName, q.name)
			q.name, q.unnamed, db.byName[name] = name, false, q
		}
		return
	}
	q := db.newQueue(id, name)
	q.written = true
}

func (r *replay) change(in *reader, q *Queue, c change) {
	if in.err == nil && q != nil {
		c.apply(r.db)
	}
}

func (r *replay) message(p []byte, loc journal.Loc) error {
	m, err := parseMessage(p)
	if err != nil {
		return err
	}
	m.body = nil // the index needs none of it
	for _, t := range m.to {
		if q := r.numbered(t.queue); !r.pictured && len(q.entries) == 0 {
			q.base, q.origin = t.pos, t.pos // its picture was lost; what came before has gone
		}
	}
	(&store{m: m, loc: loc, len: len(p)}).apply(r.db)
	return nil
}

func (r *replay) settled(in *reader) error {
	q := r.queue(in)
	who := r.db.number(in.string())
	c := &settle{q: q, who: who, outcome: Outcome(in.byte()), spans: in.spans()}
	if in.err == nil {
		c.apply(r.db)
	}
	return in.err
}

func (r *replay) set(in *reader) {
	if c := in.change(); in.err == nil {
		r.db.set(c)
	}
}

// end closes a picture. After damage it may count what is gone, if it is older than
// the opening that found out: then it is no ground for a later life.
func (r *replay) end() error {
	p, first := r.taken, !r.pictured
	r.taken, r.pictured = nil, true
	switch {
	case first:
		if err := p.lay(r, true); err != nil {
			return err
		}
	case p.partial:
		return nil
	case r.ever:
		if err := p.lay(r, false); err != nil {
			return err
		}
		if !r.db.agrees() {
			return nil
		}
	case r.db.o.check:
		if err := p.compare(r.db); err != nil {
			return err
		}
	}
	if !p.partial {
		r.db.pictured = append(r.db.pictured, p.segment)
		r.whole = r.segment
	}
	return nil
}

// settleAccounts makes the ledger agree with the index after damage: what it
// holds open and the index does not have is damaged; what the index has beyond
// (its end was lost) is open again.
func (db *DB) settleAccounts() (changed []rowKey) {
	db.countOpen()
	for k, row := range db.ledger {
		if row.Balance() != 0 {
			changed = append(changed, k)
		}
		switch b := row.Balance(); {
		case b > 0:
			row.Damaged += uint64(b)
		case b < 0 && row.Delivered >= uint64(-b):
			row.Delivered -= uint64(-b) // they will be delivered once more
		case b < 0:
			row.Accepted += uint64(-b)
		}
	}
	for _, q := range db.byID {
		q.lost = nil
	}
	return changed
}

// keepAccounts writes down what settleAccounts has changed, so that the next opening
// does not find and report the same damage.
func (db *DB) keepAccounts(changed []rowKey) error {
	g := &group{db: db, body: appendStamp(nil, db.o.Clock.Now())}
	for _, k := range changed {
		g.record(kindRow, func(b []byte) []byte { return appendRow(b, k.queue, db.ledger[k]) })
	}
	if g.n == 0 || !db.j.Fits(len(g.body), 0) {
		return nil
	}
	_, err := db.j.Write(g.n, g.body)
	return err
}

// row takes a row as an earlier opening has set it right.
func (r *replay) row(in *reader) error {
	p := newPicture(0)
	p.row(r.db, in)
	for k, row := range p.ledger {
		*r.db.row(k.who, k.queue) = *row
	}
	return in.err
}

// countOpen counts anew what is open. Replay knows how much that is, but not
// always whether a record in a segment that is gone was parked by itself.
func (db *DB) countOpen() {
	for _, row := range db.ledger {
		row.Pending, row.Parked = 0, 0
	}
	db.count(func(k rowKey, held bool, n uint64) {
		if row := db.row(k.who, k.queue); held {
			row.Parked += n
		} else {
			row.Pending += n
		}
	})
}

// quarantine copies what could not be read, so that nothing is hidden or thrown
// away, and takes note of it. Where there is no room for a copy the store is opened
// all the same: a full disk must not shut it.
func (db *DB) quarantine(d journal.Damage) error {
	dir := filepath.Join(db.dir, "quarantine")
	name := filepath.Join(dir, fmt.Sprintf("%s-%08x", filepath.Base(d.File), d.Offset))
	err := os.MkdirAll(dir, 0o700)
	if err == nil {
		err = copyPart(name, d.File, d.Offset, d.Bytes)
	}
	if err != nil {
		db.log.Warn("damaged part cannot be kept aside", "segment", d.File, "error", err)
		name = ""
	}
	if d.Tail {
		db.reach("the newest frame is torn")
		db.log.Warn("end of the journal is torn; it was never acknowledged unless the disk rots",
			"segment", d.File, "offset", d.Offset, "bytes", d.Bytes, "kept", name)
	} else {
		db.log.Error("journal is damaged; what could be read goes on",
			"segment", d.File, "offset", d.Offset, "bytes", d.Bytes, "records", d.Gap, "kept", name)
	}
	db.stats.Damage = append(db.stats.Damage, Damage{
		File: d.File, Offset: d.Offset, Bytes: d.Bytes, Records: d.Gap, Torn: d.Tail, Kept: name})
	return nil
}

func copyPart(to, from string, off, n int64) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(dst, io.NewSectionReader(src, off, n))
	if e := dst.Close(); err == nil {
		err = e
	}
	return err
}
