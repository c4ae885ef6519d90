package mqtt

import (
	"bytes"
	"cmp"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"holdfast.dev/holdfast/hub"
	"holdfast.dev/holdfast/storage"
)

// A session that outlives its connection is fed from a queue of its own: what its
// subscriptions ask for at quality 1 or 2 is routed there (Broker.Route), in the same
// record as to all others who want it, and read from there when the client has room
// in its window. So a million messages that wait take no memory, and a restart or a
// power cut changes nothing but the connection.
//
// The packet id is a function of the position, so that what is sent again after a
// restart comes under the id under which it was sent before [MQTT-4.4.0-1]. The ids
// above maxFed are for what comes from elsewhere, see outbox.
//
//	state     event                     next       what is done
//	waiting   the window has room       out        PUBLISH; DUP if it was, or may have been, sent before
//	out       PUBACK, quality 1         (settled)
//	out       PUBREC, quality 2         received   the position is noted on disk
//	received  that is on disk           released   PUBREL; the record is settled: from here the id is all there is
//	released  PUBCOMP                   (none)     the note is taken off, once the settlement is on disk
//	any       the connection ends       waiting    what is received or released goes on with PUBREL
type feed struct {
	q     *storage.Queue // nil: the session ends with its connection
	scan  storage.Position
	ahead []storage.Item     // read and not sent
	sent  storage.Position   // what is up to here was, or may have been, sent on an earlier connection
	high  storage.Position   // the newest that was ever sent
	out   map[uint16]*parcel // what was sent on this connection
	hush  bool               // nothing is sent before SUBACK

	ended map[storage.Outcome][]storage.Position // to be settled
}

type parcel struct {
	pos      storage.Position
	qos      byte
	received bool // PUBREC has come
}

const (
	maxFed    = 49_151 // packet ids of feeds are 1 to maxFed
	feedChunk = 64     // records of one read
	feedBytes = 256 << 10
)

func packetID(p storage.Position) uint16 { return uint16((p-1)%maxFed) + 1 }

// rewind is for a new connection; the session's mu is held.
func (f *feed) rewind() {
	if f.q == nil {
		return
	}
	f.settle() // before it is read again
	f.scan, f.ahead, f.out, f.hush = f.q.Checkpoint(), nil, map[uint16]*parcel{}, false
	f.sent = f.high
}

func (f *feed) end(p storage.Position, o storage.Outcome) {
	if f.ended == nil {
		f.ended = map[storage.Outcome][]storage.Position{}
	}
	f.ended[o] = append(f.ended[o], p)
}

// settle tells the store what has ended. It does not wait.
func (f *feed) settle() {
	for o, ps := range f.ended {
		if len(ps) > 0 {
			f.q.Settle(ps, o, nil)
			f.ended[o] = ps[:0:0]
		}
	}
}

// read gives what follows a position. What was sent before is given whether its time is
// over or not: the client may have half of it [MQTT-4.3.3-7]. It reads from the disk, and
// is called without the session's mu.
func (f *feed) read(after, sent storage.Position) (items []storage.Item, next storage.Position, err error) {
	limit := storage.Limit{Records: feedChunk, Bytes: feedBytes}
	if after >= sent {
		return f.q.Read(after, limit, nil)
	}
	seen, next, err := f.q.Look(after, limit, nil)
	for _, it := range seen {
		switch {
		case it.Position > sent:
			return items, sent, err
		case it.Err != nil && len(items) == 0:
			return f.q.Read(it.Position-1, storage.Limit{Records: 1}, nil) // which counts what is broken
		case it.Err != nil:
			return items, it.Position - 1, err
		case !it.Parked:
			items = append(items, it.Item)
		}
	}
	return items, min(next, max(sent, after)), err
}

