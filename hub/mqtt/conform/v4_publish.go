package conform

// PUBLISH and its acknowledgements: sections 3.3 to 3.6, without RETAIN.

func publishRows311() []Row {
	return []Row{
		{"3.3.1-1", "a message that is sent again has DUP 1", rowDupSet},
		{"3.3.1-2", "DUP is 0 with QoS 0; a client's DUP 1 with QoS 0 is a violation", rowDupQoS0},
		{"3.3.1-3", "a client's DUP is not passed on", rowDupNotPassed},
		{"3.3.1-4", "QoS 3 ends the connection", rowQoS3},
		{"3.3.2-1", "a PUBLISH whose topic is not there whole is malformed", rowTopicMissing},
		{"3.3.2-2", "a topic with a wildcard is not published on", rowTopicWildcard},
		{"3.3.2-3", "topics of what comes match the filter", rowTopicMatches},
		{"3.3.4-1", "QoS 0 gets no answer, QoS 1 PUBACK, QoS 2 PUBREC", rowPublishResponse},
		{"3.3.5-1", "overlapping subscriptions: the greatest QoS of them", rowOverlap},
		{"3.3.5-2", "a PUBLISH that is not allowed: acknowledged or closed, not delivered", rowUnauthorized},
		{"3.6.1-1", "PUBREL with other flags than 2 ends the connection", rowPubrelFlags},
	}
}

func rowDupSet(t *Try) {
	for _, qos := range []byte{1, 2} {
		id := t.id()
		c := t.sleeper(id)
		c.listen(qos, t.topic("a"))
		t.client().publish(pub{topic: t.topic("a"), payload: "x", qos: qos})
		if p := c.expectPublish(t.topic("a"), "x", qos); p.dup {
			t.failf("%v the first time", p)
		}
		c.close()
		c = t.sleeper(id)
		if p := c.take(t.topic("a"), "x", qos); !p.dup {
			t.failf("%v the second time", p)
		}
		c.close()
		t.forget(id)
	}
}

func rowDupQoS0(t *Try) {
	watch := t.client()
	watch.listen(2, t.topic("a"))
	p := t.client()
	p.publish(pub{topic: t.topic("a"), payload: "x"})
	if got := watch.expectPublish(t.topic("a"), "x", 0); got.dup {
		t.failf("%v", got)
	}
	p.send(pub{topic: t.topic("a"), payload: "y", dup: true}.bytes(p.version))
	p.expectClosed()
	watch.expectNothing()
}

func rowDupNotPassed(t *Try) {
	c := t.client()
	c.listen(2, t.topic("a"))
	p := t.client()
	for _, qos := range []byte{1, 2} {
		p.publish(pub{topic: t.topic("a"), payload: "x", qos: qos, dup: true})
		if got := c.take(t.topic("a"), "x", qos); got.dup {
			t.failf("%v, which is no repetition", got)
		}
	}
}

func rowQoS3(t *Try) {
	watch := t.client()
	watch.listen(0, t.topic("a"))
	c := t.client()
	c.send(pub{topic: t.topic("a"), payload: "x", qos: 3, id: 1}.bytes(c.version))
	c.expectClosed()
	watch.expectNothing()
}

func rowTopicMissing(t *Try) {
	for _, body := range [][]byte{nil, {0}, {0, 9, 'a'}, {0xff, 0xff}} {
		c := t.client()
		c.send(frame(kindPublish<<4, body))
		c.expectClosed()
	}
}

func rowTopicWildcard(t *Try) {
	watch := t.client()
	watch.listen(0, t.topic("#"))
	for _, topic := range []string{"#", "+", "a/+", "a/#", "a+", "a#b"} {
		c := t.client()
		c.send(pub{topic: t.topic(topic), payload: "x"}.bytes(c.version))
		c.expectClosed()
	}
	watch.expectNothing()
}

func rowTopicMatches(t *Try) {
	topics := []string{"a", "a/b", "a/b/c", "b", "b/a"}
	for filter, want := range map[string][]string{
		"a": {"a"}, "a/+": {"a/b"}, "a/#": {"a", "a/b", "a/b/c"}, "+/b": {"a/b"}, "b/#": {"b", "b/a"},
	} {
		c := t.client()
		c.listen(0, t.topic(filter))
		for _, topic := range topics {
			c.publish(pub{topic: t.topic(topic), payload: topic})
		}
		for _, topic := range want {
			c.expectPublish(t.topic(topic), topic, 0)
		}
		c.ping()
		c.expectNothing()
	}
}

func rowPublishResponse(t *Try) {
	c := t.client()
	c.send(pub{topic: t.topic("a"), payload: "x"}.bytes(c.version))
	c.expectNothing()
	c.send(pub{topic: t.topic("a"), payload: "x", qos: 1, id: 5}.bytes(c.version))
	c.expectID(kindPuback, 5)
	c.send(pub{topic: t.topic("a"), payload: "x", qos: 2, id: 6}.bytes(c.version))
	c.expectID(kindPubrec, 6)
}

// rowOverlap lets a server send one copy, or one for each subscription.
func rowOverlap(t *Try) {
	c := t.client()
	c.listen(0, t.topic("a/+"))
	c.listen(2, t.topic("a/#"))
	c.listen(1, t.topic("a/b"))
	p := t.client()
	for qos := range byte(3) {
		p.publish(pub{topic: t.topic("a/b"), payload: "x", qos: qos})
		p.publish(pub{topic: t.topic("a"), payload: "next", qos: qos}) // comes once
		var most byte
		for {
			got := c.await("PUBLISH", func(p packet) bool { return p.kind == kindPublish })
			c.finish(got)
			if got.payload == "next" {
				break
			}
			most = max(most, got.qos)
		}
		if most != qos {
			t.failf("QoS %d at most, of a message of QoS %d and subscriptions of 0, 1 and 2", most, qos)
		}
	}
}

func rowUnauthorized(t *Try) {
	if t.Target.Narrow == "" {
		t.notApplicable("the server was set up without access control")
	}
	watch := t.client()
	watch.listen(0, t.topic("a"))
	for _, qos := range []byte{0, 1, 2} {
		c := t.connect(func(h *hello) { h.user = &t.Target.Narrow })
		c.send(pub{topic: t.topic("a"), payload: "x", qos: qos, id: 7}.bytes(c.version))
		c.send(pingreq())
		p, err := c.read("an acknowledgement or the end")
		switch {
		case err != nil: // closed
		case qos == 0 && p.kind == kindPingresp, qos == 1 && p.kind == kindPuback, qos == 2 && p.kind == kindPubrec:
		default:
			t.failf("%v to a QoS %d message that is not allowed", p, qos)
		}
	}
	watch.expectNothing()
}

func rowPubrelFlags(t *Try) {
	for _, flags := range []byte{0, 1, 3, 10} {
		c := t.client()
		c.send(pub{topic: t.topic("a"), payload: "x", qos: 2, id: 1}.bytes(c.version))
		c.expectID(kindPubrec, 1)
		c.send(frame(kindPubrel<<4|flags, u16(1)))
		c.expectClosed()
	}
}
