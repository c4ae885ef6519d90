package conform

import (
	"fmt"
	"slices"
)

// rowsConnect5 are the statements of section 3.1 about what a CONNECT looks like
// and who is let in; what it asks for is in files of its own.
func rowsConnect5() []Row {
	return []Row{
		{"3.1.0-1", "a first packet that is not CONNECT costs the connection", fiveFirstPacket},
		{"3.1.0-2", "a second CONNECT costs the connection", fiveSecondConnect},
		{"3.1.2-1", "protocol names that are not MQTT are turned away", turnsAwayVersion("MQTT?", 5, "mqtt", 5, "MQIsdp", 5, "", 5)},
		{"3.1.2-2", "protocol versions that nobody knows are turned away", turnsAwayVersion("MQTT", 6, "MQTT", 255, "MQTT", 0)},
		{"3.1.2-3", "the reserved flag is set", turnsAway(wrongHello{"reserved flag", flip(flagReserved)})},
		{"3.1.2-9", "will flag without the fields of a will", turnsAway(
			wrongHello{"no will at all", func(h *hello) { h.user, h.password, h.flip = nil, nil, flagWill }},
			wrongHello{"no will payload", func(h *hello) { willAnon(h); h.cut = 3 }},
			wrongHello{"no will topic", func(h *hello) { willAnon(h); h.cut = 3 + 3 }},
			wrongHello{"no will properties", func(h *hello) { willAnon(h); h.cut = 3 + 3 + 1 }})},
		{"3.1.2-11", "will QoS without a will", turnsAway(
			wrongHello{"QoS 1", flip(flagWillQoS1)}, wrongHello{"QoS 2", flip(flagWillQoS2)})},
		{"3.1.2-12", "will QoS 3", turnsAway(wrongHello{"QoS 3", func(h *hello) {
			h.will, h.flip = &lastWill{topic: "t", payload: "x"}, flagWillQoS1|flagWillQoS2
		}})},
		{"3.1.2-13", "will retain without a will", turnsAway(wrongHello{"retain", flip(flagWillRetain)})},
		{"3.1.2-16", "a user name without its flag", turnsAway(wrongHello{"user name", func(h *hello) {
			h.user, h.password, h.flip = new("u"), nil, flagUser
		}})},
		{"3.1.2-17", "a user name's flag without the user name", turnsAway(wrongHello{"no user name", func(h *hello) {
			h.user, h.password, h.flip = nil, nil, flagUser
		}})},
		{"3.1.2-18", "a password without its flag", turnsAway(wrongHello{"password", func(h *hello) {
			h.user, h.password, h.flip = new("u"), new("p"), flagPassword
		}})},
		{"3.1.2-19", "a password's flag without the password", turnsAway(wrongHello{"no password", func(h *hello) {
			h.user, h.password, h.flip = new("u"), nil, flagPassword
		}})},
		{"3.1.3-1", "all fields of CONNECT are there, and taken in their order", fiveOrderOfFields},
		{"3.1.3-3", "CONNECT without a client id", turnsAway(wrongHello{"no client id", func(h *hello) {
			h.user, h.password, h.cut = nil, nil, 2+len(h.id)
		}})},
		{"3.1.3-4", "client ids that are not UTF-8", turnsAway(illFormed(func(h *hello, s string) { h.id += s })...)},
		{"3.1.3-5", "client ids of 1 to 23 digits and letters are let in", fiveClientIDs},
		{"3.1.3-6", "each empty client id gets another one assigned", fiveAssigned},
		{"3.1.3-7", "an assigned client id is told, and has its session", fiveAssignedSession},
		{"3.1.3-8", "a client id that is rejected costs the connection", fiveRejectedID},
		{"3.1.3-11", "will topics that are not UTF-8", turnsAway(illFormed(func(h *hello, s string) {
			h.will = &lastWill{topic: "t" + s, payload: "x"}
		})...)},
		{"3.1.3-12", "user names that are not UTF-8", turnsAway(illFormed(func(h *hello, s string) {
			h.user, h.password = new("u"+s), new("p")
		})...)},
		{"3.1.4-1", "CONNECT packets of a wrong format are turned away", turnsAway(malformedHellos()...)},
		{"3.1.4-2", "a wrong password, and no password, are turned away", fiveWrongPassword},
		{"3.1.4-5", "CONNECT is answered with CONNACK 0x00", func(t *Try) { five(t).ping() }},
		{"3.1.4-6", "nothing that follows a refused CONNECT is done", fiveAfterRefusal},
	}
}

