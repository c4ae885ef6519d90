package conform

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// rowsPublish5 are the statements about PUBLISH and what is in it, sections 2.2
// and 3.3.
func rowsPublish5() []Row {
	return []Row{
		{"2.2.1-2", "PUBLISH with QoS 0 has no packet identifier", fiveNoID},
		{"2.2.1-4", "packet identifiers of the server are not 0, and not in use", fiveServerIDs},
		{"3.3.1-1", "a PUBLISH that is sent again has DUP", fiveDupAgain},
		{"3.3.1-2", "no DUP with QoS 0", fiveDupQoS0},
		{"3.3.1-3", "DUP does not go from publisher to subscriber", fiveDupOwn},
		{"3.3.1-4", "PUBLISH with QoS 3 costs the connection", turnsOut(func(t *Try) []badPacket {
			var all []badPacket
			for _, flags := range []byte{6, 7, 14, 15} {
				p := publishPacket(t.topic("a"))
				p[0] = kindPublish<<4 | flags
				all = append(all, badPacket{fmt.Sprintf("flags %04b", flags), p})
			}
			return all
		})},
		{"3.3.2-1", "PUBLISH without a topic, or with one that is not UTF-8, costs the connection", turnsOut(badTopics)},
		{"3.3.2-2", "PUBLISH with wildcards in its topic costs the connection", turnsOut(func(t *Try) []badPacket {
			var all []badPacket
			for _, s := range []string{"#", "+", "a/#", "a/+/b", "a+", "#a"} {
				all = append(all, badPacket{s, publishPacket(t.topic(s))})
			}
			return all
		})},
		{"3.3.2-3", "the topic that a subscriber gets matches its filter", fiveTopicMatches},
		{"3.3.2-4", "the Payload Format Indicator is passed on", fivePassedOn(number(propPayloadFormat, 1))},
		{"3.3.2-5", "a message whose expiry has come is not delivered", fiveExpired},
		{"3.3.2-6", "the expiry that a subscriber gets is less by the time that the message waited", fiveExpiryLess},
		{"3.3.2-13", "Response Topics that are not UTF-8 cost the connection", turnsOut(badProperty(propResponseTopic))},
		{"3.3.2-14", "Response Topics with wildcards cost the connection", turnsOut(func(t *Try) []badPacket {
			return []badPacket{
				{"#", publishPacket(t.topic("a"), words(propResponseTopic, "a/#"))},
				{"+", publishPacket(t.topic("a"), words(propResponseTopic, "a/+/b"))},
			}
		})},
		{"3.3.2-15", "the Response Topic is passed on", fivePassedOn(words(propResponseTopic, "answers/hère"))},
		{"3.3.2-16", "Correlation Data are passed on", fivePassedOn(words(propCorrelation, "\x00\xff\x01data"))},
		{"3.3.2-17", "user properties are passed on", fivePassedOn(pair("name", "värde"), pair("", ""))},
		{"3.3.2-18", "user properties keep their order", fivePassedOn(pair("b", "1"), pair("a", "1"), pair("b", "0"), pair("a", "1"))},
		{"3.3.2-19", "Content Types that are not UTF-8 cost the connection", turnsOut(badProperty(propContentType))},
		{"3.3.2-20", "the Content Type is passed on", fivePassedOn(words(propContentType, "text/plain; charset=utf-8"))},
		{"3.3.4-1", "PUBLISH is answered as its QoS asks for", fiveAnswers},
	}
}

func badTopics(t *Try) []badPacket {
	all := []badPacket{
		{"no variable header", frame(kindPublish << 4)},
		{"shorter than it says", frame(kindPublish<<4, u16(9), []byte("a"))},
		{"empty, and no alias", publishPacket("")},
	}
	for _, s := range badText() {
		all = append(all, badPacket{s.what, publishPacket(t.topic("a") + s.text)})
	}
	return all
}

// badProperty are PUBLISH packets with a property that is no UTF-8 Encoded String.
func badProperty(id byte) func(*Try) []badPacket {
	return func(t *Try) []badPacket {
		var all []badPacket
		for _, s := range badText() {
			all = append(all, badPacket{s.what, publishPacket(t.topic("a"), words(id, "x"+s.text))})
		}
		return append(all, badPacket{"U+0000", publishPacket(t.topic("a"), words(id, "a\x00"))})
	}
}

func fiveNoID(t *Try) {
	c, from := five(t), five(t)
	c.listen(0, t.topic("a"))
	from.publish(pub{topic: t.topic("a"), payload: "\x00\x01payload", qos: 0})
	from.publish(pub{topic: t.topic("a"), payload: "second", qos: 1})
	for _, s := range []string{"\x00\x01payload", "second"} {
		if p := c.take(t.topic("a"), s, 0); p.dup {
			t.failf("%v, want DUP 0", p)
		}
	}
}

func fiveServerIDs(t *Try) {
	c, from := five(t), five(t)
	most := byte(min(from.maximum(propMaximumQoS, 2), 2))
	c.listen(most, t.topic("a"))
	const n = 12
	for i := range n {
		from.publish(pub{topic: t.topic("a"), payload: fmt.Sprint(i), qos: 1 + byte(i)%most})
	}
	var ids []uint16
	for i := range n { // none is acknowledged
		p := c.expectPublish(t.topic("a"), fmt.Sprint(i), 1+byte(i)%most)
		if p.id == 0 || slices.Contains(ids, p.id) {
			t.failf("%v, while %d are in use", p, ids)
		}
		ids = append(ids, p.id)
	}
}

