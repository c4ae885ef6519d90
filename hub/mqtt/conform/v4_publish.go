package conform

// PUBLISH and its acknowledgements: sections 3.3 to 3.6, without RETAIN.

func publishRows311() []Row {
	return []Row{
		{"3.3.1-4", "QoS 3 ends the connection", rowQoS3},
		{"3.3.2-1", "a PUBLISH whose topic is not there whole is malformed", rowTopicMissing},
		{"3.3.2-2", "a topic with a wildcard is not published on", rowTopicWildcard},
		{"3.3.2-3", "topics of what comes match the filter", rowTopicMatches},
		{"3.3.5-2", "a PUBLISH that is not allowed: acknowledged or closed, not delivered", rowUnauthorized},
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