// illFormed are strings that are no UTF-8 Encoded Strings.
func illFormed(put func(*hello, string)) []wrongHello {
	var all []wrongHello
	for _, s := range badText() {
		all = append(all, wrongHello{s.what, func(h *hello) { put(h, s.text) }})
	}
	return all
}

type badString struct{ what, text string }

func badText() []badString {
	return []badString{
		{"a lone continuation byte", "\x80"}, {"an unfinished sequence", "\xc3\x28"}, {"an overlong slash", "\xc0\xaf"},
		{"a surrogate", "\xed\xa0\x80"}, {"beyond U+10FFFF", "\xf4\x90\x80\x80"},
	}
}

func flip(flags byte) func(*hello) { return func(h *hello) { h.flip = flags } }

// willAnon has a will at the end of the packet: topic "t" and payload "x".
func willAnon(h *hello) {
	h.user, h.password = nil, nil
	h.will = &lastWill{topic: "t", payload: "x"}
}

// turnsAwayVersion is a row: pairs of name and level are turned away. The reason
// may be 0x84, or 1 in the form of 3.1.1, for whose version is it.
func turnsAwayVersion(pairs ...any) func(*Try) {
	return func(t *Try) {
		for pair := range slices.Chunk(pairs, 2) {
			h := t.hello()
			h.name, h.level = pair[0].(string), byte(pair[1].(int))
			within(fmt.Sprintf("%q version %d", h.name, h.level), func() { turnedAway(t, h) })
		}
	}
}

func fiveFirstPacket(t *Try) {
	for _, p := range [][]byte{
		pingreq(), goodbye(), publishPacket(t.topic("a")), subscribePacket(v5, 1, nil, filter{"a", 0}),
		ackPacket(kindPuback, 1), frame(kindAuth << 4), frame(0, []byte{0, 0}),
	} {
		within(name(p[0]>>4), func() {
			c := t.dial()
			c.send(p)
			if said := c.untilClosed(); len(said) > 1 || len(said) == 1 && (said[0].kind != kindConnack || said[0].code < 0x80) {
				t.failf("%v, want the connection closed", said)
			}
		})
	}
}

func fiveSecondConnect(t *Try) {
	c := five(t)
	c.send(t.hello().bytes())
	c.turnedOut()
}

func fiveOrderOfFields(t *Try) {
	w := five(t)
	w.listen(1, t.topic("will"))
	h := t.hello()
	if h.user == nil {
		h.user, h.password = new("user"), new("password")
	}
	h.props = number(propSessionExpiry, 0)
	h.will = &lastWill{topic: t.topic("will"), payload: "the will", qos: 1, props: words(propContentType, "type")}
	c, ack := t.open(h)
	if ack.code != 0 {
		t.failf("%v to a CONNECT with all fields", ack)
	}
	c.close()
	p := w.take(h.will.topic, h.will.payload, 1)
	if s, _ := p.props.text(propContentType); s != "type" {
		t.failf("content type of the will is %q, want %q", s, "type")
	}
}

func fiveClientIDs(t *Try) {
	for _, id := range []string{"5", "50123456789abcdefghijkl", "mnopqrstuvwxyzABCDEFGHI", "JKLMNOPQRSTUVWXYZ5", t.name} {
		within("client id "+id, func() {
			t.connect(func(h *hello) { h.id = id }).leave()
		})
	}
}

