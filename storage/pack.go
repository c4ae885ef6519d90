package storage

import (
	"encoding/binary"
	"fmt"
	"time"
)

// The value of a pack is its records in order, each
//
//	position, less the one before (the first: less 1) | 0 | length | message record
//	position, less the one before                     | 1 | pack | index in it
//
// A message for several queues is kept once, where the first of them has it; the
// others point there. The key is the pack's index, four bytes, big-endian.
const (
	here  = 0
	there = 1
)

// packBytes is about what a pack holds before it is compressed.
func (db *DB) packBytes() int { return min(1<<20, db.o.SegmentBytes/8) }

// place is where a message lies in a generation.
type place struct{ pack, i uint32 }

func packKey(index uint32) []byte { return binary.BigEndian.AppendUint32(nil, index) }

// draft is a pack being put together.
type draft struct {
	pack
	value     []byte
	at        Position   // newest
	positions []Position // of its records, and whose they are
	who       []uint32
}

// add takes a record into the draft: its message, or where that lies already.
func (d *draft) add(p Position, who uint32, payload []byte, at *place) {
	if d.n == 0 {
		d.first = p
	}
	d.value = binary.AppendUvarint(d.value, uint64(p-d.at))
	if at != nil {
		d.value = append(d.value, there)
		d.value = binary.AppendUvarint(binary.AppendUvarint(d.value, uint64(at.pack)), uint64(at.i))
	} else {
		d.value = appendBytes(append(d.value, here), payload)
	}
	d.at, d.last = p, p
	d.n++
	d.bytes += uint64(len(payload))
	d.positions, d.who = append(d.positions, p), append(d.who, who)
	for i := range d.whose {
		if d.whose[i].who == who {
			d.whose[i].n++
			return
		}
	}
	d.whose = append(d.whose, share{who, 1})
}

// live says until when the record that comes next lives.
func (d *draft) live(s Stamp, ttl time.Duration) {
	ms := ttl.Milliseconds()
	switch {
	case d.n == 0:
		d.until = deadline{s, ms}
	case d.until.ttl == 0 || ms == 0 || d.until.stamp.Boot != s.Boot:
		d.until = deadline{} // for ever, or nobody can compare
	case s.Up+ttl > d.until.stamp.Up+time.Duration(d.until.ttl)*time.Millisecond:
		d.until = deadline{s, ms}
	}
}

// finish notes which positions between first and last are not there.
func (d *draft) finish() {
	if Position(d.n) == d.last-d.first+1 {
		return
	}
	p := d.first
	for _, is := range d.positions {
		for ; p < is; p++ {
			d.ended.add(uint64(p-d.first), uint64(d.last-d.first+1))
		}
		p++
	}
}

// The directory of a generation, kept in its seal:
//
//	n × sender | n × pack
//
// and a pack
//
//	queue | its name | first | last - first | records | bytes | positions that are not there (spans) |
//	latest end of life (stamp, ttl in ms) | n × (sender's index, records)
func (db *DB) appendDirectory(b []byte, g *sealed) []byte {
	index, senders := map[uint32]uint64{}, []uint32{}
	for _, k := range g.packs {
		for _, s := range k.whose {
			if _, ok := index[s.who]; !ok {
				index[s.who] = uint64(len(senders))
				senders = append(senders, s.who)
			}
		}
	}
	b = binary.AppendUvarint(b, uint64(len(senders)))
	for _, who := range senders {
		b = appendString(b, db.names[who])
	}
	b = binary.AppendUvarint(b, uint64(len(g.packs)))
	for _, k := range g.packs {
		b = appendString(binary.AppendUvarint(b, uint64(k.q.id)), k.q.name)
		b = binary.AppendUvarint(binary.AppendUvarint(b, uint64(k.first)), uint64(k.last-k.first))
		b = binary.AppendUvarint(binary.AppendUvarint(b, uint64(k.n)), k.bytes)
		b = appendSpans(b, k.ended.spans(k.first))
		b = binary.AppendUvarint(appendStamp(b, k.until.stamp), uint64(k.until.ttl))
		b = binary.AppendUvarint(b, uint64(len(k.whose)))
		for _, s := range k.whose {
			b = binary.AppendUvarint(binary.AppendUvarint(b, index[s.who]), uint64(s.n))
		}
	}
	return b
}

// readDirectory makes a generation of its directory. open gives the queue of a
// number and a name.
func (db *DB) readDirectory(b []byte, open func(id uint32, name string) *Queue) (*sealed, error) {
	r := &reader{b: b}
	var senders []uint32
	for n := r.uint(); n > 0 && r.err == nil; n-- {
		senders = append(senders, db.number(r.string()))
	}
	g := &sealed{}
	for n := r.uint(); n > 0 && r.err == nil; n-- {
		k := &pack{g: g, index: uint32(len(g.packs))}
		k.q = open(uint32(r.uint()), r.string())
		k.first = Position(r.uint())
		k.last = k.first + Position(r.uint())
		k.n, k.bytes = int(r.uint()), r.uint()
		for _, s := range r.spans() {
			for p := s.first; p < s.first+s.n && p <= k.last; p++ {
				k.ended.add(uint64(p-k.first), uint64(k.last-k.first+1))
			}
		}
		k.until = deadline{r.stamp(), int64(r.uint())}
		for m := r.uint(); m > 0 && r.err == nil; m-- {
			i := r.uint()
			if i >= uint64(len(senders)) {
				return nil, errShort
			}
			k.whose = append(k.whose, share{senders[i], int(r.uint())})
		}
		g.packs = append(g.packs, k)
		g.built += k.n
	}
	g.n = g.built
	return g, r.err
}

// packed is a pack as it was read.
type packed struct {
	positions []Position
	messages  [][]byte // message records
	places    []place  // where they lie
}

// find gives the index of position p, or -1.
func (c *packed) find(p Position) int {
	lo, hi := 0, len(c.positions)
	for lo < hi {
		if mid := (lo + hi) / 2; c.positions[mid] < p {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo < len(c.positions) && c.positions[lo] == p {
		return lo
	}
	return -1
}

// parsePack takes a value apart; load gives the other packs that it points to.
func parsePack(index uint32, value []byte, load func(index uint32) (*packed, error)) (*packed, error) {
	r, c := &reader{b: value}, &packed{}
	var p Position
	for len(r.b) > 0 && r.err == nil {
		p += Position(r.uint())
		var m []byte
		at := place{index, uint32(len(c.positions))}
		switch r.byte() {
		case here:
			m = r.bytes()
		case there:
			at = place{uint32(r.uint()), uint32(r.uint())}
			if r.err != nil || at.pack >= index {
				return nil, fmt.Errorf("pack %d points to pack %d", index, at.pack)
			}
			other, err := load(at.pack)
			if err != nil {
				return nil, err
			}
			if int(at.i) >= len(other.messages) {
				return nil, fmt.Errorf("pack %d points beyond pack %d", index, at.pack)
			}
			m, at = other.messages[at.i], other.places[at.i]
		default:
			return nil, fmt.Errorf("pack %d: unknown form of a record", index)
		}
		c.positions, c.messages, c.places = append(c.positions, p), append(c.messages, m), append(c.places, at)
	}
	return c, r.err
}
