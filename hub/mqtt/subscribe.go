package mqtt

import (
	"errors"
	"slices"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"holdfast.dev/holdfast/hub"
	"holdfast.dev/holdfast/storage"
)

// filters is SUBSCRIBE or UNSUBSCRIBE. In a session that outlives its connection the
// answer is written when what it says is on disk, and then the retained messages are
// in the queue, too. Else they come after the answer, from memory.
func (c *conn) filters(kind byte, body []byte) error {
	pk := packets.Packet{ProtocolVersion: c.version, FixedHeader: packets.FixedHeader{Type: kind, Remaining: len(body)}}
	body = slices.Clone(body) // mochi's strings are its bytes
	decode, answerKind := pk.SubscribeDecode, byte(packets.Suback)
	if kind == packets.Unsubscribe {
		decode, answerKind = pk.UnsubscribeDecode, packets.Unsuback
	}
	if err := decode(body); err != nil {
		return bad(packets.PacketNames[kind] + ": " + err.Error())
	}
	var codes []byte
	var fresh []packets.Subscription
	if kind == packets.Unsubscribe {
		codes = c.unsubscribeAll(pk.Filters)
	} else {
		c.session.hush(c, true)
		defer c.session.hush(c, false)
		codes, fresh = c.subscribeAll(pk.Filters)
	}
	if err := c.write(answer(c.version, answerKind, pk.PacketID, codes)); err != nil {
		return err
	}
	c.session.listen(c)
	for _, f := range fresh {
		c.session.greet(c, f)
	}
	return nil
}

// subscribeAll gives the codes, and the subscriptions for which retained messages are
// due from memory.
func (c *conn) subscribeAll(filters packets.Subscriptions) (codes []byte, fresh []packets.Subscription) {
	s := c.session
	var due []packets.Subscription
	var changes []storage.Change
	for _, f := range filters {
		code, retained := c.subscribe(f)
		if code <= 2 {
			changes = append(changes, s.subscriptionChange(f.Filter))
			f.Qos = code // as granted
		} else if c.version != v5 {
			code = firstError // the only failure that 3.1.1 knows
		}
		codes = append(codes, code)
		if retained {
			due = append(due, f)
		}
	}
	if !s.lasting || len(changes) == 0 {
		return codes, due
	}
	err := c.b.clerk.must(c.ctx, changes...)
	queued := slices.ContainsFunc(due, s.queues)
	if err == nil && queued {
		c.b.passage.cross(c.ctx.Done())
	}
	for _, f := range due {
		switch {
		case !s.queues(f):
			fresh = append(fresh, f)
		case err == nil:
			err = s.greetLasting(c, f)
		}
	}
	if err != nil { // it is in force as long as the connection, and no longer than that
		c.b.refused(c.who, "not kept", err)
		for i, f := range filters {
			if codes[i] <= 2 {
				s.unsubscribe(c, f.Filter)
				codes[i] = firstError
				if c.version == v5 {
					codes[i] = codeQuota
				}
			}
		}
		return codes, nil
	}
	return codes, fresh
}

// queues says whether what f asks for goes through the session's queue.
func (s *session) queues(f packets.Subscription) bool { return s.feed.q != nil && f.Qos > 0 }

func (c *conn) unsubscribeAll(filters packets.Subscriptions) (codes []byte) {
	s := c.session
	var changes []storage.Change
	for _, f := range filters {
		code := s.unsubscribe(c, f.Filter)
		codes = append(codes, code)
		if code == 0 {
			changes = append(changes, storage.Change{Map: mapSubscriptions, Key: s.key + "\x00" + f.Filter})
		}
	}
	if s.lasting && len(changes) > 0 {
		if err := c.b.clerk.must(c.ctx, changes...); err != nil {
			c.b.refused(c.who, "not kept", err)
		}
	}
	return codes
}

func (s *session) subscriptionChange(filter string) storage.Change {
	s.mu.Lock()
	defer s.mu.Unlock()
	return storage.Change{Map: mapSubscriptions, Key: s.key + "\x00" + filter, Value: s.subs[filter].encode()}
}

// hush keeps the queue from being sent from before SUBACK is written.
func (s *session) hush(c *conn, on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn == c {
		s.feed.hush = on
		c.poke()
	}
}

// answer is a SUBACK or UNSUBACK.
func answer(version, kind byte, id uint16, codes []byte) []byte {
	body := []byte{byte(id >> 8), byte(id)}
	if version == v5 {
		body = append(body, 0) // no properties
	}
	if version == v5 || kind == packets.Suback {
		body = append(body, codes...)
	}
	return append(appendHeader(nil, kind<<4, len(body)), body...)
}

