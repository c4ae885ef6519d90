package mqtt

import (
	"bytes"
	"cmp"
	"slices"
	"sync"

	"github.com/mochi-mqtt/server/v2/packets"

	"holdfast.dev/holdfast/storage"
)

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

// find gives what there is under id, or nil, and whether it is on disk.
func (r *releases) find(id uint16) (e *release, noted bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e = r.ids[id]
	return e, e != nil && e.noted
}

func (r *releases) add(id uint16, e *release) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ids == nil {
		r.ids = map[uint16]*release{}
	}
	r.ids[id] = e
}

func (r *releases) remove(id uint16) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.ids, id)
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
		if err != nil { // as if PUBREC had not come: on its next connection the client gets PUBLISH again
			s.out.remove(id)
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
	e, noted := s.out.find(id)
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
	e, noted := s.out.find(id)
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
