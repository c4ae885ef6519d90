package conform

// Quality of service: section 4.3.

func deliveryRows311() []Row {
	return []Row{
		{"4.3.1-1", "QoS 0, sender: QoS 0 and DUP 0", rowQoS0Sender},
		{"4.3.2-1", "QoS 1, sender: an unused id, DUP 0, unacknowledged until PUBACK", rowQoS1Sender},
		{"4.3.2-2", "QoS 1, receiver: PUBACK; then the id is a new message, DUP or not", rowQoS1Receiver},
		{"4.3.3-1", "QoS 2, sender: unused id, PUBREL after PUBREC, no PUBLISH after it", rowQoS2Sender},
		{"4.3.3-2", "QoS 2, receiver: PUBREC, no duplicate until PUBREL, PUBCOMP, then new", rowQoS2Receiver},
	}
}

func rowQoS0Sender(t *Try) {
	c := t.client()
	c.listen(0, t.topic("a"))
	for qos := range byte(3) {
		t.client().publish(pub{topic: t.topic("a"), payload: "x", qos: qos})
		if m := c.expectPublish(t.topic("a"), "x", 0); m.dup {
			t.failf("%v", m)
		}
	}
}

func rowQoS1Sender(t *Try) {
	id := t.id()
	c := t.sleeper(id)
	c.listen(1, t.topic("a"))
	p := t.client()
	used := map[uint16]string{}
	for _, body := range []string{"1", "2", "3", "4"} {
		p.publish(pub{topic: t.topic("a"), payload: body, qos: 1})
		m := c.expectPublish(t.topic("a"), body, 1)
		if _, taken := used[m.id]; taken || m.dup {
			t.failf("%v, with these ids in use: %v", m, used)
		}
		used[m.id] = body
		if body == "2" {
			c.finish(m) // its id may be used again
			delete(used, m.id)
		}
	}
	c.send(ackPacket(kindPuback, 60000)) // of nothing: acknowledges nothing
	c.ping()
	c.close()
	c = t.sleeper(id)
	got := map[uint16]string{}
	for range used {
		m := c.expect(kindPublish)
		got[m.id] = m.payload
		c.finish(m)
	}
	for id, body := range used {
		if got[id] != body {
			t.failf("sent again: %v, want %v", got, used)
		}
	}
	c.expectNothing()
	c.close()
	t.firstTime(p, id)
	t.forget(id)
}

// firstTime says that what waited for a client comes with DUP 0, at least in one of
// three tries: a server that has not noticed yet that the client is gone may have
// sent it before.
func (t *Try) firstTime(p *conn, id string) {
	t.sleeper(id).leave()
	var m packet
	for range 3 {
		p.publish(pub{topic: t.topic("a"), payload: "while away", qos: 1})
		c := t.sleeper(id)
		m = c.take(t.topic("a"), "while away", 1)
		c.ping()
		c.leave()
		if !m.dup {
			return
		}
	}
	t.failf("%v, which is sent for the first time", m)
}

func rowQoS1Receiver(t *Try) {
	watch := t.client()
	watch.listen(1, t.topic("a"))
	p := t.client()
	for i, body := range []string{"first", "second", "third"} {
		p.publish(pub{topic: t.topic("a"), payload: body, qos: 1, id: 9, dup: i == 1})
		watch.take(t.topic("a"), body, 1)
	}
	p.publish(pub{topic: t.topic("a"), payload: "third", qos: 1, id: 9, dup: true})
	watch.take(t.topic("a"), "third", 1)
}

func rowQoS2Sender(t *Try) {
	id := t.id()
	c := t.sleeper(id)
	c.listen(2, t.topic("a"))
	p := t.client()
	p.publish(pub{topic: t.topic("a"), payload: "1", qos: 2})
	one := c.expectPublish(t.topic("a"), "1", 2)
	p.publish(pub{topic: t.topic("a"), payload: "2", qos: 2})
	two := c.expectPublish(t.topic("a"), "2", 2)
	if one.dup || two.dup || one.id == two.id {
		t.failf("%v, then %v", one, two)
	}
	c.send(ackPacket(kindPubrec, one.id))
	c.expectID(kindPubrel, one.id)
	c.close()
	c = t.sleeper(id) // 2 is unacknowledged, and so is the PUBREL of 1
	c.again(kindPublish, two.id)
	c.again(kindPubrel, one.id)
	c.expectNothing()
	c.send(ackPacket(kindPubcomp, one.id), ackPacket(kindPubrec, two.id))
	c.expectID(kindPubrel, two.id)
	c.send(ackPacket(kindPubcomp, two.id))
	c.ping()
	c.close()
	c = t.sleeper(id)
	c.expectNothing()
	c.close()
	t.forget(id)
}

func rowQoS2Receiver(t *Try) {
	watch := t.client()
	watch.listen(2, t.topic("a"))
	id := t.id()
	p := t.sleeper(id)
	m := pub{topic: t.topic("a"), payload: "once", qos: 2, id: 0x0203}
	p.send(m.bytes(p.version))
	p.expectID(kindPubrec, m.id)
	m.dup = true
	p.send(m.bytes(p.version))
	p.expectID(kindPubrec, m.id)
	p.close()
	p = t.sleeper(id)
	p.send(m.bytes(p.version))
	p.awaitID(kindPubrec, m.id)
	for range 2 { // the second as when PUBCOMP was lost
		p.send(ackPacket(kindPubrel, m.id))
		p.awaitID(kindPubcomp, m.id)
	}
	watch.take(t.topic("a"), "once", 2)
	watch.expectNothing()
	p.publish(pub{topic: t.topic("a"), payload: "new", qos: 2, id: m.id, dup: true})
	watch.take(t.topic("a"), "new", 2)
	p.close()
	t.forget(id)
}
