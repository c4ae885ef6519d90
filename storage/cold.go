package storage

import (
	"encoding/binary"
	bits64 "math/bits"
	"slices"

	"holdfast.dev/holdfast/storage/generation"
)

// What was not drained soon lies in sealed generations. In memory nothing is held
// for each of its records but one bit, and that only where some have ended: a queue
// has, before its entries, a few packs in position order, and beside them the few
// cold records that are in another state than pending.

// sealed is a generation that counts: the journal has said so.
type sealed struct {
	mark    generation.Mark
	packs   []*pack // by index; nil: all of it has ended
	built   int     // records when it was sealed
	n       int     // that have not ended
	damaged bool    // it is set aside and not dropped
}

// pack is what one value of a generation holds of one queue: records at positions
// first to last. Packs of one queue do not overlap.
type pack struct {
	g           *sealed
	index       uint32 // its key in the generation
	q           *Queue
	first, last Position
	n           int      // records that have not ended
	ended       bits     // of first to last: not there, or ended
	whose       []share  // as the generation's directory has them; zeros stay
	bytes       uint64   // of those that have not ended, about
	until       deadline // when the last of them has expired
	changed     bool     // something has ended since it was sealed
	ending      bool     // all that is left in it is about to end
}

// share is how much of a pack is one sender's.
type share struct {
	who uint32
	n   int
}

// deadline is the latest end of life in a pack.
type deadline struct {
	stamp Stamp
	ttl   int64 // milliseconds; 0: one lives for ever
}

// oddity is a cold record that is not simply pending. who is known from the read
// that came before.
type oddity struct {
	who   uint32
	state state
}

// bits is a set of small numbers; the zero value is empty and costs nothing.
type bits []uint64

func (b bits) has(i uint64) bool { return i/64 < uint64(len(b)) && b[i/64]>>(i%64)&1 == 1 }

// add takes i into a set of numbers below n.
func (b *bits) add(i, n uint64) {
	if *b == nil {
		*b = make(bits, (n+63)/64)
	}
	(*b)[i/64] |= 1 << (i % 64)
}

// packOf gives the pack in which p lies, or nil. Called with db.mu held.
func (q *Queue) packOf(p Position) *pack {
	if i := q.packAfter(p - 1); i < len(q.cold) && q.cold[i].first <= p {
		return q.cold[i]
	}
	return nil
}

// packAfter gives the index of the first pack with something behind p.
func (q *Queue) packAfter(p Position) int {
	i, _ := slices.BinarySearchFunc(q.cold, p, func(k *pack, p Position) int {
		if k.last <= p {
			return -1
		}
		return 1
	})
	return i
}

// has says whether the record at p is in the pack and has not ended.
func (k *pack) has(p Position) bool {
	return p >= k.first && p <= k.last && !k.ended.has(uint64(p-k.first))
}

// end takes the record at p, of who, out.
func (k *pack) end(p Position, who uint32) {
	k.ended.add(uint64(p-k.first), uint64(k.last-k.first+1))
	size := k.bytes / uint64(k.n)
	k.changed = true
	k.n--
	k.g.n--
	k.bytes -= size
	k.q.bytes -= size
	for i := range k.whose {
		if s := &k.whose[i]; s.who == who && s.n > 0 {
			s.n--
			break
		}
	}
	if k.n == 0 {
		k.q.unfile(k)
	}
}

// file puts a pack into its queue's line.
func (q *Queue) file(k *pack) {
	q.cold = slices.Insert(q.cold, q.packAfter(k.first-1), k)
	q.bytes += k.bytes
}

// unfile takes it out again.
func (q *Queue) unfile(k *pack) {
	if i := slices.Index(q.cold, k); i >= 0 {
		q.cold = slices.Delete(q.cold, i, i+1)
		q.bytes -= k.bytes
	}
	k.g.packs[k.index] = nil
}

// The generation record, in a picture and where a move is committed:
//
//	number | CRC-32C of SEAL | bytes | n × number that it replaces | n × changed pack
//
// A changed pack is its index, and 0 if all of it has ended, else how many have not,
// what has ended (1: bitmap, 2: spans), and how many of each share of the directory
// are left. A pack that is not listed is as it was sealed.
func appendGeneration(b []byte, g *sealed, replaces []uint32) []byte {
	b = binary.AppendUvarint(b, uint64(g.mark.Number))
	b = binary.AppendUvarint(b, uint64(g.mark.Sum))
	b = binary.AppendUvarint(b, uint64(g.mark.Bytes))
	b = binary.AppendUvarint(b, uint64(len(replaces)))
	for _, n := range replaces {
		b = binary.AppendUvarint(b, uint64(n))
	}
	changed := 0
	for _, k := range g.packs {
		if k == nil || k.changed {
			changed++
		}
	}
	b = binary.AppendUvarint(b, uint64(changed))
	for i, k := range g.packs {
		switch {
		case k == nil || k.changed && k.n == 0:
			b = binary.AppendUvarint(binary.AppendUvarint(b, uint64(i)), 0)
		case k.changed:
			b = k.append(binary.AppendUvarint(b, uint64(i)))
		}
	}
	return b
}

