package conform

import (
	"fmt"
	"strings"
	"time"
)

// rowsLimits5 are the statements about what the two sides tell each other of
// their limits: packet size, topic aliases and Receive Maximum.
func rowsLimits5() []Row {
	return []Row{
		{"3.1.2-24", "no packet is larger than the client's Maximum Packet Size", fiveMaximumPacket},
		{"3.1.2-25", "a message that is too large is as good as sent", fivePacketDiscarded},
		{"3.1.2-26", "no topic alias above the client's Topic Alias Maximum", fiveServerAlias(2)},
		{"3.1.2-27", "no topic alias where the client's Topic Alias Maximum is absent or 0", fiveServerAlias(0)},
		{"3.3.2-7", "topic aliases end with their connection", fiveAliasEnds},
		{"3.3.2-8", "topic alias 0 costs the connection", turnsOut(func(t *Try) []badPacket {
			return []badPacket{{"alias 0", publishPacket(t.topic("a"), number(propAlias, 0))}}
		})},
		{"3.3.2-9", "topic aliases above the server's maximum cost the connection", fiveAliasTooHigh},
		{"3.3.2-11", "no topic alias above the client's Topic Alias Maximum", fiveServerAlias(1)},
		{"3.3.2-12", "all topic aliases up to the server's maximum are taken", fiveAliases},
		{"3.3.4-7", "more messages than the server's Receive Maximum cost the connection", fiveReceiveMaximumOfServer},
		{"3.3.4-9", "no more messages than the client's Receive Maximum are under way", fiveReceiveMaximum},
		{"3.3.4-10", "the client's Receive Maximum holds up nothing but PUBLISH", fiveWindowFull},
		{"4.9.0-1", "the first messages are as many as Receive Maximum, and not none", fiveReceiveMaximum},
		{"4.9.0-2", "the next message waits for an acknowledgement", fiveReceiveMaximumQoS2},
		{"4.9.0-3", "a client whose window is full is answered all the same", fiveWindowFull},
	}
}

// limited is a client that takes packets of limit bytes at most, which is not less
// than CONNACK has, and window messages at once.
func limited(t *Try, id string, most int, window uint32) (c *conn, limit int) {
	limit = max(most, five(t).connack.size()+8)
	return begin(t, id, number(propMaximumPacket, uint32(limit)), number(propReceiveMaximum, window)), limit
}

// fiveMaximumPacket publishes messages that make packets of more than the limit,
// just the limit, and less.
func fiveMaximumPacket(t *Try) {
	id, from := t.id(), five(t)
	c, limit := limited(t, id, 100, 65535)
	c.listen(1, t.topic("a"))
	fit := limit - len(pub{topic: t.topic("a"), qos: 1}.bytes(v5))
	for i, n := range []int{fit + 1, fit + 500, fit, 1} {
		from.publish(pub{topic: t.topic("a"), payload: strings.Repeat(fmt.Sprint(i), n), qos: 1})
	}
	for {
		p := c.message()
		if p.size() > limit {
			t.failf("PUBLISH of %d bytes, the client takes %d", p.size(), limit)
		}
		c.finish(p)
		if strings.HasPrefix(p.payload, "3") {
			break
		}
	}
	gone(c)
}

// fivePacketDiscarded fills the window of one message, if those that are too large
// count, and looks whether the session is rid of them when it goes on.
func fivePacketDiscarded(t *Try) {
	id, from := t.id(), five(t)
	c, _ := limited(t, id, 100, 1)
	c.listen(1, t.topic("a"))
	large := strings.Repeat("x", 2000)
	for _, s := range []string{large, "1", large, "2"} {
		from.publish(pub{topic: t.topic("a"), payload: s, qos: 1})
	}
	c.take(t.topic("a"), "1", 1)
	c.take(t.topic("a"), "2", 1)
	c.leave()
	c = back(t, id)
	from.publish(pub{topic: t.topic("a"), payload: "3", qos: 1})
	c.take(t.topic("a"), "3", 1)
	gone(c)
}

// fiveServerAlias is a row: topic aliases of the server keep to the client's
// maximum, and stand for the topics that were published.
func fiveServerAlias(most uint32) func(*Try) {
	return func(t *Try) {
		from := five(t)
		clients := []*conn{five(t, number(propAliasMaximum, most))}
		aliases := map[uint32]string{} // the last client's alone: with most 0 there are none
		if most == 0 {
			clients = append(clients, five(t)) // absent
		}
		for _, c := range clients {
			c.listen(1, t.topic("#"))
		}
		for _, topic := range []string{"a", "b", "c", "a", "b", "c", "a"} {
			from.publish(pub{topic: t.topic(topic), payload: topic, qos: 1})
			for _, c := range clients {
				p := c.message()
				if topic := c.resolve(p, most, aliases); topic != t.topic(p.payload) {
					t.failf("%v is for %q, it was published on %q", p, topic, t.topic(p.payload))
				}
				c.finish(p)
			}
		}
	}
}

