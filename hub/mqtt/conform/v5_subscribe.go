package conform

import (
	"fmt"
	"slices"
)

// rowsSubscribe5 are the statements about subscriptions, sections 3.3.4 and 3.8.
func rowsSubscribe5() []Row {
	return []Row{
		{"3.3.4-2", "overlapping subscriptions: the message comes with the highest QoS", fiveOverlap},
		{"3.3.4-3", "overlapping subscriptions: their subscription identifiers come", fiveOverlapIDs},
		{"3.3.4-4", "a single copy has all subscription identifiers", fiveSingleCopy},
		{"3.3.4-5", "each of several copies has its subscription identifier", fiveCopies},
		{"3.3.4-6", "a PUBLISH with a subscription identifier costs the connection", turnsOut(func(t *Try) []badPacket {
			return []badPacket{{"subscription identifier", publishPacket(t.topic("a"), number(propSubscriptionID, 1))}}
		})},
		{"3.8.1-1", "SUBSCRIBE with other flags than 0010 costs the connection", turnsOut(func(t *Try) []badPacket {
			return otherFlags(subscribePacket(v5, 1, nil, filter{t.topic("a"), 0}))
		})},
		{"3.8.3-1", "SUBSCRIBE with a filter that is not UTF-8 costs the connection", turnsOut(badFilters(func(s string) []byte {
			return subscribePacket(v5, 1, nil, filter{s, 0})
		}))},
		{"3.8.3-2", "SUBSCRIBE without a filter, or without its options, costs the connection", turnsOut(func(t *Try) []badPacket {
			return []badPacket{
				{"no filter", subscribePacket(v5, 1, nil)},
				{"no options", frame(kindSubscribe<<4|2, u16(1), block(nil), text(t.topic("a")))},
			}
		})},
		{"3.8.3-3", "No Local: one's own messages do not come", fiveNoLocal},
		{"3.8.3-4", "No Local on a shared subscription costs the connection", fiveNoLocalShared},
		{"3.8.3-5", "SUBSCRIBE with reserved option bits costs the connection", turnsOut(func(t *Try) []badPacket {
			var all []badPacket
			for _, options := range []byte{0x40, 0x80, 0xc0} {
				all = append(all, badPacket{fmt.Sprintf("options %#x", options), subscribePacket(v5, 1, nil, filter{t.topic("a"), options})})
			}
			return all
		})},
		{"3.8.4-1", "SUBSCRIBE is answered with SUBACK", func(t *Try) { five(t).listen(0, t.topic("a")) }},
		{"3.8.4-2", "SUBACK has the id of its SUBSCRIBE", fiveSubackIDs},
		{"3.8.4-3", "a SUBSCRIBE of the same filter replaces the subscription", fiveReplace},
		{"3.8.4-5", "many filters in one SUBSCRIBE are as many packets with one, but one SUBACK", fiveManyFilters},
		{"3.8.4-6", "SUBACK has a reason code for each filter", fiveManyFilters},
		{"3.8.4-7", "SUBACK shows the QoS that is granted, or a failure", fiveGranted},
		{"3.8.4-8", "messages come with the lower of their QoS and what is granted", fiveLowerQoS},
	}
}

// badFilters are packets with a filter that is no UTF-8 Encoded String.
func badFilters(packet func(string) []byte) func(*Try) []badPacket {
	return func(t *Try) []badPacket {
		var all []badPacket
		for _, s := range badText() {
			all = append(all, badPacket{s.what, packet(t.topic("a") + s.text)})
		}
		return append(all,
			badPacket{"U+0000", packet(t.topic("a\x00"))},
			badPacket{"shorter than it says", frame(packet("")[0], u16(1), block(nil), u16(9), []byte("a"))})
	}
}

// messages are all that come within a moment after the first, acknowledged.
func (c *conn) messages() []packet {
	first := c.message()
	c.finish(first)
	all := []packet{first}
	for c.comes(moment) {
		p := c.message()
		c.finish(p)
		all = append(all, p)
	}
	return all
}

func fiveOverlap(t *Try) {
	c, from := five(t), five(t)
	most := byte(min(from.maximum(propMaximumQoS, 2), 2))
	c.listen(0, t.topic("#"))
	c.listen(most, t.topic("a/+"))
	c.listen(0, t.topic("a/b"))
	from.publish(pub{topic: t.topic("a/b"), payload: "x", qos: most})
	all := c.messages()
	highest := slices.MaxFunc(all, func(a, b packet) int { return int(a.qos) - int(b.qos) })
	if highest.qos != most || len(all) > 3 {
		t.failf("got %v, want QoS %d, and three copies at most", all, most)
	}
}

// overlapping is what comes to a client with three subscriptions, of which two
// have a subscription identifier, and the identifiers in it.
func overlapping(t *Try) (all []packet, ids [][]uint32) {
	c, from := five(t).needsIDs(), five(t)
	c.identify(7, filter{t.topic("#"), 1})
	c.identify(268435455, filter{t.topic("a/+"), 1})
	c.listen(1, t.topic("+/b"))
	from.publish(pub{topic: t.topic("a/b"), payload: "x", qos: 1})
	all = c.messages()
	for _, p := range all {
		var of []uint32
		for _, v := range p.props.all(propSubscriptionID) {
			of = append(of, v.num)
		}
		slices.Sort(of)
		ids = append(ids, of)
	}
	return all, ids
}

