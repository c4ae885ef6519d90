package storage

import (
	"maps"
	"slices"

	"holdfast.dev/holdfast/storage/journal"
)

// builder puts a generation together, queue by queue, so that only one pack is in
// memory at a time. The queue with the most records goes first: the others point to
// the messages that it has too.
type builder struct {
	db       *DB
	last     *uint32 // segments up to this one; nil: none
	replaces []uint32
	g        *sealed
	drafts   []*draft
	seen     map[source]place // messages for several queues that are in already
	put      func(key, value []byte) error
	d        *draft // at hand
	buf      []byte // that its value is put together in, again and again
}

// source is where a message lies now: in a segment (number 0: segment, offset), or
// in a generation (its number, pack, index in it).
type source struct{ number, a, b uint32 }

// piece is one record to be moved.
type piece struct {
	pos    Position
	who    uint32
	length uint32
	from   source
	pack   *pack // of a cold one
}

func (b *builder) fill(put func(key, value []byte) error) (directory []byte, err error) {
	b.put = put
	for _, q := range b.queues() {
		if err := b.queue(q); err != nil {
			return nil, err
		}
		if len(b.replaces) == 0 && generationSize(b.g, 0) > b.db.o.SegmentBytes/4 {
			break // its record must fit a frame; what is left moves next
		}
	}
	if len(b.drafts) == 0 {
		return nil, errNothing
	}
	b.db.mu.Lock()
	defer b.db.mu.Unlock()
	return b.db.appendDirectory(nil, b.g), nil
}

// queues gives the queues concerned, the one with the most records first.
func (b *builder) queues() []*Queue {
	b.db.mu.Lock()
	defer b.db.mu.Unlock()
	n := map[*Queue]int{}
	for _, q := range b.db.byID {
		if i := len(b.hot(q)); i > 0 {
			n[q] += i
		}
	}
	for _, k := range b.packs(nil) {
		n[k.q] += k.n
	}
	qs := slices.Collect(maps.Keys(n))
	slices.SortFunc(qs, func(x, y *Queue) int {
		if n[x] != n[y] {
			return n[y] - n[x]
		}
		return int(int64(x.id) - int64(y.id))
	})
	return qs
}

// hot gives the entries of q that lie in the segments. Called with db.mu held.
func (b *builder) hot(q *Queue) []entry {
	if b.last == nil {
		return nil
	}
	i := 0
	for i < len(q.entries) && (q.entries[i].settled() || q.entries[i].segment <= *b.last) {
		i++
	}
	return q.entries[:i]
}

// packs gives the packs of q, or of all queues, that are replaced. Called with db.mu
// held.
func (b *builder) packs(q *Queue) (out []*pack) {
	for _, n := range b.replaces {
		g := b.db.generations[n]
		if g == nil {
			continue
		}
		for _, k := range g.packs {
			if k != nil && (q == nil || k.q == q) {
				out = append(out, k)
			}
		}
	}
	return out
}

// queue moves what is to be moved of one queue.
func (b *builder) queue(q *Queue) error {
	b.db.mu.Lock()
	var all []piece
	for i, e := range b.hot(q) {
		if !e.settled() {
			all = append(all, piece{pos: q.base + Position(i), who: e.sender(), length: e.length, from: source{0, e.segment, e.offset}})
		}
	}
	packs := b.packs(q)
	b.db.mu.Unlock()
	for _, k := range packs {
		c, err := b.db.content(k)
		if err != nil {
			return err // a read will find out and count it
		}
		b.db.mu.Lock()
		for i, p := range c.positions {
			if k.has(p) {
				all = append(all, piece{pos: p, who: b.db.number(string(senderOf(c.messages[i]))),
					from: source{k.g.mark.Number, c.places[i].pack, c.places[i].i}, pack: k})
			}
		}
		b.db.mu.Unlock()
	}
	slices.SortFunc(all, func(x, y piece) int { return int(int64(x.pos) - int64(y.pos)) })
	for _, x := range all {
		if err := b.piece(q, x); err != nil {
			return err
		}
	}
	return b.finish()
}

// piece moves one record.
func (b *builder) piece(q *Queue, x piece) error {
	at, known := b.seen[x.from]
	payload, err := b.read(q, x)
	if err != nil || payload == nil {
		return err
	}
	m, err := parseMessage(payload)
	c, ok := m.in(q.id)
	if err != nil || !ok || c.pos != x.pos {
		return b.damaged(q, x)
	}
	if b.d != nil && b.cuts(q, x, m.stamp) {
		if err := b.finish(); err != nil {
			return err
		}
	}
	if b.d == nil {
		b.d = &draft{pack: pack{g: b.g, q: q, index: uint32(len(b.drafts))}, value: b.buf}
	}
	b.d.live(m.stamp, c.ttl)
	if known {
		b.d.add(x.pos, x.who, payload, &at)
		return nil
	}
	if len(m.to) > 1 {
		b.seen[x.from] = place{b.d.index, uint32(b.d.n)}
	}
	b.d.add(x.pos, x.who, payload, nil)
	return nil
}

// cuts says whether a record begins a new pack: the one at hand is full, or of
// another boot, or another pack of the queue lies between, or a wide gap.
func (b *builder) cuts(q *Queue, x piece, s Stamp) bool {
	if len(b.d.value) >= b.db.packBytes() || b.d.until.ttl > 0 && b.d.until.stamp.Boot != s.Boot || x.pos-b.d.last > maxGap ||
		x.pos-b.d.first > maxGap+maxThin*Position(b.d.n) {
		return true
	}
	b.db.mu.Lock()
	defer b.db.mu.Unlock()
	for i := q.packAfter(b.d.last); i < len(q.cold) && q.cold[i].first < x.pos; i++ {
		if !slices.Contains(b.replaces, q.cold[i].g.mark.Number) {
			return true
		}
	}
	return false
}

// What is not there costs a bit of memory: this is the widest gap between two
// positions of one pack, and about the most positions for each of its records.
const (
	maxGap  = 1 << 16
	maxThin = 256
)

// read gives the message record of a piece; nil if it has ended meanwhile.
func (b *builder) read(q *Queue, x piece) ([]byte, error) {
	if x.pack != nil {
		c, err := b.db.content(x.pack)
		if err != nil {
			return nil, err
		}
		return c.messages[c.find(x.pos)], nil
	}
	p := make([]byte, x.length)
	for range 2 { // a fault that passes must not cost a record
		if err := b.db.j.ReadAt(p, journal.Loc{Segment: x.from.a, Offset: x.from.b}); err == nil {
			return p, nil
		}
	}
	return nil, b.damaged(q, x)
}

// damaged counts a record that cannot be read, before the move is committed.
func (b *builder) damaged(q *Queue, x piece) error {
	b.db.mu.Lock()
	_, ok := q.holds(x.pos)
	b.db.mu.Unlock()
	if !ok {
		return nil
	}
	b.db.log.Warn("record is damaged", "queue", q.Name(), "position", x.pos)
	done := make(chan error, 1)
	q.Settle([]Position{x.pos}, Damaged, func(err error) { done <- err })
	return <-done
}

// finish puts the pack at hand into the generation.
func (b *builder) finish() error {
	d := b.d
	if d == nil {
		return nil
	}
	b.d = nil
	d.finish()
	if err := b.put(packKey(d.index), d.value); err != nil {
		return err
	}
	b.buf, d.value = d.value[:0], nil
	b.drafts = append(b.drafts, d)
	b.g.packs = append(b.g.packs, &d.pack)
	b.g.built += d.n
	return nil
}