func (k *pack) append(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(k.n))
	spans := appendSpans(nil, k.ended.spans(k.first))
	if size := int(k.last-k.first)/8 + 1; len(spans) > size {
		b = append(b, 1)
		for i := range size {
			b = append(b, byte(k.ended[i/8]>>(i%8*8)))
		}
	} else {
		b = append(append(b, 2), spans...)
	}
	for _, s := range k.whose {
		b = binary.AppendUvarint(b, uint64(s.n))
	}
	return b
}

// generationSize is the most that the record of g can take.
func generationSize(g *sealed, replaces int) int {
	n := 64 + 10*replaces
	for _, k := range g.packs {
		if k != nil {
			n += 32 + min(int(k.last-k.first)/8+1, 10+20*k.n) + 5*len(k.whose)
		}
	}
	return n
}

// spans gives the set as runs of positions, the first of which stands for 0.
func (b bits) spans(first Position) (out []span) {
	for i := uint64(0); i < 64*uint64(len(b)); i++ {
		if rest := b[i/64] >> (i % 64); rest == 0 {
			i |= 63 // nothing more in this word
			continue
		} else if skip := bits64.TrailingZeros64(rest); skip > 0 {
			i += uint64(skip)
		}
		p := first + Position(i)
		if n := len(out); n > 0 && out[n-1].first+out[n-1].n == p {
			out[n-1].n++
		} else {
			out = append(out, span{p, 1})
		}
	}
	return out
}

// generationRecord is such a record taken apart, but for its changed packs: they
// can only be read beside the directory.
type generationRecord struct {
	mark     generation.Mark
	replaces []uint32
	changed  *reader
}

func (r *reader) generation() (g generationRecord) {
	g.mark = generation.Mark{Number: uint32(r.uint()), Sum: uint32(r.uint()), Bytes: int64(r.uint())}
	for n := r.uint(); n > 0 && r.err == nil; n-- {
		g.replaces = append(g.replaces, uint32(r.uint()))
	}
	g.changed = &reader{b: r.b, err: r.err}
	return g
}

// change brings a generation that was read from its seal to what the record says.
func (g *sealed) change(r *reader) error {
	for n := r.uint(); n > 0 && r.err == nil; n-- {
		i := r.uint()
		if i >= uint64(len(g.packs)) || g.packs[i] == nil {
			return errShort
		}
		k := g.packs[i]
		k.read(r)
		if k.n == 0 {
			g.packs[i] = nil
		}
	}
	g.n = 0
	for _, k := range g.packs {
		if k != nil {
			g.n += k.n
		}
	}
	return r.err
}

// read takes what has changed in a pack.
func (k *pack) read(r *reader) {
	was := k.n
	k.changed, k.n = true, int(r.uint())
	if k.n == 0 {
		return
	}
	k.bytes = k.bytes * uint64(k.n) / uint64(max(was, 1))
	size := uint64(k.last-k.first) + 1
	switch r.byte() {
	case 1:
		k.ended = make(bits, (size+63)/64)
		for i, b := range r.take(int(size-1)/8 + 1) {
			k.ended[i/8] |= uint64(b) << (i % 8 * 8)
		}
	case 2:
		k.ended = nil
		for _, s := range r.spans() {
			for p := s.first; p < s.first+s.n && p <= k.last; p++ {
				k.ended.add(uint64(p-k.first), size)
			}
		}
	default:
		r.err = errShort
	}
	for i := range k.whose {
		k.whose[i].n = int(r.uint())
	}
}

// stateOr is the oddity's state, or s where there is none.
func (o oddity) stateOr(s state) state {
	if o.state == pending {
		return s
	}
	return o.state
}

// alone counts the records of who that are parked by themselves.
func (q *Queue) alone(who uint32) (n uint64) {
	for _, e := range q.entries {
		if e.sender() == who && !e.settled() && (e.state() == parked || e.state() == settlingParked) {
			n++
		}
	}
	for _, o := range q.odd {
		if o.who == who && (o.state == parked || o.state == settlingParked) {
			n++
		}
	}
	return n
}
