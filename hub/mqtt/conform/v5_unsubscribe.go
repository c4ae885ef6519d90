package conform

import (
	"fmt"
	"slices"
)

// rowsUnsubscribe5 are the statements of section 3.10.
func rowsUnsubscribe5() []Row {
	return []Row{
		{"3.10.1-1", "UNSUBSCRIBE with other flags than 0010 costs the connection", turnsOut(func(t *Try) []badPacket {
			return otherFlags(unsubscribePacket(v5, 1, nil, t.topic("a")))
		})},
		{"3.10.3-1", "UNSUBSCRIBE with a filter that is not UTF-8 costs the connection", turnsOut(badFilters(func(s string) []byte {
			return unsubscribePacket(v5, 1, nil, s)
		}))},
		{"3.10.3-2", "UNSUBSCRIBE without a filter costs the connection", turnsOut(func(*Try) []badPacket {
			return []badPacket{{"no filter", unsubscribePacket(v5, 1, nil)}}
		})},
		{"3.10.4-1", "filters are compared character by character", fiveUnsubscribeExact},
		{"3.10.4-2", "no new messages after UNSUBSCRIBE", fiveUnsubscribeStops},
		{"3.10.4-3", "what is under way at UNSUBSCRIBE is seen through", fiveUnsubscribeUnderWay},
		{"3.10.4-4", "UNSUBSCRIBE is answered with UNSUBACK", fiveUnsubscribeAnswer},
		{"3.10.4-5", "UNSUBACK has the id of its UNSUBSCRIBE, where there was nothing, too", fiveUnsubscribeAnswer},
		{"3.10.4-6", "many filters in one UNSUBSCRIBE are as many packets, but one UNSUBACK", fiveUnsubscribeMany},
	}
}

func fiveUnsubscribeExact(t *Try) {
	c, from := five(t), five(t)
	c.listen(1, t.topic("a/+"))
	for _, f := range []string{"a/b", "a/#", "a/+/", "A/+", "+/+", "a"} {
		if p := c.unsubscribe(t.topic(f)); !slices.Equal(p.codes, []byte{0x11}) {
			t.failf("%v for %q, of which there is no subscription", p, f)
		}
	}
	from.publish(pub{topic: t.topic("a/b"), payload: "1", qos: 1})
	c.take(t.topic("a/b"), "1", 1)
	if p := c.unsubscribe(t.topic("a/+")); !slices.Equal(p.codes, []byte{0}) {
		t.failf("%v for a subscription, want 00", p)
	}
	from.publish(pub{topic: t.topic("a/b"), payload: "2", qos: 1})
	c.expectNothing()
}

func fiveUnsubscribeStops(t *Try) {
	c, from := five(t), five(t)
	c.listen(1, t.topic("a"), t.topic("b"))
	c.unsubscribe(t.topic("a"))
	from.publish(pub{topic: t.topic("a"), payload: "x", qos: 1})
	from.publish(pub{topic: t.topic("b"), payload: "y", qos: 1})
	c.take(t.topic("b"), "y", 1)
	c.expectNothing()
}

func fiveUnsubscribeUnderWay(t *Try) {
	id, from := t.id(), five(t)
	c := begin(t, id)
	most := byte(min(from.maximum(propMaximumQoS, 2), 2))
	c.listen(most, t.topic("a"))
	for q := byte(1); q <= most; q++ {
		from.publish(pub{topic: t.topic("a"), payload: fmt.Sprint(q), qos: q})
		c.expectPublish(t.topic("a"), fmt.Sprint(q), q)
	}
	c.unsubscribe(t.topic("a"))
	c.close()
	c = back(t, id)
	for q := byte(1); q <= most; q++ {
		c.take(t.topic("a"), fmt.Sprint(q), q)
	}
	c.expectNothing()
	gone(c)
}

func fiveUnsubscribeAnswer(t *Try) {
	c := five(t)
	c.listen(0, t.topic("a"))
	for _, id := range []uint16{65535, 1, 513} {
		c.send(unsubscribePacket(v5, id, nil, t.topic("a")))
		c.expectID(kindUnsuback, id)
	}
}

func fiveUnsubscribeMany(t *Try) {
	c, from := five(t), five(t)
	c.listen(1, t.topic("a"), t.topic("b"), t.topic("c"))
	if p := c.unsubscribe(t.topic("a"), t.topic("x"), t.topic("b"), t.topic("a")); !slices.Equal(p.codes, []byte{0, 0x11, 0, 0x11}) {
		t.failf("%v, want 00 11 00 11", p)
	}
	c.expectNothing()
	for _, s := range []string{"a", "b", "c"} {
		from.publish(pub{topic: t.topic(s), payload: s, qos: 1})
	}
	c.take(t.topic("c"), "c", 1)
	c.expectNothing()
}
