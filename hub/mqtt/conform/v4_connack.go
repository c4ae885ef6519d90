package conform

// CONNACK: section 3.2.

func connackRows311() []Row {
	return []Row{
		{"3.2.0-1", "CONNACK is the first packet from the server, whatever waits", rowConnackFirst},
		{"3.2.2-1", "clean session 1: session present is 0", rowNotPresentClean},
		{"3.2.2-2", "clean session 0 and a stored session: session present is 1", rowPresent},
		{"3.2.2-3", "clean session 0 and no stored session: session present is 0", rowNotPresent},
		{"3.2.2-4", "a refusal has session present 0, also where there is a session", rowRefusalNotPresent},
		{"3.2.2-5", "after a refusal the connection is closed", rowRefusalCloses},
		{"3.2.2-6", "where no return code fits, there is no CONNACK", rowNoCodeFits},
	}
}

func rowConnackFirst(t *Try) {
	id := t.id()
	c := t.sleeper(id)
	c.listen(1, t.topic("a"))
	c.leave()
	p := t.client()
	for range 20 {
		p.publish(pub{topic: t.topic("a"), payload: "x", qos: 1})
	}
	h := t.hello()
	t.asSleeper(&h, id)
	c = t.dial()
	c.send(h.bytes(), pingreq(), subscribePacket(c.version, 9, nil, filter{t.topic("b"), 0}))
	c.expect(kindConnack)
	c.close()
	t.forget(id)
}

func rowNotPresentClean(t *Try) {
	id := t.id()
	t.sleeper(id).leave()
	for range 2 {
		c := t.connect(func(h *hello) { h.id = id })
		if c.connack.present {
			t.failf("%v with clean session 1", c.connack)
		}
		c.leave()
	}
}

func rowPresent(t *Try) {
	id := t.id()
	t.sleeper(id).leave()
	c := t.sleeper(id)
	if !c.connack.present {
		t.failf("%v, with a session that was stored", c.connack)
	}
	c.close()
	t.forget(id)
}

func rowNotPresent(t *Try) {
	id := t.id()
	c := t.sleeper(id)
	if c.connack.present {
		t.failf("%v, with a new client id", c.connack)
	}
	c.close()
	t.forget(id)
}

// refusals are CONNECT packets that are refused with a code, for a client id that
// has a session.
func (t *Try) refusals(id string) []hello {
	level := t.hello()
	t.asSleeper(&level, id)
	level.level = 2
	empty := t.hello()
	t.asSleeper(&empty, "")
	all := []hello{level, empty}
	if t.Target.User != "" {
		wrong := "wrong"
		password := t.hello()
		t.asSleeper(&password, id)
		password.password = &wrong
		all = append(all, password)
	}
	return all
}

func rowRefusalNotPresent(t *Try) {
	id := t.id()
	t.sleeper(id).leave()
	for _, h := range t.refusals(id) {
		if ack := t.refused(h); ack != nil && ack.present {
			t.failf("%v", ack)
		}
	}
	c := t.sleeper(id)
	if !c.connack.present {
		t.failf("%v: a refused CONNECT cost the session", c.connack)
	}
	c.close()
	t.forget(id)
}

func rowRefusalCloses(t *Try) {
	for _, h := range t.refusals(t.id()) {
		if ack := t.refused(h); ack == nil || ack.code == 0 || ack.code > 5 {
			t.failf("%v, want a return code of 1 to 5", ack)
		}
	}
}

func rowNoCodeFits(t *Try) {
	wildcard, surplus, will := t.hello(), t.hello(), t.hello()
	wildcard.will = &lastWill{topic: t.topic("#"), payload: "x"}
	surplus.extra = []byte{0}
	will.will = &lastWill{topic: t.topic("a"), payload: "x", qos: 3}
	for _, h := range []hello{wildcard, surplus, will} {
		if ack := t.refused(h); ack != nil && ack.code > 5 {
			t.failf("%v: the standard has no such code", ack)
		}
	}
}
