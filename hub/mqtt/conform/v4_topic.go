package conform

import "strings"

// Topic names and filters: section 4.7.

func topicRows311() []Row {
	return []Row{
		{"4.7.1-1", "a topic with a wildcard is taken neither in PUBLISH nor in a will", rowWildcardTopics},
		{"4.7.1-2", "# is a level of its own, and the last", rowMultiLevel},
		{"4.7.1-3", "+ is a level of its own, anywhere", rowSingleLevel},
		{"4.7.2-1", "filters that begin with a wildcard do not match $ topics", rowDollar},
		{"4.7.3-1", "topics and filters have one character at least", rowEmptyTopic},
		{"4.7.3-2", "topics and filters with U+0000 end the connection", rowNullTopic},
		{"4.7.3-4", "topics are matched as they are, without any normalization", rowNoNormalization},
	}
}

func rowWildcardTopics(t *Try) {
	for _, topic := range []string{"a/+", "a/#", "a+b"} {
		c := t.client()
		c.send(pub{topic: t.topic(topic), payload: "x"}.bytes(c.version))
		c.expectClosed()
		h := t.hello()
		h.will = &lastWill{topic: t.topic(topic), payload: "x"}
		t.refused(h)
	}
}

// notGranted says that a filter is refused, in one of the ways that 3.1.1 has.
func (t *Try) notGranted(f string) {
	c := t.client()
	c.send(subscribePacket(c.version, 1, nil, filter{f, 0}))
	p, err := c.read("a refusal, or the connection closed")
	if err == nil && (p.kind != kindSuback || len(p.codes) != 1 || p.codes[0] < 0x80) {
		t.failf("%v for filter %q, want a refusal", p, f)
	}
}

// matching says which of topics a subscription to f gets.
func (t *Try) matching(f string, topics []string, want ...string) {
	c := t.client()
	c.listen(0, t.topic(f))
	for _, topic := range topics {
		c.publish(pub{topic: t.topic(topic), payload: topic})
	}
	for _, topic := range want {
		c.expectPublish(t.topic(topic), topic, 0)
	}
	c.ping()
	c.expectNothing()
}

func rowMultiLevel(t *Try) {
	for _, f := range []string{"a/#/b", "a#", "a/b#", "#/", "##", "a/#b"} {
		t.notGranted(t.topic(f))
	}
	t.notGranted("#a")
	topics := []string{"a", "a/", "a/b", "a/b/c", "b"}
	t.matching("a/#", topics, "a", "a/", "a/b", "a/b/c")
	t.matching("a/b/#", topics, "a/b", "a/b/c")
}

func rowSingleLevel(t *Try) {
	for _, f := range []string{"a+", "+a", "a/+b/c", "++", "a/b+"} {
		t.notGranted(t.topic(f))
	}
	t.notGranted("+a/" + t.topic("a"))
	topics := []string{"a", "a/", "a/b", "a/b/c", "/b", "b"}
	t.matching("a/+", topics, "a/", "a/b")
	t.matching("+/b", topics, "a/b", "/b")
	t.matching("+/+/c", topics, "a/b/c")
	t.matching("a/+/#", topics, "a/", "a/b", "a/b/c")
	c := t.client()
	c.listen(0, "+/"+strings.TrimPrefix(t.topic("x"), "conform/"))
	c.publish(pub{topic: t.topic("x"), payload: "first level"})
	c.expectPublish(t.topic("x"), "first level", 0)
}

// rowDollar publishes on $ topics, which a server may refuse; what it says itself
// on $SYS comes all the time in some.
func rowDollar(t *Try) {
	for _, f := range []string{"#", "+/" + t.topic("a"), "+/#"} {
		c := t.client()
		if code := c.subscribe(filter{f, 0})[0]; code >= 0x80 {
			continue // a server may forbid them
		}
		for _, topic := range []string{"$" + t.topic("a"), "$x/" + t.topic("a")} {
			p := t.client()
			p.send(pub{topic: topic, payload: "x"}.bytes(p.version), pingreq())
			p.read("PINGRESP, or the connection closed")
		}
		t.client().publish(pub{topic: "y/" + t.topic("a"), payload: "end", qos: 1})
		for {
			m := c.await("PUBLISH", func(p packet) bool { return p.kind == kindPublish })
			if strings.HasPrefix(m.topic, "$") {
				t.failf("%v for filter %q", m, f)
			}
			if m.topic == "y/"+t.topic("a") {
				break
			}
		}
		c.close()
	}
}

func rowEmptyTopic(t *Try) {
	c := t.client()
	c.send(pub{topic: "", payload: "x"}.bytes(c.version))
	c.expectClosed()
	t.notGranted("")
	c = t.client()
	c.listen(0, t.topic("/"))
	c.publish(pub{topic: t.topic("/"), payload: "x"}) // levels may be empty
	c.expectPublish(t.topic("/"), "x", 0)
}

func rowNullTopic(t *Try) {
	for _, s := range []string{"\x00", "a\x00", "a/\x00/b"} {
		c := t.client()
		c.send(pub{topic: t.topic(s), payload: "x"}.bytes(c.version))
		c.expectClosed()
		c = t.client()
		c.send(subscribePacket(c.version, 1, nil, filter{t.topic(s), 0}))
		c.expectClosed()
		c = t.client()
		c.send(unsubscribePacket(c.version, 1, nil, t.topic(s)))
		c.expectClosed()
	}
}

func rowNoNormalization(t *Try) {
	all := []string{"a/b", "a//b", "a/b/", "A/b", "a/ b", "a/b ", "é", "e\u0301", "a/./b", "a/%62"}
	for _, topic := range all {
		t.matching(topic, all, topic)
	}
}
