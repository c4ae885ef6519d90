package conform

// rowsTopic5 are the statements of sections 1.5.4 and 4.7 about text and topics.
func rowsTopic5() []Row {
	return []Row{
		{"1.5.4-1", "text that is not UTF-8 costs the connection, wherever it is", turnsOut(textPackets(badText()))},
		{"1.5.4-2", "U+0000 in text costs the connection, wherever it is", turnsOut(textPackets([]badString{{"U+0000", "\x00"}}))},
		{"1.5.4-3", "U+FEFF is a character as others are", fiveBOM},
		{"1.5.7-1", "both strings of a user property are UTF-8", turnsOut(badPairs)},
		{"4.7.0-1", "wildcards in topic names cost the connection", fiveWildcardTopics},
		{"4.7.1-1", "# stands at the end, alone or behind a slash", fiveFilters([]string{
			"a#", "#a", "a/#/b", "#/a", "##", "a/b#", "+#", "/#/",
		}, []filterMatch{{"1/#", "1"}, {"2/#", "2/x/y"}, {"3//#", "3//x"}})},
		{"4.7.1-2", "+ takes up a whole level", fiveFilters([]string{
			"a+", "+a", "a/b+", "a/+b/c", "++", "a/+#",
		}, []filterMatch{{"1/+", "1/x"}, {"2/+/y", "2/x/y"}, {"3/+/+", "3//x"}, {"4/+", "4/"}})},
		{"4.7.2-1", "wildcards at the beginning do not match topics that begin with $", fiveDollar},
		{"4.7.3-1", "empty topic names and filters are refused", fiveEmpty},
		{"4.7.3-2", "U+0000 in topic names and filters costs the connection", turnsOut(func(t *Try) []badPacket {
			return []badPacket{
				{"topic name", publishPacket(t.topic("a\x00b"))},
				{"topic filter", subscribePacket(v5, 1, nil, filter{t.topic("a\x00b"), 0})},
				{"filter of UNSUBSCRIBE", unsubscribePacket(v5, 1, nil, t.topic("a\x00b"))},
			}
		})},
		{"4.7.3-4", "topics are compared as they are, without normalization", fiveNormal},
	}
}

// textPackets are packets with the strings where text may stand. Those of CONNECT have
// rows of their own.
func textPackets(strings []badString) func(*Try) []badPacket {
	return func(t *Try) []badPacket {
		var all []badPacket
		for _, s := range strings {
			x := "a" + s.text
			all = append(all,
				badPacket{s.what + " in a topic name", publishPacket(t.topic(x))},
				badPacket{s.what + " in a topic filter", subscribePacket(v5, 1, nil, filter{t.topic(x), 0})},
				badPacket{s.what + " in a filter of UNSUBSCRIBE", unsubscribePacket(v5, 1, nil, t.topic(x))},
				badPacket{s.what + " in a response topic", publishPacket(t.topic("a"), words(propResponseTopic, x))},
				badPacket{s.what + " in a content type", publishPacket(t.topic("a"), words(propContentType, x))},
				badPacket{s.what + " in a user property of SUBSCRIBE", subscribePacket(v5, 1, pair("k", x), filter{t.topic("a"), 0})},
				badPacket{s.what + " in a reason string of PUBACK", frame(kindPuback<<4, u16(1), []byte{0x80}, block(words(propReasonString, x)))})
		}
		return all
	}
}

func badPairs(t *Try) []badPacket {
	var all []badPacket
	for _, s := range append(badText(), badString{"U+0000", "\x00"}) {
		all = append(all,
			badPacket{s.what + " in the name", publishPacket(t.topic("a"), pair("k"+s.text, "v"))},
			badPacket{s.what + " in the value", publishPacket(t.topic("a"), pair("k", "v"+s.text))})
	}
	return all
}