// assigned is a client that came with an empty id, and the id that it got.
func assigned(t *Try, props ...[]byte) (*conn, string) {
	h := t.hello()
	h.id, h.props = "", slices.Concat(props...)
	c, ack := t.open(h)
	if ack.code != 0 {
		c.untilClosed()
		return nil, ""
	}
	id, _ := ack.props.text(propAssignedID)
	if id == "" {
		t.failf("no Assigned Client Identifier in CONNACK")
	}
	return c, id
}

func fiveAssigned(t *Try) {
	_, a := assigned(t)
	_, b := assigned(t)
	if a != "" && a == b {
		t.failf("two clients got the id %q", a)
	}
}

func fiveAssignedSession(t *Try) {
	c, id := assigned(t, number(propSessionExpiry, 3600))
	if c == nil {
		t.notApplicable("turns empty client ids away")
	}
	c.leave()
	gone(back(t, id))
}

func fiveRejectedID(t *Try) {
	long := make([]byte, 65535)
	for i := range long {
		long[i] = 'x'
	}
	rejected := false
	for _, id := range []string{"", string(long), t.id() + "\x01", "$" + t.id()} {
		h := t.hello()
		h.id = id
		c := t.dial()
		c.send(h.bytes())
		p, err := c.read("CONNACK or the end")
		switch {
		case err != nil:
			rejected = true
		case p.kind == kindConnack && p.code >= 0x80:
			rejected = true
			c.expectClosed()
		case p.kind == kindConnack && p.code == 0:
			c.leave()
		default:
			t.failf("%v, want CONNACK", p)
		}
	}
	if !rejected {
		t.notApplicable("rejects none of the client ids that were tried")
	}
}

func malformedHellos() []wrongHello {
	props := func(p ...[]byte) func(*hello) { return func(h *hello) { h.props = slices.Concat(p...) } }
	return []wrongHello{
		{"a surplus byte", func(h *hello) { h.extra = []byte{0} }},
		{"ends too early", func(h *hello) { h.cut = 1 }},
		{"session expiry twice", props(number(propSessionExpiry, 1), number(propSessionExpiry, 1))},
		{"receive maximum 0", props(number(propReceiveMaximum, 0))},
		{"receive maximum twice", props(number(propReceiveMaximum, 1), number(propReceiveMaximum, 1))},
		{"maximum packet size 0", props(number(propMaximumPacket, 0))},
		{"request problem information 2", props(number(propRequestProblem, 2))},
		{"request response information 2", props(number(propRequestResponse, 2))},
		{"authentication data without method", props(words(propAuthData, "x"))},
		{"a property of PUBLISH", props(number(propAlias, 1))},
		{"a property of wills alone", props(number(propWillDelay, 1))},
		{"a property that does not exist", props([]byte{99, 0})},
		{"a property that ends too early", props([]byte{propSessionExpiry, 0, 0})},
		{"a property of the will that is CONNECT's", func(h *hello) {
			h.will = &lastWill{topic: "t", props: number(propReceiveMaximum, 1)}
		}},
	}
}

func fiveWrongPassword(t *Try) {
	if t.Target.User == "" {
		t.notApplicable("lets everybody in as it is set up here")
	}
	for _, change := range []func(*hello){
		func(h *hello) { h.password = new("wrong") },
		func(h *hello) { h.user, h.password = nil, nil },
		func(h *hello) { h.user = new("nobody") },
	} {
		h := t.hello()
		change(&h)
		turnedAway(t, h)
	}
}

func fiveAfterRefusal(t *Try) {
	topic := t.topic("a")
	w, from := five(t), five(t)
	w.listen(1, topic)
	h := t.hello()
	h.flip = flagReserved
	c := t.dial()
	c.send(h.bytes(), publishPacket(topic))
	c.untilClosed()
	from.publish(pub{topic: topic, payload: "marker", qos: 1})
	w.take(topic, "marker", 1)
	w.expectNothing()
}