// resolve is the topic of a message that may have an alias.
func (c *conn) resolve(p packet, most uint32, aliases map[uint32]string) string {
	n, ok := p.props.number(propAlias)
	switch {
	case ok && (n == 0 || n > most):
		c.t.failf("%v has topic alias %d, the client allows %d", p, n, most)
	case ok && p.topic != "":
		aliases[n] = p.topic
	case ok:
		return aliases[n]
	}
	return p.topic
}

// needsAliases is the most topic aliases that the server takes.
func (c *conn) needsAliases() uint32 {
	n := c.maximum(propAliasMaximum, 0)
	if n == 0 {
		c.t.notApplicable("takes no topic aliases")
	}
	return n
}

func aliased(topic, payload string, alias uint32) pub {
	return pub{topic: topic, payload: payload, qos: 1, props: number(propAlias, alias)}
}

func fiveAliasEnds(t *Try) {
	id := t.id()
	c := begin(t, id)
	c.needsAliases()
	c.publish(aliased(t.topic("a"), "x", 1))
	c.publish(aliased("", "x", 1))
	c.leave()
	c = back(t, id)
	p := aliased("", "y", 1)
	p.id = 1
	c.send(p.bytes(v5))
	c.turnedOut()
	gone(back(t, id))
}

func fiveAliases(t *Try) {
	w, c := five(t), five(t)
	w.listen(1, t.topic("#"))
	most := c.needsAliases()
	for _, alias := range []uint32{1, most, (1 + most) / 2} {
		c.publish(aliased(t.topic("a"), "set", alias))
		w.take(t.topic("a"), "set", 1)
		c.publish(aliased("", "used", alias))
		w.take(t.topic("a"), "used", 1)
		c.publish(aliased(t.topic("b"), "set anew", alias))
		w.take(t.topic("b"), "set anew", 1)
		c.publish(aliased("", "used anew", alias))
		w.take(t.topic("b"), "used anew", 1)
	}
}

// fiveReceiveMaximumOfServer sends one QoS 2 message more than the server allows
// to be under way, and releases none.
func fiveReceiveMaximumOfServer(t *Try) {
	c := five(t).needsQoS2()
	most := c.maximum(propReceiveMaximum, 65535)
	if most > 5000 {
		t.notApplicable(fmt.Sprintf("allows %d messages under way", most))
	}
	for i := range most {
		if p := c.offer(pub{topic: t.topic("a"), payload: "x", qos: 2, id: uint16(i + 1)}); p.code >= 0x80 {
			t.failf("%v for message %d, Receive Maximum is %d", p, i+1, most)
		}
	}
	c.send(pub{topic: t.topic("a"), payload: "x", qos: 2, id: uint16(most + 1)}.bytes(v5))
	c.turnedOut()
}

func fiveReceiveMaximum(t *Try) {
	c, from := five(t, number(propReceiveMaximum, 3)), five(t)
	c.listen(1, t.topic("a"))
	for i := range 8 {
		from.publish(pub{topic: t.topic("a"), payload: fmt.Sprint(i), qos: 1})
	}
	var open []packet // in which order they come is [MQTT-4.6.0-5]
	for range 3 {
		open = append(open, c.message())
	}
	c.expectNothing()
	for range 5 {
		c.finish(open[0])
		open = append(open[1:], c.message())
	}
	c.expectNothing()
}

// fiveReceiveMaximumQoS2 holds that PUBREC does not make room, and that PUBCOMP
// and a PUBREC that refuses do.
func fiveReceiveMaximumQoS2(t *Try) {
	c, from := five(t, number(propReceiveMaximum, 1)), five(t).needsQoS2()
	c.listen(2, t.topic("a"))
	for i := range 3 {
		from.publish(pub{topic: t.topic("a"), payload: fmt.Sprint(i), qos: 2})
	}
	p := c.expectPublish(t.topic("a"), "0", 2)
	c.send(ackPacket(kindPubrec, p.id))
	c.expectID(kindPubrel, p.id)
	c.silence(2 * moment)
	c.send(ackPacket(kindPubcomp, p.id))
	p = c.expectPublish(t.topic("a"), "1", 2)
	c.silence(2 * moment)
	c.answer(kindPubrec, p.id, 0x80)
	c.take(t.topic("a"), "2", 2)
}

func fiveWindowFull(t *Try) {
	c, from := five(t, number(propReceiveMaximum, 1)), five(t)
	c.listen(1, t.topic("a"))
	for range 3 {
		from.publish(pub{topic: t.topic("a"), payload: "x", qos: 1})
	}
	p := c.expectPublish(t.topic("a"), "x", 1)
	start := time.Now()
	c.ping()
	c.listen(1, t.topic("b"))
	c.unsubscribe(t.topic("b"))
	c.publish(pub{topic: t.topic("c"), payload: "own", qos: 1})
	if c.maximum(propMaximumQoS, 2) == 2 {
		c.publish(pub{topic: t.topic("c"), payload: "own", qos: 2})
	}
	if len(c.aside) > 0 {
		t.failf("%v after %v, while one is not acknowledged", c.aside[0], time.Since(start))
	}
	c.finish(p)
	c.take(t.topic("a"), "x", 1)
}
