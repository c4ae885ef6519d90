package conform

import "fmt"

// rowsShared5 are the statements of section 4.8 about shared subscriptions.
func rowsShared5() []Row {
	return []Row{
		{"4.8.2-1", "a share name is not empty", fiveShareNames("$share//%s", "$share/")},
		{"4.8.2-2", "a share name has no wildcards, and a filter follows it", fiveShareNames("$share/a+/%s", "$share/+/%s", "$share/#/%s", "$share/g#/%s", "$share/g", "$share/g/")},
		{"4.8.2-3", "the granted QoS counts for shared subscriptions, too", fiveShareQoS},
		{"4.8.2-4", "a QoS 2 message that went to a member is completed when the member is back", needQoS2(fiveShareBack)},
		{"4.8.2-5", "a QoS 2 message that went to a member goes to no other when the session ends", needQoS2(fiveShareEnds)},
		{"4.8.2-6", "a message that a member refuses goes to no other", fiveShareRefused},
	}
}

// fiveShareNames is a row: filters that are wrong are refused; %s is a topic. One
// that is right is granted, and each message goes to one of the members.
func fiveShareNames(wrongs ...string) func(*Try) {
	return func(t *Try) {
		members, from := []*conn{five(t).needsShared(), five(t)}, five(t)
		for _, w := range wrongs {
			f := w
			if len(w) > 2 && w[len(w)-2:] == "%s" {
				f = fmt.Sprintf(w, t.topic("a"))
			}
			within(f, func() { notGranted(five(t), f) })
		}
		for _, c := range members {
			c.listen(1, "$share/"+t.name+"/"+t.topic("a"))
		}
		const n = 6
		for i := range n {
			from.publish(pub{topic: t.topic("a"), payload: fmt.Sprint(i), qos: 1})
		}
		got := map[string]int{}
		for _, c := range members {
			for c.comes(2 * moment) {
				p := c.message()
				c.finish(p)
				got[p.payload]++
			}
		}
		for i := range n {
			if got[fmt.Sprint(i)] != 1 {
				t.failf("members got %v, want each of %d messages once", got, n)
			}
		}
	}
}

func fiveShareQoS(t *Try) {
	from := five(t).needsShared()
	most := byte(min(from.maximum(propMaximumQoS, 2), 2))
	for asked := range most + 1 {
		c, topic := five(t), t.topic(fmt.Sprint(asked))
		granted := c.subscribe(filter{"$share/g/" + topic, asked})[0]
		if granted > asked {
			t.failf("SUBACK %#x for QoS %d", granted, asked)
		}
		for qos := range most + 1 {
			from.publish(pub{topic: topic, payload: fmt.Sprint(qos), qos: qos})
			c.take(topic, fmt.Sprint(qos), min(qos, granted))
		}
	}
}

// shared subscribes, and ends the row where the server grants less than it was
// asked for, as it may.
func (c *conn) shared(qos byte, name string) {
	switch code := c.subscribe(filter{name, qos})[0]; {
	case code >= 0x80:
		c.t.failf("SUBACK %#x for %q", code, name)
	case code < qos:
		c.t.notApplicable(fmt.Sprintf("grants shared subscriptions QoS %d at most", code))
	}
}

// share makes two members and gives the one that has got a message, which is not
// acknowledged, the message and the other.
func share(t *Try, qos byte) (id string, has *conn, p packet, other *conn) {
	from := five(t).needsShared()
	ids := []string{t.id(), t.id()}
	var members []*conn
	for _, id := range ids {
		c := begin(t, id)
		c.shared(qos, "$share/"+t.name+"/"+t.topic("a"))
		members = append(members, c)
	}
	from.publish(pub{topic: t.topic("a"), payload: "x", qos: qos})
	for range 200 {
		for i, c := range members {
			if c.comes(moment / 10) {
				return ids[i], c, c.expectPublish(t.topic("a"), "x", qos), members[1-i]
			}
		}
	}
	t.failf("neither member got the message")
	return
}

func fiveShareBack(t *Try) {
	id, c, p, other := share(t, 2)
	c.close()
	other.expectNothing()
	c = back(t, id)
	if again := c.take(t.topic("a"), "x", 2); again.id != p.id {
		t.failf("%v, want id %d again", again, p.id)
	}
	other.expectNothing()
	gone(c)
	gone(other)
}

func fiveShareEnds(t *Try) {
	_, c, _, other := share(t, 2)
	gone(c)
	other.expectNothing()
	gone(other)
}

func fiveShareRefused(t *Try) {
	most := byte(min(five(t).maximum(propMaximumQoS, 2), 2))
	if most == 2 && five(t).subscribe(filter{"$share/x/" + t.topic("x"), 2})[0] < 2 {
		most = 1
	}
	for qos := byte(1); qos <= most; qos++ {
		_, c, p, other := share(t, qos)
		c.answer(kindPuback+qos-1, p.id, 0x80)
		other.expectNothing()
		c.expectNothing()
		gone(c)
		gone(other)
	}
}
