package storage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"time"
)

// A frame's body is the committer's stamp and then records, each
//
//	kind (1) | length of the payload (uvarint) | payload
//
// Strings and byte strings are a uvarint length and the bytes; integers are
// uvarints; a stamp is boot (8), up in ns (8), wall in ms since 1970 (8), grade (1).
//
//	kind      payload
//	message   n | n × (queue, position, ttl in ms (0: for ever), note) | sender | stamp | body to the end but 4 | crc32c (4)
//	settled   queue | sender | outcome (1) | n | n × (gap to the range before, length)
//	park      queue | sender | reason             all of a sender, also what comes later
//	unpark    queue | sender
//	parked    queue | sender | position | reason  one record
//	unparked  queue | sender | position
//	set       map | key | 1 (1) | value  or  map | key | 0 (1)
//	unrouted  sender | n
//	queue     number | name                       the queue is new
//	begin                                         a picture of the state follows: all maps, queues, ledger rows, parked senders
//	more                                          first in each further frame of the picture
//	next      queue | position                    picture: the next position of a queue
//	row       queue+1 (0: none) | sender | accepted, delivered, expired, evicted, discarded, damaged, parked, pending, unrouted; outside of a picture: set right after damage
//	end                                           the picture is complete
//	removed   queue                               it was empty; what it has seen stands under another row
//	generation                                    see appendGeneration; what is in it lies there from now on
//	pack end  queue | outcome (1) | n × (sender, pending, parked) | generation | pack | first, last - first      all that was left in a pack
//
// The message's own checksum is there because it is read back alone, long after
// its frame was checked.
type kind byte

const (
	kindMessage kind = iota + 1
	kindSettled
	kindPark
	kindUnpark
	kindParked
	kindUnparked
	kindSet
	kindUnrouted
	kindQueue
	kindBegin
	kindNext
	kindRow
	kindEnd
	kindMore
	kindGeneration
	kindPackEnd
	kindRemoved
)

const stampSize = 25

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var errShort = errors.New("record ends too early")

func appendStamp(b []byte, s Stamp) []byte {
	b = binary.LittleEndian.AppendUint64(b, s.Boot)
	b = binary.LittleEndian.AppendUint64(b, uint64(s.Up))
	b = binary.LittleEndian.AppendUint64(b, uint64(s.Wall.UnixMilli()))
	return append(b, byte(s.Grade))
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendBytes(b, s []byte) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// appendRecord appends a record of kind k whose payload is made by fill in scratch;
// it returns the grown dst and scratch.
func appendRecord(dst, scratch []byte, k kind, fill func([]byte) []byte) (grown, spare []byte) {
	scratch = fill(scratch[:0])
	dst = append(dst, byte(k))
	dst = binary.AppendUvarint(dst, uint64(len(scratch)))
	return append(dst, scratch...), scratch
}

// span is a run of positions.
type span struct{ first, n Position }

// appendSpans writes spans that are sorted and do not touch.
func appendSpans(b []byte, spans []span) []byte {
	b = binary.AppendUvarint(b, uint64(len(spans)))
	var last Position
	for _, s := range spans {
		b = binary.AppendUvarint(b, uint64(s.first-last))
		b = binary.AppendUvarint(b, uint64(s.n))
		last = s.first + s.n
	}
	return b
}

// reader takes a payload apart. After the first fault everything is zero and err is set.
type reader struct {
	b   []byte
	err error
}

func (r *reader) take(n int) []byte {
	if r.err != nil || n < 0 || n > len(r.b) {
		r.err, r.b = errShort, nil
		return nil
	}
	p := r.b[:n]
	r.b = r.b[n:]
	return p
}

func (r *reader) uint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.err, r.b = errShort, nil
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) byte() byte {
	if p := r.take(1); p != nil {
		return p[0]
	}
	return 0
}

func (r *reader) bytes() []byte {
	n := r.uint()
	if n > uint64(len(r.b)) {
		r.err, r.b = errShort, nil
		return nil
	}
	return r.take(int(n))
}

func (r *reader) string() string { return string(r.bytes()) }

