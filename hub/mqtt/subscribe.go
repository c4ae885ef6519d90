package mqtt

import (
	"errors"
	"slices"
	"strings"

	"github.com/mochi-mqtt/server/v2/packets"
)

// filters is SUBSCRIBE or UNSUBSCRIBE. The answer is written before retained
// messages are queued, so that a client sees it first.
func (c *conn) filters(kind byte, body []byte) error {
	pk := packets.Packet{ProtocolVersion: c.version, FixedHeader: packets.FixedHeader{Type: kind, Remaining: len(body)}}
	body = slices.Clone(body) // mochi's strings are its bytes
	ack := packets.Packet{ProtocolVersion: c.version, FixedHeader: packets.FixedHeader{Type: packets.Suback}}
	var fresh []packets.Subscription
	if kind == packets.Subscribe {
		if err := pk.SubscribeDecode(body); err != nil {
			return bad("SUBSCRIBE: " + err.Error())
		}
		for _, f := range pk.Filters {
			code, retained := c.subscribe(f)
			if code > 2 && c.version != v5 {
				code = 0x80 // the only failure that 3.1.1 knows
			}
			ack.ReasonCodes = append(ack.ReasonCodes, code)
			if retained {
				fresh = append(fresh, f)
			}
		}
	} else {
		if err := pk.UnsubscribeDecode(body); err != nil {
			return bad("UNSUBSCRIBE: " + err.Error())
		}
		ack.FixedHeader.Type = packets.Unsuback
		for _, f := range pk.Filters {
			ack.ReasonCodes = append(ack.ReasonCodes, c.session.unsubscribe(c, f.Filter))
		}
	}
	if err := c.write(answer(c.version, ack.FixedHeader.Type, pk.PacketID, ack.ReasonCodes)); err != nil {
		return err
	}
	c.session.listen(c)
	for _, f := range fresh {
		c.session.greet(c, f)
	}
	return nil
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
	if c.device != "" {
		if !s.granted(f.Filter) {
			c.b.refused(c.who, "filter", errors.New("filter "+f.Filter+" is not one of IoT Hub's"))
			return codeNotAuthorized, false
		}
	} else if code, err := c.mayListen(f.Filter); err != nil {
		c.b.refused(c.who, "filter", err)
		return code, false
	}
	sub := subscription{qos: min(f.Qos, 1), id: f.Identifier, noLocal: f.NoLocal, retained: f.RetainAsPublished}
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
	if s.device == "" && !existed {
		s.index(f.Filter)
	}
	return sub.qos, s.device == "" && f.RetainHandling != 2 && !(f.RetainHandling == 1 && existed)
}

// mayListen says whether an ordinary client may subscribe to filter.
func (c *conn) mayListen(filter string) (code byte, err error) {
	if err := checkFilter(filter); err != nil {
		return codeFilterInvalid, err
	}
	if first, _, _ := strings.Cut(filter, "/"); strings.EqualFold(first, "$share") {
		return codeShared, errors.New("shared subscriptions are not offered")
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
	if s.device == "" {
		s.unindex(filter)
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
		d := &delivery{m: m, qos: min(f.Qos, m.qos), retain: true, greets: true}
		if f.Identifier != 0 {
			d.ids = []int{f.Identifier}
		}
		s.put(d)
	}
}
