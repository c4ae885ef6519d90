package conform

import "strings"

// The payload of CONNECT, section 3.1.3, and what is done with it, 3.1.4.

func idRows311() []Row {
	return []Row{
		{"3.1.3-1", "client id, will topic, will message, user name, password: in this order", rowFieldOrder},
		{"3.1.3-2", "sessions are told apart by client id", rowIDsApart},
		{"3.1.3-3", "a CONNECT without a client id field is malformed", rowNoClientID},
		{"3.1.3-4", "a client id that is not UTF-8 ends the connection", rowClientIDIllFormed},
		{"3.1.3-5", "client ids of 1 to 23 letters and digits are allowed", rowClientIDsAllowed},
		{"3.1.3-6", "a client id of no bytes gets one of its own, if it is let in", rowNoBytes},
		{"3.1.3-8", "a client id of no bytes with clean session 0: code 2, then closed", rowNoBytesKept},
		{"3.1.3-9", "a client id that is rejected: code 2, then closed", rowClientIDRejected},
		{"3.1.3-10", "a will topic that is not UTF-8 ends the connection", rowWillTopicIllFormed},
		{"3.1.3-11", "a user name that is not UTF-8 ends the connection", rowUserIllFormed},
		{"3.1.4-1", "a CONNECT that does not conform is closed without CONNACK", rowConnectMalformed},
		{"3.1.4-2", "a second client with a client id: the first is disconnected", rowTakeover},
		{"3.1.4-3", "clean session is processed, also at a takeover", rowTakeoverClean},
		{"3.1.4-4", "a valid CONNECT is acknowledged with code 0", rowWelcome},
		{"3.1.4-5", "what follows a rejected CONNECT is not processed", rowAfterRejection},
	}
}

func rowFieldOrder(t *Try) {
	watch := t.client()
	watch.listen(0, t.topic("will"))
	t.mortal(lastWill{topic: t.topic("will"), payload: "message"}).close()
	watch.expectPublish(t.topic("will"), "message", 0)
	if t.Target.User == "" {
		return
	}
	h := t.hello()
	h.user, h.password = h.password, h.user
	t.refused(h)
}

func rowIDsApart(t *Try) {
	one, two := t.id(), t.id()
	a, b := t.sleeper(one), t.sleeper(two)
	a.listen(1, t.topic("a"))
	b.listen(1, t.topic("b"))
	a.leave()
	b.leave()
	p := t.client()
	p.publish(pub{topic: t.topic("a"), payload: "for one", qos: 1})
	p.publish(pub{topic: t.topic("b"), payload: "for two", qos: 1})
	a, b = t.sleeper(one), t.sleeper(two)
	a.take(t.topic("a"), "for one", 1)
	b.take(t.topic("b"), "for two", 1)
	a.expectNothing()
	b.expectNothing()
	a.close()
	b.close()
	t.forget(one)
	t.forget(two)
}

func rowNoClientID(t *Try) {
	h := t.hello()
	h.id, h.user, h.password = "", nil, nil
	h.cut = 2
	t.malformed(h)
}

func rowClientIDIllFormed(t *Try) {
	h := t.hello()
	h.id += "\xc3\x28"
	t.malformed(h)
}

func rowClientIDsAllowed(t *Try) {
	const letters = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	for _, id := range []string{letters[:23], letters[23:46], letters[39:], "a", "Z", "7"} {
		t.connect(func(h *hello) { h.id = id }).leave()
	}
}

func rowNoBytes(t *Try) {
	h := t.hello()
	h.id = ""
	a, ack := t.open(h)
	if ack.code == 2 {
		a.expectClosed() // it may allow such ids, and need not
		return
	}
	b, ack2 := t.open(h)
	if ack.code != 0 || ack2.code != 0 {
		t.failf("%v, then %v", ack, ack2)
	}
	a.ping() // both are there: their ids are different
	b.ping()
}

func rowNoBytesKept(t *Try) {
	h := t.hello()
	h.id, h.clean = "", false
	if ack := t.refused(h); ack == nil || ack.code != 2 {
		t.failf("%v, want code 2", ack)
	}
}

// rowClientIDRejected tries ids that a server may let in or not.
func rowClientIDRejected(t *Try) {
	long := strings.Repeat("x", 2000)
	for _, id := range []string{"", "$" + t.id(), t.id() + "/+#", t.id() + " $ä€😀", t.id() + long, t.id() + strings.Repeat(long, 30)} {
		h := t.hello()
		h.id, h.clean = id, id != ""
		c, ack := t.open(h)
		switch ack.code {
		case 0:
			c.leave()
		case 2:
			c.expectClosed()
		default:
			t.failf("%v to client id %.40q, want code 2", ack, id)
		}
	}
}

func rowWillTopicIllFormed(t *Try) {
	h := t.hello()
	h.will = &lastWill{topic: t.topic("\xff"), payload: "x"}
	t.malformed(h)
}

func rowUserIllFormed(t *Try) {
	user, password := "conform\xc3\x28", "secret"
	h := t.hello()
	h.user, h.password = &user, &password
	t.malformed(h)
}

func rowConnectMalformed(t *Try) {
	good := t.hello()
	whole := good.bytes()
	for cut := 1; cut < len(whole)-3; cut++ { // each field, in the middle and whole
		h := good
		h.cut = cut
		c := t.dial()
		c.send(h.bytes())
		c.expectClosed()
	}
	h := good
	h.extra = []byte("x")
	t.malformed(h)
}

func rowTakeover(t *Try) {
	id := t.id()
	first := t.connect(func(h *hello) { h.id = id })
	second := t.connect(func(h *hello) { h.id = id })
	first.expectClosed()
	second.ping()
}

func rowTakeoverClean(t *Try) {
	id := t.id()
	first := t.sleeper(id)
	first.listen(1, t.topic("a"))
	second := t.sleeper(id)
	first.expectClosed()
	if !second.connack.present {
		t.failf("%v at a takeover with clean session 0", second.connack)
	}
	third := t.connect(func(h *hello) { h.id = id })
	second.expectClosed()
	if third.connack.present {
		t.failf("%v at a takeover with clean session 1", third.connack)
	}
	t.client().publish(pub{topic: t.topic("a"), payload: "x", qos: 1})
	third.expectNothing()
}

func rowWelcome(t *Try) {
	c, ack := t.open(t.hello())
	if ack.code != 0 {
		t.failf("%v", ack)
	}
	c.ping()
}

// rowAfterRejection is rejected by every server: an empty client id cannot have a
// session that is kept.
func rowAfterRejection(t *Try) {
	watch := t.client()
	watch.listen(0, t.topic("#"))
	h := t.hello()
	h.id, h.clean = "", false
	c := t.dial()
	c.send(h.bytes(), pub{topic: t.topic("a"), payload: "x"}.bytes(v311), pub{topic: t.topic("b"), payload: "x", qos: 1, id: 1}.bytes(v311))
	for _, p := range c.untilClosed() {
		if p.kind != kindConnack || p.code == 0 {
			t.failf("%v, want a refusal and nothing else", p)
		}
	}
	watch.expectNothing()
}
