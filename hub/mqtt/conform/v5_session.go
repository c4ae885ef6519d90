package conform

import "time"

// rowsSession5 are the statements about sessions: when they begin and end, and
// what is in them.
func rowsSession5() []Row {
	return []Row{
		{"3.1.2-4", "clean start discards the session", fiveCleanStart},
		{"3.1.2-5", "without clean start the session goes on", fiveResume},
		{"3.1.2-6", "without clean start a session begins if there is none", fiveNewSession},
		{"3.1.2-23", "a session outlives its connection while its expiry has not come", fiveStored},
		{"3.1.3-2", "the client id says whose session it is", fiveWhoseSession},
		{"3.1.4-3", "a client that comes again takes over; the old one is told 0x8E", fiveTakeover},
		{"3.1.4-4", "clean start counts at a takeover", fiveTakeoverClean},
		{"4.1.0-1", "a session lasts as long as its connection", fiveSessionOpen},
		{"4.1.0-2", "a session ends when its expiry has come", fiveSessionEnds},
		{"4.5.0-1", "a message is put into the sessions of all that subscribe to it", fiveEverySession},
	}
}

func fiveCleanStart(t *Try) {
	id, from := t.id(), five(t)
	c := begin(t, id)
	c.listen(1, t.topic("old"))
	c.leave()
	from.publish(pub{topic: t.topic("old"), payload: "waits", qos: 1})
	c = five5(t, id)
	if c.connack.present {
		t.failf("session is present after a clean start")
	}
	c.listen(1, t.topic("new"))
	from.publish(pub{topic: t.topic("old"), payload: "late", qos: 1})
	from.publish(pub{topic: t.topic("new"), payload: "new", qos: 1})
	c.take(t.topic("new"), "new", 1)
	c.expectNothing()
}

// five5 is a client with that id and a clean start.
func five5(t *Try, id string) *conn { return t.connect(func(h *hello) { h.id = id }) }

func fiveResume(t *Try) {
	id, from := t.id(), five(t)
	c := begin(t, id)
	c.listen(1, t.topic("a"))
	c.leave()
	from.publish(pub{topic: t.topic("a"), payload: "waited", qos: 1})
	c = back(t, id)
	c.take(t.topic("a"), "waited", 1)
	from.publish(pub{topic: t.topic("a"), payload: "live", qos: 1})
	c.take(t.topic("a"), "live", 1)
	gone(c)
}

func fiveNewSession(t *Try) {
	id := t.id()
	c := t.sleeper(id)
	if c.connack.present {
		t.failf("session is present for a client id that nobody had")
	}
	c.listen(1, t.topic("a"))
	c.leave()
	five(t).publish(pub{topic: t.topic("a"), payload: "waited", qos: 1})
	c = back(t, id)
	c.take(t.topic("a"), "waited", 1)
	gone(c)
}

func fiveStored(t *Try) {
	id, from := t.id(), five(t)
	c := begin(t, id)
	c.listen(1, t.topic("a"))
	c.ping()
	c.close()
	for _, s := range []string{"1", "2", "3"} {
		from.publish(pub{topic: t.topic("a"), payload: s, qos: 1})
	}
	c = back(t, id)
	for _, s := range []string{"1", "2", "3"} {
		c.take(t.topic("a"), s, 1)
	}
	gone(c)
}

func fiveWhoseSession(t *Try) {
	one, two, from := t.id(), t.id(), five(t)
	for _, id := range []string{one, two} {
		c := begin(t, id)
		c.listen(1, t.topic(id))
		c.leave()
	}
	if five5(t, two+"x").connack.present {
		t.failf("session is present for an id that nobody had")
	}
	for _, id := range []string{two, one} {
		from.publish(pub{topic: t.topic(id), payload: id, qos: 1})
	}
	for _, id := range []string{one, two} {
		c := back(t, id)
		c.take(t.topic(id), id, 1)
		c.expectNothing()
		gone(c)
	}
}

func fiveTakeover(t *Try) {
	id := t.id()
	old := five5(t, id)
	five5(t, id).ping()
	if p := old.expectClosed(); p == nil || p.code != 0x8e {
		t.failf("the old client got %v, want DISCONNECT 0x8e", p)
	}
}

func fiveTakeoverClean(t *Try) {
	id, from := t.id(), five(t)
	c := begin(t, id)
	c.listen(1, t.topic("a"))
	c = back(t, id)
	from.publish(pub{topic: t.topic("a"), payload: "1", qos: 1})
	c.take(t.topic("a"), "1", 1)
	c = five5(t, id)
	if c.connack.present {
		t.failf("session is present after a clean start")
	}
	from.publish(pub{topic: t.topic("a"), payload: "2", qos: 1})
	c.expectNothing()
}

func fiveSessionOpen(t *Try) {
	short, none, from := five(t, number(propSessionExpiry, 1)), five(t), five(t)
	short.listen(1, t.topic("a"))
	none.listen(1, t.topic("a"))
	short.silence(2500 * time.Millisecond)
	from.publish(pub{topic: t.topic("a"), payload: "x", qos: 1})
	short.take(t.topic("a"), "x", 1)
	none.take(t.topic("a"), "x", 1)
}

func fiveSessionEnds(t *Try) {
	none, short, later := t.id(), t.id(), t.id()
	t.connect(func(h *hello) { h.id = none }).leave()
	t.connect(func(h *hello) { h.id, h.props = short, number(propSessionExpiry, 1) }).leave()
	// DISCONNECT may say anew when the session ends.
	c := begin(t, later)
	c.bye(0, number(propSessionExpiry, 1))
	pause(3 * time.Second)
	for _, id := range []string{none, short, later} {
		if t.connect(func(h *hello) { h.id, h.clean = id, false }).connack.present {
			t.failf("session is present after it ended")
		}
	}
}

func fiveEverySession(t *Try) {
	from := five(t)
	away := t.id()
	c := begin(t, away)
	c.listen(1, t.topic("+"))
	c.leave()
	live := []*conn{five(t), five(t)}
	for i, c := range live {
		c.listen(byte(i), t.topic("#"))
	}
	from.publish(pub{topic: t.topic("a"), payload: "x", qos: 1})
	for i, c := range live {
		c.take(t.topic("a"), "x", byte(i))
	}
	c = back(t, away)
	c.take(t.topic("a"), "x", 1)
	gone(c)
}
