package conform

import "fmt"

// Order: section 4.6.

func orderRows311() []Row {
	return []Row{
		{"4.6.0-1", "what is sent again is sent in the order of the first time", rowOrderAgain},
		{"4.6.0-4", "PUBRELs come in the order of the PUBRECs", rowOrderPubrel},
		{"4.6.0-5", "topics are ordered topics unless somebody said otherwise", rowOrderDefault},
		{"4.6.0-6", "messages of a client come in the order it sent them, for each QoS", rowOrder},
	}
}

// some is how many messages show an order.
const some = 20

func rowOrderAgain(t *Try) {
	for _, qos := range []byte{1, 2} {
		id := t.id()
		c := t.sleeper(id)
		c.listen(qos, t.topic("a"))
		p := t.client()
		for i := range some {
			p.publish(pub{topic: t.topic("a"), payload: fmt.Sprint(i), qos: qos})
		}
		first := c.several(some)
		for range 2 {
			c.close()
			c = t.sleeper(id)
			again := c.several(some)
			if fmt.Sprint(again) != fmt.Sprint(first) {
				t.failf("QoS %d, ids first %v, then %v", qos, first, again)
			}
		}
		c.close()
		t.forget(id)
	}
}

// several gives the ids of the next n packets, all of them PUBLISH. They are not
// acknowledged.
func (c *conn) several(n int) []uint16 {
	var ids []uint16
	for range n {
		ids = append(ids, c.expect(kindPublish).id)
	}
	return ids
}

func rowOrderPubrel(t *Try) {
	c := t.client()
	c.listen(2, t.topic("a"))
	p := t.client()
	for i := range some {
		p.publish(pub{topic: t.topic("a"), payload: fmt.Sprint(i), qos: 2})
	}
	ids := c.several(some)
	for _, id := range ids {
		c.send(ackPacket(kindPubrec, id))
	}
	for _, id := range ids {
		c.expectID(kindPubrel, id)
	}
}

func rowOrderDefault(t *Try) {
	c := t.client()
	c.listen(1, t.topic("#"))
	p := t.client()
	for i := range 3 * some {
		topic := t.topic(fmt.Sprintf("a/%d", i%3))
		p.send(pub{topic: topic, payload: fmt.Sprint(i), qos: 1, id: uint16(i + 1)}.bytes(p.version))
	}
	next := map[string]int{t.topic("a/0"): 0, t.topic("a/1"): 1, t.topic("a/2"): 2}
	for range 3 * some {
		m := c.expect(kindPublish)
		if m.payload != fmt.Sprint(next[m.topic]) {
			t.failf("%v, want %d", m, next[m.topic])
		}
		next[m.topic] += 3
		c.finish(m)
	}
}

func rowOrder(t *Try) {
	for qos := range byte(3) {
		id := t.id()
		here, away := t.client(), t.sleeper(id)
		here.listen(qos, t.topic("a"))
		away.listen(qos, t.topic("a"))
		away.leave()
		p := t.client()
		for i := range some {
			p.publish(pub{topic: t.topic("a"), payload: fmt.Sprint(i), qos: qos})
		}
		readers := []*conn{here}
		if qos > 0 {
			readers = append(readers, t.sleeper(id))
		}
		for _, c := range readers {
			for i := range some {
				m := c.await("PUBLISH", func(p packet) bool { return p.kind == kindPublish })
				if m.payload != fmt.Sprint(i) || m.qos != qos {
					t.failf("%v, want %d with QoS %d", m, i, qos)
				}
				c.finish(m)
			}
			c.close()
		}
		t.forget(id)
	}
}
