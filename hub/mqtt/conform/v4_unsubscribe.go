package conform

// UNSUBSCRIBE and UNSUBACK: sections 3.10 and 3.11.

func unsubscribeRows311() []Row {
	return []Row{
		{"3.10.1-1", "UNSUBSCRIBE with other flags than 2 ends the connection", rowUnsubscribeFlags},
		{"3.10.3-1", "a filter that is not UTF-8 ends the connection", rowUnsubscribeIllFormed},
		{"3.10.3-2", "an UNSUBSCRIBE without a filter is a protocol violation", rowUnsubscribeEmpty},
		{"3.10.4-1", "filters are compared character by character", rowUnsubscribeExact},
		{"3.10.4-2", "nothing new is added after UNSUBACK", rowUnsubscribeStops},
		{"3.10.4-3", "what was being delivered is delivered to the end", rowUnsubscribeCompletes},
		{"3.10.4-4", "UNSUBACK has the id of the UNSUBSCRIBE", rowUnsubackID},
		{"3.10.4-5", "UNSUBACK comes also where nothing was subscribed", rowUnsubackAlways},
		{"3.10.4-6", "several filters are dealt with one by one, with one UNSUBACK", rowUnsubscribeMany},
	}
}

func rowUnsubscribeFlags(t *Try) {
	for _, flags := range []byte{0, 1, 3, 10} {
		c := t.client()
		p := unsubscribePacket(c.version, 1, nil, t.topic("a"))
		p[0] = kindUnsubscribe<<4 | flags
		c.send(p)
		c.expectClosed()
	}
}

func rowUnsubscribeIllFormed(t *Try) {
	for _, f := range []string{"\xff", "a\x00", "\xed\xbf\xbf"} {
		c := t.client()
		c.send(unsubscribePacket(c.version, 1, nil, t.topic("a"), t.topic(f)))
		c.expectClosed()
	}
}

func rowUnsubscribeEmpty(t *Try) {
	c := t.client()
	c.send(unsubscribePacket(c.version, 1, nil))
	c.expectClosed()
}

func rowUnsubscribeExact(t *Try) {
	c := t.client()
	c.listen(0, t.topic("a/+"))
	c.unsubscribe(t.topic("a/b"))
	c.unsubscribe(t.topic("a/#"))
	c.unsubscribe(t.topic("A/+"))
	c.unsubscribe(t.topic("a/+/"))
	c.publish(pub{topic: t.topic("a/b"), payload: "still"})
	c.expectPublish(t.topic("a/b"), "still", 0)
	c.unsubscribe(t.topic("a/+"))
	c.publish(pub{topic: t.topic("a/b"), payload: "no more"})
	c.expectNothing()
}

func rowUnsubscribeStops(t *Try) {
	c := t.client()
	c.listen(1, t.topic("a"), t.topic("b"))
	c.unsubscribe(t.topic("a"))
	p := t.client()
	p.publish(pub{topic: t.topic("a"), payload: "x", qos: 1})
	p.publish(pub{topic: t.topic("b"), payload: "y", qos: 1})
	c.take(t.topic("b"), "y", 1)
	c.expectNothing()
}

func rowUnsubscribeCompletes(t *Try) {
	id := t.id()
	c := t.sleeper(id)
	c.listen(2, t.topic("a"))
	p := t.client()
	p.publish(pub{topic: t.topic("a"), payload: "two", qos: 2})
	p.publish(pub{topic: t.topic("a"), payload: "one", qos: 1})
	two := c.await("PUBLISH", isPublish("two"))
	c.await("PUBLISH", isPublish("one"))
	c.unsubscribe(t.topic("a"))
	c.finish(two)
	c.ping()
	c.close() // "one" is not acknowledged
	c = t.sleeper(id)
	c.take(t.topic("a"), "one", 1)
	c.expectNothing()
	c.close()
	t.forget(id)
}

func rowUnsubackID(t *Try) {
	c := t.client()
	c.listen(0, t.topic("a"))
	for _, id := range []uint16{0x100, 0xffff} {
		c.send(unsubscribePacket(c.version, id, nil, t.topic("a")))
		c.expectID(kindUnsuback, id)
	}
}

func rowUnsubackAlways(t *Try) {
	c := t.client()
	c.unsubscribe(t.topic("never"))
	c.unsubscribe(t.topic("never"))
}

func rowUnsubscribeMany(t *Try) {
	c := t.client()
	c.listen(0, t.topic("a"), t.topic("b"), t.topic("c"))
	c.unsubscribe(t.topic("a"), t.topic("never"), t.topic("c"))
	for _, topic := range []string{"a", "c", "b"} {
		c.publish(pub{topic: t.topic(topic), payload: topic})
	}
	c.expectPublish(t.topic("b"), "b", 0)
	c.ping()
	c.expectNothing()
}