// feedNext writes what the queue has into buf, as much as window and batch allow, and
// says whether there may be more that could go.
func (s *session) feedNext(c *conn, buf *bytes.Buffer) (more bool) {
	f := &s.feed
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn != c || f.hush {
		return false
	}
	f.settle()
	read := false
	if len(f.ahead) == 0 && s.room(c) > 0 {
		after, sent := f.scan, f.sent
		s.mu.Unlock() // it may read from the disk, and acknowledgements come meanwhile
		items, next, err := f.read(after, sent)
		s.mu.Lock()
		if s.conn != c {
			return false // a newer connection reads from the start
		}
		if err != nil {
			c.hangUp(cause{"not ready", codeUnavailable, err})
			return false
		}
		f.scan, f.ahead, read = next, items, next > after
	}
	start := buf.Len()
	for len(f.ahead) > 0 && s.room(c) > 0 {
		if buf.Len()-start >= batch {
			return true
		}
		if !s.feedOne(c, &f.ahead[0], buf) {
			return false
		}
		f.ahead[0] = storage.Item{}
		f.ahead = f.ahead[1:]
	}
	return read && s.room(c) > 0
}

// feedOne sends one record. It is false where that must wait for an older one that
// has the same packet id. s.mu is held.
func (s *session) feedOne(c *conn, it *storage.Item, buf *bytes.Buffer) bool {
	f, id := &s.feed, packetID(it.Position)
	if pos, ok := s.out.taken(id); ok {
		return pos == it.Position // it is received already, and goes on with PUBREL
	}
	if f.out[id] != nil {
		return false
	}
	d, err := s.unpack(it)
	if err != nil {
		s.b.log.Error("record cannot be read and is parked", "queue", f.q.Name(), "position", it.Position, "error", err)
		f.q.ParkRecord(it.Position, err.Error())
		return true
	}
	if d == nil {
		f.end(it.Position, storage.Discarded)
		return true
	}
	d.packet, d.dup = id, it.Position <= f.sent
	at := buf.Len()
	if err := d.encode(c.version, buf); err != nil || buf.Len()-at > c.maxOut {
		// Too large for this client: as if it had been sent [MQTT-3.1.2-25].
		buf.Truncate(at)
		s.b.stats.dropped.Add(1)
		f.end(it.Position, storage.Discarded)
		return true
	}
	f.high = max(f.high, it.Position)
	f.out[id] = &parcel{pos: it.Position, qos: d.qos}
	return true
}

// unpack makes a delivery of a record, or none: of a retained message for a new
// subscription whose place a newer one has taken, which the session got itself.
func (s *session) unpack(it *storage.Item) (*delivery, error) {
	m, err := hub.Decode(it)
	if err != nil {
		return nil, err
	}
	n, err := parseNote(it.Note)
	if err != nil {
		return nil, err
	}
	l, err := letter(&m)
	if err != nil {
		return nil, err
	}
	if n.greets && !s.b.retained.current(l.topic, l.id) {
		return nil, nil
	}
	l.expires = s.b.expires(it.Stamp, it.TTL)
	return &delivery{m: l, qos: n.qos, retain: n.retain, ids: n.ids}, nil
}

// releases are the packet ids of a session that outlives its connection for which
// PUBREC has come. The lock is the last to be taken: the committer takes it.
type releases struct {
	mu  sync.Mutex
	ids map[uint16]*release
}

type release struct {
	pos               storage.Position
	noted             bool // on disk
	told              bool // PUBREL was sent on this connection
	settling, settled bool // the record
	complete          bool // PUBCOMP has come
}

func (r *releases) taken(id uint16) (storage.Position, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.ids[id]; e != nil {
		return e.pos, true
	}
	return 0, false
}

func (r *releases) add(id uint16, e *release) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ids == nil {
		r.ids = map[uint16]*release{}
	}
	r.ids[id] = e
}

// rewind is for a new connection.
func (r *releases) rewind() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.ids {
		e.told = false
	}
}

// due gives those that PUBREL is due for, the oldest first.
func (r *releases) due() (ids []uint16, settle []*release) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, e := range r.ids {
		if e.noted && !e.told && !e.complete {
			e.told = true
			ids = append(ids, id)
		}
		if e.noted && !e.settling {
			e.settling = true
			settle = append(settle, e)
		}
	}
	slices.SortFunc(ids, func(x, y uint16) int { return cmp.Compare(r.ids[x].pos, r.ids[y].pos) })
	return ids, settle
}

