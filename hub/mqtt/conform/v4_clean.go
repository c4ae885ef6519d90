package conform

// Clean session: section 3.1.2.4, and what CONNACK says about it.

func cleanRows311() []Row {
	return []Row{
		{"3.1.2-4", "clean session 0 goes on with the stored session, or makes one", rowResume},
		{"3.1.2-5", "QoS 1 and 2 messages are stored for a client that is away", rowStoreWhileAway},
		{"3.1.2-6", "clean session 1 discards the old session, and keeps none", rowDiscard},
		{"3.1.2-7", "retained messages outlive the session of who published them", rowRetainedOutlives},
	}
}

func rowResume(t *Try) {
	id := t.id()
	c := t.sleeper(id)
	if c.connack.present {
		t.failf("%v to a client id that is new", c.connack)
	}
	c.listen(1, t.topic("a"))
	for _, end := range []func(*conn){(*conn).leave, (*conn).close, (*conn).leave} {
		end(c)
		c = t.sleeper(id)
		if !c.connack.present {
			t.failf("%v to a client whose session was to be stored", c.connack)
		}
		t.client().publish(pub{topic: t.topic("a"), payload: "x", qos: 1})
		c.take(t.topic("a"), "x", 1) // by the subscription of the first connection
	}
	c.close()
	t.forget(id)
}

func rowStoreWhileAway(t *Try) {
	id := t.id()
	c := t.sleeper(id)
	c.listen(2, t.topic("a"))
	c.leave()
	p := t.client()
	p.publish(pub{topic: t.topic("a"), payload: "1", qos: 1})
	p.publish(pub{topic: t.topic("a"), payload: "2", qos: 2})
	p.publish(pub{topic: t.topic("a"), payload: "3", qos: 1})
	c = t.sleeper(id)
	// Order is promised among messages of one quality of service only.
	got := map[string]byte{}
	for range 3 {
		m := c.await("PUBLISH", func(p packet) bool { return p.kind == kindPublish })
		c.finish(m)
		got[m.payload] = m.qos
	}
	for body, qos := range map[string]byte{"1": 1, "2": 2, "3": 1} {
		if q, ok := got[body]; !ok || q != qos {
			t.failf("got payloads and QoS %v, want 1 and 3 with QoS 1, 2 with QoS 2", got)
		}
	}
	c.expectNothing()
	c.close()
	t.forget(id)
}

func rowDiscard(t *Try) {
	id := t.id()
	c := t.sleeper(id)
	c.listen(1, t.topic("a"))
	c.leave()
	p := t.client()
	p.publish(pub{topic: t.topic("a"), payload: "old", qos: 1})
	c = t.connect(func(h *hello) { h.id = id })
	if c.connack.present {
		t.failf("%v with clean session 1", c.connack)
	}
	p.publish(pub{topic: t.topic("a"), payload: "new", qos: 1})
	c.expectNothing() // neither what waited nor by the old subscription
	c.listen(1, t.topic("b"))
	c.leave()
	p.publish(pub{topic: t.topic("b"), payload: "later", qos: 1})
	c = t.sleeper(id)
	if c.connack.present {
		t.failf("%v after a clean session", c.connack)
	}
	p.publish(pub{topic: t.topic("b"), payload: "later still", qos: 1})
	c.expectNothing()
	c.close()
	t.forget(id)
}

func rowRetainedOutlives(t *Try) {
	p := t.client()
	p.publish(pub{topic: t.topic("a"), payload: "kept", qos: 1, retain: true})
	p.leave()
	t.settle()
	c := t.client()
	c.listen(1, t.topic("a"))
	c.take(t.topic("a"), "kept", 1)
	t.clear("a")
}

// clear takes retained messages away again.
func (t *Try) clear(topics ...string) {
	p := t.client()
	for _, topic := range topics {
		p.publish(pub{topic: t.topic(topic), qos: 1, retain: true})
	}
	p.leave()
}
