package conform

import "time"

// Sessions and what is sent again: sections 4.1, 4.4 and 4.5.

func sessionRows311() []Row {
	return []Row{
		{"4.1.0-1", "session state is there as long as the session: all parts of it", rowSessionState},
		{"4.1.0-2", "a session lasts at least as long as its connection", rowSessionLasts},
		{"4.4.0-1", "unacknowledged PUBLISH and PUBREL are sent again with their ids", rowSentAgain},
		{"4.5.0-1", "a message goes to all clients with a matching subscription", rowToAll},
	}
}

// rowSessionState has each part of a server's session state that section 4.1 lists.
func rowSessionState(t *Try) {
	id := t.id()
	c := t.sleeper(id)
	c.listen(2, t.topic("a")) // subscriptions
	p := t.client()
	p.publish(pub{topic: t.topic("a"), payload: "unacknowledged", qos: 1})
	c.expectPublish(t.topic("a"), "unacknowledged", 1)
	// A QoS 2 message from the client that is not yet done with.
	c.send(pub{topic: t.topic("b"), payload: "x", qos: 2, id: 77}.bytes(c.version))
	c.awaitID(kindPubrec, 77)
	watch := t.client()
	watch.listen(2, t.topic("b"))
	c.close()
	p.publish(pub{topic: t.topic("a"), payload: "waiting", qos: 1})
	c = t.sleeper(id)
	c.finish(c.await("PUBLISH", isPublish("unacknowledged")))
	c.finish(c.await("PUBLISH", isPublish("waiting")))
	c.send(pub{topic: t.topic("b"), payload: "x", qos: 2, id: 77, dup: true}.bytes(c.version))
	c.awaitID(kindPubrec, 77)
	c.send(ackPacket(kindPubrel, 77))
	c.awaitID(kindPubcomp, 77)
	// Delivered before the watcher came, or at PUBREL: once at most from here on.
	t.client().publish(pub{topic: t.topic("b"), payload: "end", qos: 2})
	count := 0
	for {
		m := watch.await("PUBLISH", func(p packet) bool { return p.kind == kindPublish })
		watch.finish(m)
		if m.payload == "end" {
			break
		}
		count++
	}
	if count > 1 {
		t.failf("a QoS 2 message was delivered %d times", count)
	}
	c.close()
	t.forget(id)
}

func rowSessionLasts(t *Try) {
	c := t.connect(func(h *hello) { h.keep = 0 })
	c.listen(1, t.topic("a"))
	t.client().publish(pub{topic: t.topic("a"), payload: "unacknowledged", qos: 1})
	p := c.expectPublish(t.topic("a"), "unacknowledged", 1)
	for range 2 * time.Second / moment { // janitors come round once a second
		c.expectNothing()
	}
	t.client().publish(pub{topic: t.topic("a"), payload: "x", qos: 1})
	c.take(t.topic("a"), "x", 1)
	c.finish(p)
	c.ping()
}

func rowSentAgain(t *Try) {
	id := t.id()
	c := t.sleeper(id)
	c.listen(2, t.topic("a"))
	p := t.client()
	p.publish(pub{topic: t.topic("a"), payload: "two", qos: 2})
	p.publish(pub{topic: t.topic("a"), payload: "one", qos: 1})
	p.publish(pub{topic: t.topic("a"), payload: "two, received", qos: 2})
	ids := map[string]uint16{}
	for range 3 {
		m := c.expect(kindPublish)
		ids[m.payload] = m.id
	}
	c.send(ackPacket(kindPubrec, ids["two, received"]))
	c.expectID(kindPubrel, ids["two, received"])
	for range 2 { // again and again, until it is acknowledged
		c.close()
		c = t.sleeper(id)
		c.again(kindPublish, ids["two"])
		c.again(kindPublish, ids["one"])
		c.again(kindPubrel, ids["two, received"])
		c.expectNothing() // above all not the PUBLISH whose PUBREL was sent
	}
	c.send(ackPacket(kindPuback, ids["one"]), ackPacket(kindPubcomp, ids["two, received"]), ackPacket(kindPubrec, ids["two"]))
	c.awaitID(kindPubrel, ids["two"])
	c.send(ackPacket(kindPubcomp, ids["two"]))
	c.ping()
	c.close()
	c = t.sleeper(id)
	c.expectNothing()
	c.close()
	t.forget(id)
}

// again awaits what is sent a second time.
func (c *conn) again(kind byte, id uint16) {
	if p := c.awaitID(kind, id); kind == kindPublish && !p.dup {
		c.t.failf("%v, which is sent again", p)
	}
}

func rowToAll(t *Try) {
	id := t.id()
	away := t.sleeper(id)
	away.listen(1, t.topic("a/+"))
	away.leave()
	var here []*conn
	for _, f := range []string{"a/b", "a/#", "+/b"} {
		c := t.client()
		c.listen(1, t.topic(f))
		here = append(here, c)
	}
	other := t.client()
	other.listen(1, t.topic("a/c"))
	p := t.client()
	p.listen(1, t.topic("a/b")) // also to who publishes
	p.publish(pub{topic: t.topic("a/b"), payload: "x", qos: 1})
	for _, c := range append(here, p, t.sleeper(id)) {
		c.finish(c.await("PUBLISH", isPublish("x")))
	}
	other.expectNothing()
	t.forget(id)
}