func fiveOverlapIDs(t *Try) {
	all, ids := overlapping(t)
	got := slices.Concat(ids...)
	if slices.Sort(got); !slices.Equal(got, []uint32{7, 268435455}) {
		t.failf("subscription identifiers %v in %d copies, want 7 and 268435455", ids, len(all))
	}
}

func fiveSingleCopy(t *Try) {
	all, ids := overlapping(t)
	if len(all) > 1 {
		t.notApplicable("sends a copy for each subscription")
	}
	if !slices.Equal(ids[0], []uint32{7, 268435455}) {
		t.failf("subscription identifiers %v, want 7 and 268435455", ids[0])
	}
}

func fiveCopies(t *Try) {
	all, ids := overlapping(t)
	if len(all) == 1 {
		t.notApplicable("sends a single copy, see [MQTT-3.3.4-4]")
	}
	for _, of := range ids {
		if len(of) > 1 {
			t.failf("subscription identifiers %v in one of %d copies", of, len(all))
		}
	}
}

func fiveNoLocal(t *Try) {
	id, other := t.id(), five(t)
	c := begin(t, id)
	c.option(t.topic("a"), 1|noLocal)
	c.publish(pub{topic: t.topic("a"), payload: "own", qos: 1})
	other.publish(pub{topic: t.topic("a"), payload: "other's", qos: 1})
	c.take(t.topic("a"), "other's", 1)
	c.publish(pub{topic: t.topic("a"), payload: "own", qos: 1})
	c.leave()
	c = back(t, id)
	c.publish(pub{topic: t.topic("a"), payload: "own", qos: 1})
	other.publish(pub{topic: t.topic("a"), payload: "other's", qos: 1})
	c.take(t.topic("a"), "other's", 1)
	c.expectNothing()
	gone(c)
}

func fiveNoLocalShared(t *Try) {
	c := five(t).needsShared()
	c.send(subscribePacket(v5, 1, nil, filter{"$share/g/" + t.topic("a"), noLocal}))
	c.turnedOut()
}

func fiveReplace(t *Try) {
	c, from := five(t), five(t)
	c.listen(1, t.topic("a"))
	c.listen(0, t.topic("a"))
	from.publish(pub{topic: t.topic("a"), payload: "x", qos: 1})
	c.take(t.topic("a"), "x", 0)
	c.expectNothing()
	c.listen(1, t.topic("a"))
	from.publish(pub{topic: t.topic("a"), payload: "y", qos: 1})
	c.take(t.topic("a"), "y", 1)
	c.expectNothing()
	c.unsubscribe(t.topic("a"))
	from.publish(pub{topic: t.topic("a"), payload: "z", qos: 1})
	c.expectNothing()
}

func fiveManyFilters(t *Try) {
	c, from := five(t), five(t)
	var filters []filter
	want := make([]byte, 20)
	for i := range want {
		want[i] = byte(i % 2)
		filters = append(filters, filter{t.topic(fmt.Sprint(i)), want[i]})
	}
	// The last one replaces the first, as it would in a packet of its own.
	filters, want = append(filters, filter{t.topic("0"), 1}), append(want, 1)
	if got := c.subscribe(filters...); !slices.Equal(got, want) {
		t.failf("SUBACK % x, want % x", got, want)
	}
	c.expectNothing()
	for i, f := range filters[1:] {
		from.publish(pub{topic: f.name, payload: "x", qos: 1})
		c.take(f.name, "x", want[i+1])
	}
	c.expectNothing()
}

func fiveGranted(t *Try) {
	c, from := five(t), five(t)
	most := byte(min(from.maximum(propMaximumQoS, 2), 2))
	for qos := range byte(3) {
		f := t.topic(fmt.Sprint(qos))
		code := c.subscribe(filter{f, qos})[0]
		if code > qos {
			t.failf("SUBACK %#x for QoS %d", code, qos)
		}
		from.publish(pub{topic: f, payload: "x", qos: most})
		c.take(f, "x", min(code, most))
	}
	if t.Target.Narrow == "" {
		return
	}
	n := t.connect(func(h *hello) { h.user = &t.Target.Narrow })
	code := n.subscribe(filter{t.topic("a"), 1})[0]
	from.publish(pub{topic: t.topic("a"), payload: "x", qos: 1})
	if code >= 0x80 {
		n.expectNothing()
	}
}

func fiveLowerQoS(t *Try) {
	c, from := five(t), five(t)
	most := byte(min(from.maximum(propMaximumQoS, 2), 2))
	for granted := range most + 1 {
		f := t.topic(fmt.Sprint(granted))
		c.listen(granted, f)
		for qos := range most + 1 {
			from.publish(pub{topic: f, payload: fmt.Sprint(qos), qos: qos})
			c.take(f, fmt.Sprint(qos), min(qos, granted))
		}
	}
}
