package storage

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"

	"holdfast.dev/holdfast/storage/journal"
)

// replay brings the state back from the frames of the journal.
//
// The picture at the head of the oldest segment is the ground; everything after is
// applied to it in order. A later picture says what is known already, unless
// something could not be read: then its maps and ledger take the place of ours,
// and what it counted as open but is not in the index is lost to damage.
type replay struct {
	db       *DB
	pictured bool   // the ground has been laid
	inside   bool   // between begin and end
	skip     bool   // a later picture, nothing was missing
	damaged  bool   // something was missing since the last picture
	segment  uint32 // of the frame at hand
	frames   int
	taken    *picture // being read
}

// picture is the part of a later picture that may replace ours.
type picture struct {
	maps   map[string]map[string][]byte
	ledger map[rowKey]*Row
}

func (r *replay) frame(f journal.Frame) error {
	if f.Gap > 0 {
		r.damaged = true
	}
	r.segment = f.Loc.Segment
	r.frames++
	return records(f.Body, func(k kind, p []byte, off int) error {
		loc := journal.Loc{Segment: f.Loc.Segment, Offset: f.Loc.Offset + uint32(off)}
		if err := r.record(k, p, loc); err != nil {
			return fmt.Errorf("record of kind %d: %w", k, err)
		}
		return nil
	})
}

func (r *replay) record(k kind, p []byte, loc journal.Loc) error {
	if k == kindBegin {
		r.inside, r.skip = true, r.pictured
		r.taken = &picture{map[string]map[string][]byte{}, map[rowKey]*Row{}}
		return nil
	}
	if !r.pictured && !r.inside {
		r.damaged = true // records before any picture: their ground was lost
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
	case kindNext:
		r.next(in)
	case kindRow:
		r.row(in)
	case kindEnd:
		err = r.end()
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
	if in.err == nil && q != nil && !r.skip {
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
	c := Change{Map: in.string(), Key: in.string()}
	if in.byte() == 1 {
		c.Value = append([]byte{}, in.bytes()...)
	}
	switch {
	case in.err != nil:
	case r.inside && r.skip:
		m := r.taken.maps[c.Map]
		if m == nil {
			m = map[string][]byte{}
			r.taken.maps[c.Map] = m
		}
		m[c.Key] = c.Value
	default:
		r.db.set(c)
	}
}

// next sets the first position of a queue that can still come.
func (r *replay) next(in *reader) {
	q, p := r.queue(in), Position(in.uint())
	if in.err != nil {
		return
	}
	if !r.skip && len(q.entries) == 0 {
		q.base, q.origin = p, p
	} else if p > q.next() {
		q.gap(p)
	}
}

func (r *replay) row(in *reader) {
	queue, sender := uint32(in.uint()-1), in.string()
	row := &Row{Sender: sender}
	for _, n := range row.counts() {
		*n = in.uint()
	}
	if in.err != nil {
		return
	}
	r.taken.ledger[rowKey{r.db.number(sender), queue}] = row
}

// end closes a picture.
func (r *replay) end() (err error) {
	first := !r.pictured
	r.inside, r.pictured = false, true
	r.db.pictured = append(r.db.pictured, r.segment)
	switch {
	case first && !r.damaged:
		r.db.ledger = r.taken.ledger
	case r.damaged:
		r.replace()
	case r.db.o.check:
		err = r.taken.compare(r.db)
	}
	r.skip, r.taken = false, nil
	if !first {
		r.damaged = false
	}
	return err
}

// compare says where a picture differs from what replay has made.
func (p *picture) compare(db *DB) error {
	for k, want := range p.ledger {
		if got := db.row(k.who, k.queue); *got != *want {
			return fmt.Errorf("picture has the row %+v, replay %+v", *want, *got)
		}
	}
	for k, got := range db.ledger {
		if p.ledger[k] == nil && *got != (Row{Sender: got.Sender}) {
			return fmt.Errorf("picture has no row %+v", *got)
		}
	}
	for name, m := range db.maps {
		if !maps.EqualFunc(m, p.maps[name], bytes.Equal) && len(m)+len(p.maps[name]) > 0 {
			return fmt.Errorf("picture has map %s as %q, replay as %q", name, p.maps[name], m)
		}
	}
	return nil
}

// replace takes the picture's maps and ledger for ours after damage. Records that
// it counted as open and that the index does not have are lost.
func (r *replay) replace() {
	db := r.db
	db.maps, db.mapBytes = map[string]map[string][]byte{}, 0
	for name, m := range r.taken.maps {
		for k, v := range m {
			db.set(Change{Map: name, Key: k, Value: v})
		}
	}
	db.ledger = r.taken.ledger
	db.settleAccounts()
}

// settleAccounts makes the ledger agree with the index after damage: what it
// holds open and the index does not have is damaged; what the index has beyond
// (its end was lost) is open again.
func (db *DB) settleAccounts() {
	open := map[rowKey][2]uint64{}
	for _, q := range db.byID {
		for i := range q.entries {
			e := &q.entries[i]
			if e.settled() {
				continue
			}
			k := rowKey{e.sender(), q.id}
			n := open[k]
			if q.isParked(e.sender(), e.state()) {
				n[1]++
			} else {
				n[0]++
			}
			open[k] = n
			db.row(k.who, k.queue)
		}
	}
	for k, row := range db.ledger {
		n := open[k]
		row.Pending, row.Parked = n[0], n[1]
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
}

// quarantine copies what could not be read, so that nothing is hidden or thrown
// away, and takes note of it.
func (db *DB) quarantine(d journal.Damage) error {
	dir := filepath.Join(db.dir, "quarantine")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("keep damaged part: %w", err)
	}
	name := filepath.Join(dir, fmt.Sprintf("%s-%08x", filepath.Base(d.File), d.Offset))
	if err := copyPart(name, d.File, d.Offset, d.Bytes); err != nil {
		return fmt.Errorf("keep damaged part of %s: %w", d.File, err)
	}
	if d.Tail {
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