func (r *reader) stamp() Stamp {
	p := r.take(stampSize)
	if p == nil {
		return Stamp{}
	}
	return Stamp{
		Boot:  binary.LittleEndian.Uint64(p),
		Up:    time.Duration(binary.LittleEndian.Uint64(p[8:])),
		Wall:  time.UnixMilli(int64(binary.LittleEndian.Uint64(p[16:]))).UTC(),
		Grade: Grade(p[24]),
	}
}

func (r *reader) spans() []span {
	n := r.uint()
	if n > uint64(len(r.b)) {
		r.err = errShort
		return nil
	}
	spans := make([]span, 0, n)
	var last Position
	for range n {
		first := last + Position(r.uint())
		s := span{first, Position(r.uint())}
		spans = append(spans, s)
		last = s.first + s.n
	}
	return spans
}

// change is the payload of a set.
func (r *reader) change() Change {
	c := Change{Map: r.string(), Key: r.string()}
	if r.byte() == 1 {
		c.Value = append([]byte{}, r.bytes()...)
	}
	return c
}

// firstKind is the kind of the first record of a frame's body; zero if it has none.
func firstKind(b []byte) kind {
	if len(b) <= stampSize {
		return 0
	}
	return kind(b[stampSize])
}

// records calls each for every record of a frame's body after its stamp. off is
// where the payload begins in b.
func records(b []byte, each func(k kind, payload []byte, off int) error) error {
	r := reader{b: b}
	r.stamp()
	for len(r.b) > 0 && r.err == nil {
		k := kind(r.byte())
		n := r.uint()
		off := len(b) - len(r.b)
		if p := r.take(int(min(n, 1<<31))); r.err == nil {
			if err := each(k, p, off); err != nil {
				return err
			}
		}
	}
	return r.err
}

// message is a message record taken apart.
type message struct {
	to     []copyTo
	sender string
	stamp  Stamp
	body   []byte
}

// copyTo is the place of a message in one queue.
type copyTo struct {
	queue uint32
	pos   Position
	ttl   time.Duration
	note  []byte
}

func appendMessage(b []byte, m message) []byte {
	start := len(b)
	b = binary.AppendUvarint(b, uint64(len(m.to)))
	for _, c := range m.to {
		b = binary.AppendUvarint(b, uint64(c.queue))
		b = binary.AppendUvarint(b, uint64(c.pos))
		b = binary.AppendUvarint(b, milliseconds(c.ttl))
		b = appendBytes(b, c.note)
	}
	b = appendString(b, m.sender)
	b = appendStamp(b, m.stamp)
	b = append(b, m.body...)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b[start:], castagnoli))
}

// milliseconds is a time to live as it is kept, rounded up: less than zero, which is
// over at once, is the shortest.
func milliseconds(ttl time.Duration) uint64 {
	if ttl < 0 {
		return 1
	}
	return uint64((ttl + time.Millisecond - 1) / time.Millisecond)
}

// parseMessage checks a message record and takes it apart; the parts lie in p.
func parseMessage(p []byte) (message, error) {
	if len(p) < 4 {
		return message{}, errShort
	}
	end := len(p) - 4
	if crc32.Checksum(p[:end], castagnoli) != binary.LittleEndian.Uint32(p[end:]) {
		return message{}, fmt.Errorf("message record: checksum does not match")
	}
	r := reader{b: p[:end]}
	var m message
	for n := r.uint(); n > 0 && r.err == nil; n-- {
		m.to = append(m.to, copyTo{
			queue: uint32(r.uint()), pos: Position(r.uint()),
			ttl: time.Duration(r.uint()) * time.Millisecond, note: r.bytes(),
		})
	}
	m.sender, m.stamp = r.string(), r.stamp()
	m.body = r.b
	return m, r.err
}

// senderOf gives the sender of a message record that was checked before.
func senderOf(p []byte) []byte {
	r := reader{b: p}
	for n := r.uint(); n > 0 && r.err == nil; n-- {
		r.uint()
		r.uint()
		r.uint()
		r.bytes()
	}
	return r.bytes()
}

// in gives the place of the message in queue q.
func (m *message) in(q uint32) (copyTo, bool) {
	for _, c := range m.to {
		if c.queue == q {
			return c, true
		}
	}
	return copyTo{}, false
}
