package conform

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// rowsAck5 are the statements about acknowledgements and their reasons, sections
// 2.2 and 3.4 to 3.11.
func rowsAck5() []Row {
	rows := []Row{
		{"2.2.1-5", "PUBACK, PUBREC, PUBREL and PUBCOMP have the id of their PUBLISH", fiveAckIDs},
		{"2.2.1-6", "SUBACK and UNSUBACK have the id of their request", fiveSubackIDs},
		{"3.6.1-1", "PUBREL with other flags than 0010 costs the connection", turnsOut(func(*Try) []badPacket {
			return otherFlags(ackPacket(kindPubrel, 1))
		})},
		{"3.12.4-1", "PINGREQ is answered with PINGRESP", func(t *Try) { five(t).ping() }},
	}
	for _, a := range []struct {
		section string
		kind    byte
	}{
		{"3.4.2", kindPuback}, {"3.5.2", kindPubrec}, {"3.6.2", kindPubrel}, {"3.7.2", kindPubcomp},
	} {
		rows = append(rows,
			Row{a.section + "-1", "reason codes of " + name(a.kind) + " are those of the table", fiveCodes(a.kind)},
			Row{a.section + "-2", "no reason string that makes " + name(a.kind) + " too large for the client", fiveSizes(a.kind)},
			Row{a.section + "-3", "no user property that makes " + name(a.kind) + " too large for the client", fiveSizes(a.kind)})
	}
	for _, a := range []struct {
		section string
		kind    byte
	}{{"3.9", kindSuback}, {"3.11", kindUnsuback}} {
		rows = append(rows,
			Row{a.section + ".2-1", "no reason string that makes " + name(a.kind) + " too large for the client", fiveSizes(a.kind)},
			Row{a.section + ".2-2", "no user property that makes " + name(a.kind) + " too large for the client", fiveSizes(a.kind)},
			Row{a.section + ".3-2", "reason codes of " + name(a.kind) + " are those of the table, one for each filter", fiveCodes(a.kind)})
	}
	return append(rows,
		Row{"3.9.3-1", "reason codes of SUBACK are in the order of the filters", fiveSubackOrder},
		Row{"3.11.3-1", "reason codes of UNSUBACK are in the order of the filters", fiveUnsubackOrder})
}

// known says whether the reasons of p are in the table of its section that is for
// servers.
func known(p packet) bool {
	table := map[byte]string{
		kindConnack:    "\x00\x80\x81\x82\x83\x84\x85\x86\x87\x88\x89\x8a\x8c\x90\x95\x97\x99\x9a\x9b\x9c\x9d\x9f",
		kindPuback:     "\x00\x10\x80\x83\x87\x90\x91\x97\x99",
		kindPubrec:     "\x00\x10\x80\x83\x87\x90\x91\x97\x99",
		kindPubrel:     "\x00\x92",
		kindPubcomp:    "\x00\x92",
		kindSuback:     "\x00\x01\x02\x80\x83\x87\x8f\x91\x97\x9e\xa1\xa2",
		kindUnsuback:   "\x00\x11\x80\x83\x87\x8f\x91",
		kindDisconnect: "\x00\x80\x81\x82\x83\x87\x89\x8b\x8d\x8e\x8f\x90\x93\x94\x95\x96\x97\x98\x99\x9a\x9b\x9c\x9d\x9e\x9f\xa0\xa1\xa2",
	}[p.kind]
	codes := p.codes
	if codes == nil {
		codes = []byte{p.code}
	}
	return !slices.ContainsFunc(codes, func(c byte) bool { return strings.IndexByte(table, c) < 0 })
}

// provoke makes the server say acknowledgements of all kinds, good ones and such
// as may refuse, to clients that said props in CONNECT. A server may also answer by
// closing, so each request has a client of its own.
func provoke(t *Try, props ...[]byte) []packet {
	var all []packet
	for _, user := range slices.Compact([]string{t.Target.User, t.Target.Narrow}) {
		client := func() *conn {
			return t.connect(func(h *hello) {
				h.props = slices.Concat(props...)
				if user != "" {
					h.user = &user
				}
			})
		}
		for _, topic := range []string{t.topic("a"), "$SYS/conform/" + t.name} {
			all = append(all, provokeAck(client(), topic, 1)...)
			if c := client(); c.maximum(propMaximumQoS, 2) == 2 {
				all = append(all, provokeAck(c, topic, 2)...)
			}
		}
		if user == t.Target.User {
			all = append(all, provokePubrel(client())...)
		}
		for _, request := range [][]byte{
			subscribePacket(v5, 7, nil, filter{t.topic("b"), 1}, filter{t.topic("c"), 2}),
			subscribePacket(v5, 7, nil, filter{"$SYS/#", 0}),
			subscribePacket(v5, 7, nil, filter{"conform/#/x", 0}),
			unsubscribePacket(v5, 7, nil, t.topic("b"), t.topic("never")),
			ackPacket(kindPubrel, 7),
			ackPacket(kindPubrec, 7),
		} {
			c := client()
			c.send(request, pingreq())
			all = append(all, c.untilPong()...)
		}
	}
	return all
}

