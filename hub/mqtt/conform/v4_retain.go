package conform

// RETAIN: section 3.3.1.3.

func retainRows311() []Row {
	return []Row{
		{"3.3.1-5", "a retained message is stored with its QoS, for later subscribers", rowRetainStored},
		{"3.3.1-6", "a new subscription gets the last retained message of each topic", rowRetainLast},
		{"3.3.1-7", "a retained QoS 0 message takes the place of what was retained", rowRetainQoS0},
		{"3.3.1-8", "RETAIN is 1 on what comes because of a new subscription", rowRetainFlagNew},
		{"3.3.1-9", "RETAIN is 0 on what comes because of one that was there", rowRetainFlagOld},
		{"3.3.1-10", "a retained message of no bytes is passed on, and removes", rowRetainRemove},
		{"3.3.1-11", "a retained message of no bytes is not retained", rowRetainNothing},
		{"3.3.1-12", "a message with RETAIN 0 neither is retained nor removes", rowNotRetain},
	}
}

func rowRetainStored(t *Try) {
	p := t.client()
	for topic, qos := range map[string]byte{"zero": 0, "one": 1, "two": 2} {
		p.publish(pub{topic: t.topic(topic), payload: topic, qos: qos, retain: true})
	}
	t.settle()
	for topic, qos := range map[string]byte{"one": 1, "two": 2} {
		c := t.client()
		c.listen(2, t.topic(topic))
		c.take(t.topic(topic), topic, qos)
	}
	t.clear("zero", "one", "two")
}

func rowRetainLast(t *Try) {
	p := t.client()
	for _, topic := range []string{"a", "b/c", "b/d"} {
		for _, body := range []string{"first", "last of " + topic} {
			p.publish(pub{topic: t.topic(topic), payload: body, qos: 1, retain: true})
		}
	}
	t.settle()
	for filter, want := range map[string][]string{
		"a": {"a"}, "b/+": {"b/c", "b/d"}, "#": {"a", "b/c", "b/d"}, "+/c": {"b/c"}, "b": {}, "b/c/#": {"b/c"}, "+/+/#": {"b/c", "b/d"},
	} {
		c := t.client()
		c.listen(1, t.topic(filter))
		got := map[string]bool{}
		for range want {
			m := c.expect(kindPublish)
			c.finish(m)
			got[m.topic+"="+m.payload] = true
		}
		for _, topic := range want {
			if !got[t.topic(topic)+"=last of "+topic] {
				t.failf("filter %s got %v", filter, got)
			}
		}
		c.expectNothing()
	}
	t.clear("a", "b/c", "b/d")
}

// rowRetainQoS0 lets a server keep the new message or none, but not the old one.
func rowRetainQoS0(t *Try) {
	p := t.client()
	p.publish(pub{topic: t.topic("a"), payload: "old", qos: 1, retain: true})
	p.publish(pub{topic: t.topic("a"), payload: "new", retain: true})
	p.ping()
	t.settle()
	c := t.client()
	c.listen(1, t.topic("a"))
	c.publish(pub{topic: t.topic("a"), payload: "live"})
	m := c.expect(kindPublish)
	if m.payload == "new" {
		m = c.expect(kindPublish)
	}
	if m.payload != "live" {
		t.failf("%v, want what was retained last, or nothing", m)
	}
	t.clear("a")
}

func rowRetainFlagNew(t *Try) {
	t.client().publish(pub{topic: t.topic("a"), payload: "x", qos: 1, retain: true})
	t.settle()
	c := t.client()
	for range 2 { // the second time it is the same subscription, made anew
		c.listen(1, t.topic("a"))
		if m := c.take(t.topic("a"), "x", 1); !m.retain {
			t.failf("%v, want RETAIN", m)
		}
	}
	t.clear("a")
}

func rowRetainFlagOld(t *Try) {
	id := t.id()
	c, away := t.client(), t.sleeper(id)
	c.listen(1, t.topic("a"))
	away.listen(1, t.topic("a"))
	away.leave()
	t.client().publish(pub{topic: t.topic("a"), payload: "x", qos: 1, retain: true})
	if m := c.take(t.topic("a"), "x", 1); m.retain {
		t.failf("%v, want RETAIN 0", m)
	}
	away = t.sleeper(id)
	if m := away.take(t.topic("a"), "x", 1); m.retain {
		t.failf("%v to a client that was away, want RETAIN 0", m)
	}
	away.close()
	t.forget(id)
	t.clear("a")
}

func rowRetainRemove(t *Try) {
	p := t.client()
	p.publish(pub{topic: t.topic("a"), payload: "x", qos: 1, retain: true})
	t.settle()
	c := t.client()
	c.listen(1, t.topic("a"))
	c.take(t.topic("a"), "x", 1)
	p.publish(pub{topic: t.topic("a"), qos: 1, retain: true})
	if m := c.take(t.topic("a"), "", 1); m.retain {
		t.failf("%v to a subscription that was there, want RETAIN 0", m)
	}
	late := t.client()
	late.listen(1, t.topic("a"))
	late.expectNothing()
}

func rowRetainNothing(t *Try) {
	p := t.client()
	for qos := range byte(3) {
		p.publish(pub{topic: t.topic("a"), qos: qos, retain: true})
	}
	t.settle()
	c := t.client()
	c.listen(1, t.topic("a"))
	c.expectNothing()
}

func rowNotRetain(t *Try) {
	p := t.client()
	p.publish(pub{topic: t.topic("a"), payload: "kept", qos: 1, retain: true})
	p.publish(pub{topic: t.topic("a"), payload: "live", qos: 1})
	p.publish(pub{topic: t.topic("a"), qos: 1})
	p.publish(pub{topic: t.topic("b"), payload: "live", qos: 1})
	t.settle()
	c := t.client()
	c.listen(1, t.topic("+"))
	c.take(t.topic("a"), "kept", 1)
	c.expectNothing()
	t.clear("a")
}