// subscribe gives the SUBACK code of one filter, and whether retained messages
// are due.
func (c *conn) subscribe(f packets.Subscription) (code byte, retained bool) {
	s := c.session
	most := byte(2)
	name, filter, shared := cutShare(f.Filter)
	if c.device != "" {
		if !s.granted(f.Filter) {
			c.b.refused(c.who, "filter", errors.New("filter "+f.Filter+" is not one of IoT Hub's"))
			return codeNotAuthorized, false
		}
		most = 1
	} else if code, err := c.mayListen(f.Filter); err != nil {
		c.b.refused(c.who, "filter", err)
		return code, false
	}
	if shared {
		most = 1 // see group
	}
	sub := subscription{qos: min(f.Qos, most), id: f.Identifier, noLocal: f.NoLocal, retained: f.RetainAsPublished}
	s.mu.Lock()
	defer s.mu.Unlock()
	_, existed := s.subs[f.Filter]
	if s.conn != c || !existed && (len(s.subs) >= maxSubscriptions || s.length+len(f.Filter) > maxFilters) {
		return codeQuota, false
	}
	s.subs[f.Filter] = sub
	if !existed {
		s.length += len(f.Filter)
	}
	switch {
	case shared:
		s.groups[f.Filter] = c.b.join(s, name, filter, sub)
		c.poke() // there may be something for it
	case s.device == "":
		s.index(f.Filter, sub)
	}
	return sub.qos, s.device == "" && !shared && f.RetainHandling != 2 && !(f.RetainHandling == 1 && existed)
}

// mayListen says whether an ordinary client may subscribe to filter.
func (c *conn) mayListen(filter string) (code byte, err error) {
	if err := checkFilter(filter); err != nil {
		return codeFilterInvalid, err
	}
	if _, own, shared := cutShare(filter); shared {
		if err := checkShare(filter); err != nil {
			return codeFilterInvalid, err
		}
		filter = own
	}
	if reserved(filter) || !anyCovers(c.account.Subscribe, filter) {
		return codeNotAuthorized, errors.New("account " + c.account.Name + " may not subscribe to " + filter)
	}
	return 0, nil
}

func (s *session) unsubscribe(c *conn, filter string) (code byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.subs[filter]; !ok || s.conn != c {
		return packets.CodeNoSubscriptionExisted.Code
	}
	delete(s.subs, filter)
	s.length -= len(filter)
	s.unindex(filter)
	if g := s.groups[filter]; g != nil {
		delete(s.groups, filter)
		g.leave(s)
	}
	return 0
}

// greet queues the retained messages that a new subscription matches. Under mu from
// the look to the last of them: a newer one that is delivered meanwhile must not be
// overtaken by the one whose place it took.
func (s *session) greet(c *conn, f packets.Subscription) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn != c {
		return
	}
	for _, m := range s.b.retained.matching(f.Filter) {
		s.greeting(m, f)
	}
}

// greetOne is greet for a message that is retained at quality 0.
func (s *session) greetOne(c *conn, m *message, f packets.Subscription) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn == c {
		s.greeting(m, f)
	}
}

func (s *session) greeting(m *message, f packets.Subscription) {
	d := &delivery{m: m, qos: min(f.Qos, m.qos), retain: true, greets: true}
	if f.Identifier != 0 {
		d.ids = []int{f.Identifier}
	}
	s.put(d)
}

// greetLasting puts the retained messages that a new subscription matches into the
// session's queue, and waits until they are there: like all that the session was
// promised, they outlive the connection. One that is replaced meanwhile is left out
// when its turn comes, for the newer one is in the queue by itself.
func (s *session) greetLasting(c *conn, f packets.Subscription) error {
	kept := make(chan error, greetAtOnce) // the committer must not wait
	var n int
	var failed error
	for _, m := range s.b.retained.matching(f.Filter) {
		d := note{qos: min(f.Qos, m.qos), retain: true, greets: true}
		if d.qos == 0 {
			s.greetOne(c, m, f)
			continue
		}
		if f.Identifier != 0 {
			d.ids = []int{f.Identifier}
		}
		lifetime := time.Duration(0)
		if !m.expires.IsZero() {
			lifetime = time.Duration(left(m.expires)) * time.Second
		}
		copied := hub.Message{ID: m.id, From: c.b.gateway, Topic: m.topic, QoS: m.qos, Extra: m.extra(), Body: m.body}
		n++
		c.b.store.Append(c.ctx, storage.Record{
			Sender: string(c.b.gateway), Stamp: c.b.clock.Now(), Body: hub.Encode(&copied),
			To: []storage.Dest{{Queue: s.lane(), TTL: lifetime, Note: d.encode()}},
		}, func(err error) { kept <- err })
		if n == greetAtOnce {
			failed, n = errors.Join(failed, waitAll(kept, n)), 0
		}
	}
	return errors.Join(failed, waitAll(kept, n))
}

// greetAtOnce is how many retained messages are on their way into a queue at once.
const greetAtOnce = 64

// waitAll takes n answers; the store gives one for each.
func waitAll(kept <-chan error, n int) (err error) {
	for range n {
		err = errors.Join(err, <-kept)
	}
	return err
}