func fiveBOM(t *Try) {
	const bom = "\ufeff"
	with, without, from := five(t), five(t), five(t)
	with.listen(1, t.topic(bom+"a"))
	without.listen(1, t.topic("a"))
	from.publish(pub{topic: t.topic(bom + "a"), payload: "x", qos: 1, props: words(propContentType, bom+"type"+bom)})
	p := with.take(t.topic(bom+"a"), "x", 1)
	if s, _ := p.props.text(propContentType); s != bom+"type"+bom {
		t.failf("content type %q, want %q", s, bom+"type"+bom)
	}
	without.expectNothing()
}

func fiveWildcardTopics(t *Try) {
	for _, s := range []string{"#", "+", "a/+/b", "a/#"} {
		within("PUBLISH on "+s, func() {
			c := five(t)
			c.send(publishPacket(t.topic(s)))
			c.turnedOut()
		})
		within("will on "+s, func() {
			h := t.hello()
			h.will = &lastWill{topic: t.topic(s), payload: "x"}
			turnedAway(t, h)
		})
	}
}

// filterMatch is a filter and a topic that it matches.
type filterMatch struct{ filter, topic string }

// fiveFilters is a row: filters that are wrong are refused, one way or the other,
// and those that are right match.
func fiveFilters(wrongs []string, rights []filterMatch) func(*Try) {
	return func(t *Try) {
		for _, f := range wrongs {
			within("filter "+f, func() { notGranted(five(t), t.topic(f)) })
		}
		c, from := five(t), five(t)
		for _, f := range rights {
			c.listen(1, t.topic(f.filter))
			from.publish(pub{topic: t.topic(f.topic), payload: f.filter, qos: 1})
			c.take(t.topic(f.topic), f.filter, 1)
		}
	}
}

// notGranted holds that the filter is refused: with SUBACK, or by the end of the
// connection.
func notGranted(c *conn, f string) {
	c.send(subscribePacket(v5, 1, nil, filter{f, 0}))
	p, err := c.read("SUBACK or the end")
	switch {
	case err != nil:
	case p.kind == kindDisconnect && p.code >= 0x80:
		c.expectClosed()
	case p.kind == kindSuback && len(p.codes) == 1 && p.codes[0] >= 0x80:
	default:
		c.t.failf("%v, want the filter refused", p)
	}
}

// fiveDollar publishes on a topic that begins with $, where the server lets it,
// and looks for its own such topics.
func fiveDollar(t *Try) {
	c, own, from := five(t), five(t), five(t)
	topic := "$" + t.name + "/a"
	c.listen(0, "+/a", "+/broker/uptime", "+/broker/clients/connected")
	code := own.subscribe(filter{"$" + t.name + "/#", 0})[0]
	p := from.offer(pub{topic: topic, payload: "x", qos: 1})
	if code < 0x80 && p.code < 0x80 {
		own.comes(moment)
	}
	c.expectNothing()
}

func fiveEmpty(t *Try) {
	c := five(t)
	c.send(publishPacket(""))
	c.turnedOut()
	notGranted(five(t), "")
	h := t.hello()
	h.will = &lastWill{payload: "x"}
	turnedAway(t, h)
}

// fiveNormal has topics that a server may take for the same and must not: letter
// case, slashes, composed characters, and spaces.
func fiveNormal(t *Try) {
	c, from := five(t), five(t)
	topics := []string{"Case", "case", "a", "a/", "a//", "/a", "\u00e9", "e\u0301", "a b", "ab", "a%2Fb", "a.", "./a"}
	for i, s := range topics {
		c.listen(1, t.topic(s))
		for _, other := range topics {
			from.publish(pub{topic: t.topic(other), payload: other, qos: 1})
			if other == s {
				c.take(t.topic(s), s, 1)
			}
		}
		c.unsubscribe(t.topic(s))
		t.settle() // or the next subscription may get what was published before it
		if i == len(topics)-1 {
			c.expectNothing()
		}
	}
}
