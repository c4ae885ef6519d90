package mqtt

import (
	"errors"
	"sync"

	"github.com/mochi-mqtt/server/v2/packets"

	"holdfast.dev/holdfast/storage"
)

// inbound are the packet ids of a session's publishes of quality 2 that are not
// released yet: what makes them arrive exactly once.
//
//	state    event                     next     what is done
//	(none)   PUBLISH                   coming   the message goes to the hub, with the id: both are kept, or neither
//	coming   the hub has kept it       kept     PUBREC
//	coming   the hub has not           (none)   refused as any publish
//	coming   PUBLISH, newer connection coming   PUBREC when it is kept
//	kept     PUBLISH                   kept     PUBREC once more: a repeat
//	kept     PUBREL                    leaving  the id is taken off the disk
//	leaving  that is on disk           (none)   PUBCOMP; not before, or a message that uses the id anew would be taken for a repeat
//	leaving  PUBREL                    leaving  PUBCOMP goes to whoever asked last
//	(none)   PUBREL                    (none)   PUBCOMP
//
// A session that ends with its connection has them in memory alone. Its lock is the
// last to be taken: the committer takes it.
type inbound struct {
	mu  sync.Mutex
	ids map[uint16]*intake
}

type intake struct {
	on      *conn // it came on; nil: before the last start
	state   intakeState
	waiting []waiter // repeats that came before the first was kept
	asker   *conn    // of PUBREL
}

type intakeState byte

const (
	coming intakeState = iota
	kept
	leaving
)

type waiter struct {
	c *conn
	p *publication
}

// begin says whether p is a message, and not the repeat of one: then it is answered.
func (in *inbound) begin(c *conn, p *publication) (fresh bool) {
	in.mu.Lock()
	t := in.ids[p.packet]
	switch {
	case t == nil && in.crowdedBy(c):
		in.mu.Unlock()
		c.hangUp(cause{"receive maximum", codeReceiveMaximum, errCrowded})
		c.release()
		return false
	case t == nil:
		if in.ids == nil {
			in.ids = map[uint16]*intake{}
		}
		in.ids[p.packet] = &intake{on: c}
		in.mu.Unlock()
		return true
	case t.state == coming:
		t.waiting = append(t.waiting, waiter{c, p})
		in.mu.Unlock()
		return false
	case t.state == leaving:
		in.mu.Unlock()
		c.hangUp(cause{"malformed", codeProtocol, errInUse})
		c.release()
		return false
	}
	in.mu.Unlock()
	c.settle(p, 0)
	c.release()
	return false
}

// crowdedBy says whether a client has more under way on its connection than it was told
// it may (MQTT 5, 3.3.4), or than anybody may. in.mu is held.
func (in *inbound) crowdedBy(c *conn) bool {
	if len(in.ids) < c.b.window {
		return false
	}
	if len(in.ids) >= usualIntake+c.b.window {
		return true
	}
	n := 0
	for _, t := range in.ids {
		if t.on == c {
			n++
		}
	}
	return c.version == v5 && n >= c.b.window
}

// landed says what became of the message under id: code 0 if it is kept.
func (in *inbound) landed(id uint16, code byte) {
	in.mu.Lock()
	t := in.ids[id]
	if t == nil || t.state != coming {
		in.mu.Unlock()
		return
	}
	waiting := t.waiting
	t.waiting = nil
	if t.state = kept; code >= firstError {
		delete(in.ids, id)
	}
	in.mu.Unlock()
	for _, w := range waiting {
		w.c.settle(w.p, code)
		w.c.release()
	}
}

// lost says that the connection ended before it was known whether the message under
// id is kept: it is not, and the client will send it again.
func (in *inbound) lost(id uint16) {
	in.mu.Lock()
	t := in.ids[id]
	if t == nil || t.state != coming {
		in.mu.Unlock()
		return
	}
	delete(in.ids, id)
	in.mu.Unlock()
	for _, w := range t.waiting {
		w.c.hangUp(cause{"not kept", codeUnavailable, errLeftBefore})
		w.c.release()
	}
}

// released is a PUBREL of the client.
func (s *session) released(c *conn, id uint16) {
	in := &s.in
	in.mu.Lock()
	t := in.ids[id]
	switch {
	case t == nil:
		in.mu.Unlock()
		code := byte(0)
		if c.version == v5 {
			code = codeNoSuchID
		}
		c.reply(ack(c.version, packets.Pubcomp, id, code))
		return
	case t.state == coming:
		in.mu.Unlock()
		c.hangUp(cause{"malformed", codeProtocol, errEarly})
		return
	case t.state == leaving:
		t.asker = c
		in.mu.Unlock()
		return
	}
	t.state, t.asker = leaving, c
	in.mu.Unlock()
	if !s.lasting {
		in.left(id, nil)
		return
	}
	s.b.clerk.note(func(err error) { in.left(id, err) }, storage.Change{Map: mapInbound, Key: idKey(s.key, id)})
}

// left ends an id whose removal is on disk. Where it is not, the client asks again
// on another connection.
func (in *inbound) left(id uint16, err error) {
	in.mu.Lock()
	t := in.ids[id]
	if t == nil {
		in.mu.Unlock()
		return
	}
	c := t.asker
	if err == nil {
		delete(in.ids, id)
	} else {
		t.state, t.asker = kept, nil
	}
	in.mu.Unlock()
	if err != nil {
		c.hangUp(cause{"not kept", codeUnavailable, err})
		return
	}
	c.reply(ack(c.version, packets.Pubcomp, id, 0))
}

// usualIntake is how many publishes of quality 2 a 3.1.1 client may have unreleased; it
// cannot be told.
const usualIntake = 1000

var (
	errInUse      = errors.New("PUBLISH: its packet id is in use until PUBCOMP has come")
	errCrowded    = errors.New("too many publishes of quality of service 2 wait for PUBREL")
	errEarly      = errors.New("PUBREL: PUBREC was not sent yet")
	errLeftBefore = errors.New("an earlier connection ended before the message was kept")
)

// firstError is the first reason code that says no (MQTT 5, section 2.4).
const firstError byte = 0x80

// ack is a PUBACK, PUBREC, PUBREL or PUBCOMP.
func ack(version, kind byte, id uint16, code byte) []byte {
	head := kind << 4
	if kind == packets.Pubrel {
		head |= 2
	}
	if version == v5 && code != 0 {
		return []byte{head, 3, byte(id >> 8), byte(id), code}
	}
	return []byte{head, 2, byte(id >> 8), byte(id)}
}