// provokeAck publishes, and gives all that comes back.
func provokeAck(c *conn, topic string, qos byte) []packet {
	c.send(pub{topic: topic, payload: "x", qos: qos, id: 7}.bytes(v5))
	if !c.comes(2 * time.Second) {
		return nil // that each PUBLISH is acknowledged is [MQTT-3.3.4-1]
	}
	p, err := c.read("an acknowledgement")
	if err != nil {
		return nil
	}
	all := []packet{p}
	if p.kind == kindPubrec && p.code < 0x80 {
		c.send(ackPacket(kindPubrel, 7))
		all = append(all, c.expectID(kindPubcomp, 7))
	}
	return all
}

// provokePubrel makes the server deliver with QoS 2, and gives what it says.
func provokePubrel(c *conn) []packet {
	topic := c.t.name // short, as the client may take but little
	if c.subscribe(filter{topic, 2})[0] != 2 {
		return nil
	}
	c.publish(pub{topic: topic, payload: "x", qos: 2})
	if !c.comes(2 * time.Second) {
		return nil // it is too large for the client
	}
	p := c.message()
	c.send(ackPacket(kindPubrec, p.id))
	return []packet{p, c.awaitID(kindPubrel, p.id)}
}

// untilPong is all that comes until PINGRESP or the end of the connection, or a
// long silence, which is the business of other rows.
func (c *conn) untilPong() []packet {
	var said []packet
	for {
		if !c.comes(2 * time.Second) {
			return said
		}
		p, err := c.read("PINGRESP")
		if err != nil || p.kind == kindPingresp {
			return said
		}
		said = append(said, p)
	}
}

// provoked are those of a kind.
func provoked(t *Try, kind byte, props ...[]byte) []packet {
	all := slices.DeleteFunc(provoke(t, props...), func(p packet) bool { return p.kind != kind })
	if len(all) == 0 {
		t.notApplicable("could not be made to send " + name(kind))
	}
	return all
}

func fiveCodes(kind byte) func(*Try) {
	return func(t *Try) {
		for _, p := range provoked(t, kind) {
			if !known(p) {
				t.failf("%v has a reason that is not in the table", p)
			}
		}
	}
}

// smallPublish is what provokePubrel's message takes at most, in bytes.
const smallPublish = 24

// fiveSizes is a row: no packet of the kind is larger than the client takes. The
// client takes as much as CONNACK and that message need.
func fiveSizes(kind byte) func(*Try) {
	return func(t *Try) {
		limit := max(five(t).connack.size(), smallPublish)
		for _, p := range provoked(t, kind, number(propMaximumPacket, uint32(limit))) {
			if p.size() > limit {
				t.failf("%v has %d bytes, the client takes %d", p, p.size(), limit)
			}
		}
	}
}

// otherFlags are a packet with all flags but those that it has.
func otherFlags(right []byte) []badPacket {
	var all []badPacket
	for flags := range byte(16) {
		if flags != right[0]&15 {
			p := slices.Clone(right)
			p[0] = p[0]&0xf0 | flags
			all = append(all, badPacket{fmt.Sprintf("flags %04b", flags), p})
		}
	}
	return all
}

func fiveAckIDs(t *Try) {
	a := five(t)
	a.listen(1, t.topic("a"))
	c := five(t)
	for _, id := range []uint16{1, 300, 65535, 2} {
		c.publish(pub{topic: t.topic("a"), payload: "x", qos: 1, id: id})
		a.take(t.topic("a"), "x", 1)
	}
	c.needsQoS2()
	a.listen(2, t.topic("b"))
	for _, id := range []uint16{1, 300, 65535, 2} {
		c.publish(pub{topic: t.topic("b"), payload: "x", qos: 2, id: id})
		a.take(t.topic("b"), "x", 2) // and its PUBREL
	}
}

func fiveSubackIDs(t *Try) {
	c := five(t)
	for _, id := range []uint16{1, 65535, 300} {
		c.send(subscribePacket(v5, id, nil, filter{t.topic("a"), 0}))
		c.expectID(kindSuback, id)
		c.send(unsubscribePacket(v5, id, nil, t.topic("a")))
		c.expectID(kindUnsuback, id)
	}
}

func fiveSubackOrder(t *Try) {
	c := five(t)
	most := byte(min(c.maximum(propMaximumQoS, 2), 2))
	for _, asked := range [][]byte{{0, most, 0, most}, {most, 0, 0, most}} {
		var filters []filter
		for i, qos := range asked {
			filters = append(filters, filter{t.topic(fmt.Sprint(i)), qos})
		}
		if got := c.subscribe(filters...); !slices.Equal(got, asked) {
			t.failf("SUBACK % x for filters with QoS % x", got, asked)
		}
	}
}

func fiveUnsubackOrder(t *Try) {
	c := five(t)
	c.listen(0, t.topic("a"), t.topic("b"))
	want := []byte{0x11, 0, 0x11, 0}
	if p := c.unsubscribe(t.topic("x"), t.topic("a"), t.topic("y"), t.topic("b")); !slices.Equal(p.codes, want) {
		t.failf("%v, want % x", p, want)
	}
}
