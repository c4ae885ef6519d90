package mqtt

import (
	"bytes"

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
	if e, _ := s.out.find(id); e != nil {
		return e.pos == it.Position // it is received already, and goes on with PUBREL
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