func fiveDupAgain(t *Try) {
	id, from := t.id(), five(t)
	c := begin(t, id)
	qos := byte(min(from.maximum(propMaximumQoS, 2), 2))
	c.listen(qos, t.topic("a"))
	for q := byte(1); q <= qos; q++ {
		from.publish(pub{topic: t.topic("a"), payload: fmt.Sprint(q), qos: q})
		if p := c.expectPublish(t.topic("a"), fmt.Sprint(q), q); p.dup {
			t.failf("%v, want DUP 0 the first time", p)
		}
	}
	c.close()
	c = back(t, id)
	for q := byte(1); q <= qos; q++ {
		if p := c.take(t.topic("a"), fmt.Sprint(q), q); !p.dup {
			t.failf("%v, want DUP 1 the second time", p)
		}
	}
	gone(c)
}

func fiveDupQoS0(t *Try) {
	c, from := five(t), five(t)
	c.listen(0, t.topic("a"))
	from.publish(pub{topic: t.topic("a"), payload: "0"})
	from.publish(pub{topic: t.topic("a"), payload: "1", qos: 1, dup: true})
	for _, s := range []string{"0", "1"} {
		if p := c.take(t.topic("a"), s, 0); p.dup {
			t.failf("%v, want DUP 0", p)
		}
	}
	from.send(pub{topic: t.topic("a"), payload: "x", dup: true}.bytes(v5))
	from.turnedOut()
}

func fiveDupOwn(t *Try) {
	c, from := five(t), five(t)
	most := byte(min(from.maximum(propMaximumQoS, 2), 2))
	c.listen(most, t.topic("a"))
	for q := byte(1); q <= most; q++ {
		from.publish(pub{topic: t.topic("a"), payload: "x", qos: q, dup: true})
		if p := c.take(t.topic("a"), "x", q); p.dup {
			t.failf("%v, want DUP 0", p)
		}
	}
}

func fiveTopicMatches(t *Try) {
	c, from := five(t), five(t)
	for _, f := range []struct{ filter, in, out string }{
		{"1/+/c", "1/b/c", "1/b/d"}, {"2/#", "2/b/c", "3/b"}, {"4", "4", "4/b"}, {"5/+", "5/", "5"}, {"6/b/#", "6/b", "6/bc"},
	} {
		c.listen(1, t.topic(f.filter))
		for _, topic := range []string{f.out, f.in} {
			from.publish(pub{topic: t.topic(topic), payload: topic, qos: 1})
		}
		c.take(t.topic(f.in), f.in, 1)
	}
	c.expectNothing()
}

// fivePassedOn is a row: the properties come to a live subscriber and to one that
// was away as they were sent.
func fivePassedOn(props ...[]byte) func(*Try) {
	return func(t *Try) {
		id, c, from := t.id(), five(t), five(t)
		c.listen(1, t.topic("a"))
		away := begin(t, id)
		away.listen(1, t.topic("a"))
		away.leave()
		from.publish(pub{topic: t.topic("a"), payload: "x", qos: 1, props: slices.Concat(props...)})
		block := block(slices.Concat(props...))
		want := (&reader{b: block}).properties()
		for _, c := range []*conn{c, back(t, id)} {
			p := c.take(t.topic("a"), "x", 1)
			if got := p.props.all(want[0].id); !slices.Equal(got, want) {
				t.failf("properties are %v, want %v", got, want)
			}
		}
		gone(back(t, id))
	}
}

func fiveExpired(t *Try) {
	id, from := t.id(), five(t)
	c := begin(t, id)
	c.listen(1, t.topic("a"))
	c.leave()
	from.publish(pub{topic: t.topic("a"), payload: "short", qos: 1, props: number(propMessageExpiry, 1)})
	from.publish(pub{topic: t.topic("a"), payload: "long", qos: 1, props: number(propMessageExpiry, 600)})
	pause(2500 * time.Millisecond)
	c = back(t, id)
	c.take(t.topic("a"), "long", 1)
	c.expectNothing()
	gone(c)
}

func fiveExpiryLess(t *Try) {
	id, live, from := t.id(), five(t), five(t)
	c := begin(t, id)
	for _, c := range []*conn{c, live} {
		c.listen(1, t.topic("a"))
	}
	c.leave()
	start := time.Now()
	from.publish(pub{topic: t.topic("a"), payload: "x", qos: 1, props: number(propMessageExpiry, 600)})
	soon, _ := live.take(t.topic("a"), "x", 1).props.number(propMessageExpiry)
	pause(3 * time.Second)
	c = back(t, id)
	late, _ := c.take(t.topic("a"), "x", 1).props.number(propMessageExpiry)
	// Servers may count in whole seconds, so one is not held against them.
	took := uint32(time.Since(start)/time.Second) + 1
	if soon > 600 || late > 598 || late+took < 600 {
		t.failf("expiry is %d at once and %d after 3 s, want 600 less the seconds", soon, late)
	}
	gone(c)
}

func fiveAnswers(t *Try) {
	c := five(t)
	c.send(pub{topic: t.topic("a"), payload: "x"}.bytes(v5))
	c.ping()
	if len(c.aside) > 0 {
		t.failf("%v for PUBLISH with QoS 0", c.aside[0])
	}
	c.publish(pub{topic: t.topic("a"), payload: "x", qos: 1})
	c.needsQoS2().publish(pub{topic: t.topic("a"), payload: strings.Repeat("x", 1000), qos: 2})
	c.expectNothing()
}