// releaseNext writes the PUBRELs that are due.
func (s *session) releaseNext(c *conn, buf *bytes.Buffer) {
	ids, settle := s.out.due()
	for _, e := range settle {
		s.feed.q.Settle([]storage.Position{e.pos}, storage.Delivered, func(err error) {
			if err == nil {
				s.over(e, func() { e.settled = true })
			}
		})
	}
	for _, id := range ids {
		buf.Write(ack(c.version, packets.Pubrel, id, 0))
	}
}

// over changes e and takes its note off the disk when all is done with it: not before
// its record is settled, or it would be sent anew after a power cut.
func (s *session) over(e *release, change func()) {
	r := &s.out
	r.mu.Lock()
	change()
	id, ends := packetID(e.pos), e.settled && e.complete
	if ends = ends && r.ids[id] == e; ends {
		delete(r.ids, id)
	}
	r.mu.Unlock()
	if ends {
		s.b.clerk.note(nil, storage.Change{Map: mapOutbound, Key: positionKey(s.key, e.pos)})
		s.poke()
	}
}

// received is a PUBREC of the client.
func (s *session) received(c *conn, id uint16, code byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.feed.out[id]
	switch {
	case s.conn != c:
		return nil
	case p == nil:
		return s.receivedElsewhere(c, id, code)
	case p.qos != 2:
		return protocol("PUBREC: the message has quality of service 1")
	case p.received:
		return s.receivedElsewhere(c, id, code)
	case code >= firstError:
		delete(s.feed.out, id)
		s.feed.end(p.pos, storage.Discarded)
		s.b.stats.dropped.Add(1)
		c.poke()
		return nil
	}
	p.received = true
	e := &release{pos: p.pos}
	s.out.add(id, e)
	s.b.stats.delivered.Add(1)
	s.b.clerk.note(func(err error) {
		if err != nil {
			c.hangUp(cause{"not kept", codeUnavailable, err})
			return
		}
		s.over(e, func() { e.noted = true })
		s.poke()
	}, storage.Change{Map: mapOutbound, Key: positionKey(s.key, p.pos), Value: []byte{1}})
	return nil
}

// receivedElsewhere is a PUBREC for an id that the feed has not sent on this
// connection. s.mu is held.
func (s *session) receivedElsewhere(c *conn, id uint16, code byte) error {
	s.out.mu.Lock()
	e := s.out.ids[id]
	noted := e != nil && e.noted
	s.out.mu.Unlock()
	switch {
	case noted: // once more
		c.reply(ack(c.version, packets.Pubrel, id, 0))
		return nil
	case e != nil:
		return nil // PUBREL follows when it is
	}
	known, err := s.box.received(id, code)
	if err != nil {
		return err
	}
	switch {
	case known && code >= firstError:
		s.b.stats.dropped.Add(1)
		c.poke()
	case known:
		c.reply(ack(c.version, packets.Pubrel, id, 0))
	case code < firstError:
		s.b.count("unknown packet id")
		answer := byte(0)
		if c.version == v5 {
			answer = codeNoSuchID
		}
		c.reply(ack(c.version, packets.Pubrel, id, answer))
	}
	return nil
}

// completed is a PUBCOMP of the client.
func (s *session) completed(c *conn, id uint16) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn != c {
		return
	}
	s.out.mu.Lock()
	e := s.out.ids[id]
	noted := e != nil && e.noted
	s.out.mu.Unlock()
	switch {
	case noted:
		delete(s.feed.out, id)
		s.over(e, func() { e.complete = true })
	case s.box.completed(id):
		s.b.stats.delivered.Add(1)
	default:
		s.b.count("unknown packet id")
		return
	}
	c.poke() // the window has room
}

var (
	errInUse      = errors.New("PUBLISH: its packet id is in use until PUBCOMP has come")
	errCrowded    = errors.New("too many publishes of quality of service 2 wait for PUBREL")
	errEarly      = errors.New("PUBREL: PUBREC was not sent yet")
	errLeftBefore = errors.New("an earlier connection ended before the message was kept")
)

// left is how long a message has to live, in whole seconds, at least one.
func left(expires time.Time) uint32 {
	d := time.Until(expires) + time.Second - 1 // a second counts until it is over
	return uint32(max(1, d/time.Second))
}
