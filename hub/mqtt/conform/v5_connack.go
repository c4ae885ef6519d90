package conform

import (
	"slices"
	"time"
)

// rowsConnack5 are the statements of section 3.2, and those of 3.1 about what a
// server may say at all.
func rowsConnack5() []Row {
	return []Row{
		{"3.1.2-22", "a client that is silent for 1.5 times its keep alive is hung up", fiveKeepAlive},
		{"3.1.2-28", "no Response Information for a client that did not ask", fiveNoResponseInfo},
		{"3.1.2-29", "no reason strings for a client that wants no problem information", fiveNoProblemInfo},
		{"3.2.0-1", "CONNACK is the first packet, of a session where messages wait, too", fiveConnackFirst},
		{"3.2.0-2", "CONNACK comes once", fiveOneConnack},
		{"3.2.2-1", "reserved bits of CONNACK are 0", fiveConnackFlags},
		{"3.2.2-2", "no session present after a clean start", fivePresentClean},
		{"3.2.2-3", "session present where there is one, and not where there is none", fivePresent},
		{"3.2.2-6", "no session present in a CONNACK that refuses", fivePresentRefused},
		{"3.2.2-7", "a CONNACK that refuses is the end of the connection", fiveRefusalCloses},
		{"3.2.2-8", "reason codes of CONNACK are those of the table", fiveConnackCodes},
		{"3.2.2-9", "QoS 1 and 2 work, or CONNACK says what does", fiveMaximumQoS},
		{"3.2.2-10", "SUBSCRIBE may ask for any QoS", fiveSubscribeAnyQoS},
		{"3.2.2-12", "a will with a QoS that is not offered is turned away", fiveWillQoS},
		{"3.2.2-13", "a will with retain is turned away where retained messages are not offered", fiveWillRetain},
		{"3.2.2-15", "a packet above the server's maximum costs the connection", fiveTooLarge},
		{"3.2.2-16", "an assigned client id is not one that is in use", fiveAssignedNew},
		{"3.2.2-17", "a topic alias above the server's maximum costs the connection", fiveAliasTooHigh},
		{"3.2.2-19", "no reason string that makes CONNACK too large for the client", fiveConnackSize},
		{"3.2.2-20", "no user property that makes CONNACK too large for the client", fiveConnackSize},
		{"3.2.2-22", "the client's keep alive counts where CONNACK names none", fiveClientKeepAlive},
	}
}

// dies waits until the server hangs up, and gives how long that took.
func (c *conn) dies(start time.Time, limit time.Duration) time.Duration {
	patience := c.t.Target.Patience
	c.nc.SetReadDeadline(start.Add(limit + patience))
	for {
		if _, err := readPacket(c.br, v5); err != nil {
			break
		}
	}
	d := time.Since(start)
	if d >= limit+patience {
		c.t.failf("connection is open after %v, want it closed after %v", d.Round(time.Second), limit)
	}
	return d
}

// keepAlive is what counts: the server's word, else the client's.
func (c *conn) keepAlive(asked uint32) time.Duration {
	n := c.maximum(propServerKeepAlive, asked)
	if n == 0 || n > 10 {
		c.t.notApplicable("sets a keep alive of its own that is too long to wait for")
	}
	return time.Duration(n) * time.Second
}

func fiveKeepAlive(t *Try) {
	start := time.Now()
	c := t.connect(func(h *hello) { h.keep = 1 })
	k := c.keepAlive(1)
	if d := c.dies(start, k*3/2); d < k {
		t.failf("connection was closed after %v, within the keep alive of %v", d, k)
	}
}

func fiveClientKeepAlive(t *Try) {
	c := t.connect(func(h *hello) { h.keep = 2 })
	k := c.keepAlive(2)
	for range 3 { // what keeps it alive
		c.silence(k / 2)
		c.ping()
	}
	start := time.Now()
	if d := c.dies(start, k*3/2); d < k {
		t.failf("connection was closed after %v, within the keep alive of %v", d, k)
	}
}

func fiveNoResponseInfo(t *Try) {
	for _, c := range []*conn{five(t), five(t, number(propRequestResponse, 0))} {
		if s, ok := c.connack.props.text(propResponseInfo); ok {
			t.failf("CONNACK has Response Information %q", s)
		}
	}
}

func fiveNoProblemInfo(t *Try) {
	for _, p := range provoke(t, number(propRequestProblem, 0)) {
		if p.kind == kindPublish || p.kind == kindDisconnect {
			continue
		}
		if s, ok := p.props.text(propReasonString); ok {
			t.failf("%v has the reason string %q", p, s)
		}
		if len(p.props.all(propUser)) > 0 {
			t.failf("%v has user properties", p)
		}
	}
}

func fiveConnackFirst(t *Try) {
	id, from := t.id(), five(t)
	c := begin(t, id)
	c.listen(1, t.topic("a"))
	c.leave()
	for _, s := range []string{"1", "2", "3"} {
		from.publish(pub{topic: t.topic("a"), payload: s, qos: 1})
	}
	c = back(t, id) // expects CONNACK before anything else
	c.message()
	gone(c)
}

func fiveOneConnack(t *Try) {
	h := t.hello()
	c, _ := t.open(h)
	c.ping()
	c.send(h.bytes())
	for _, p := range c.untilClosed() {
		if p.kind == kindConnack {
			t.failf("a second %v", p)
		}
	}
}

// refusals are CONNACK packets that refuse, and what was refused.
func refusals(t *Try, id string) []packet {
	var all []packet
	for _, change := range []func(*hello){
		flip(flagReserved),
		func(h *hello) { h.level = 6 },
		func(h *hello) { h.props = words(propAuthMethod, "no such method") },
		func(h *hello) { h.props = number(propReceiveMaximum, 0) },
		func(h *hello) {
			if h.password != nil {
				h.password = new("wrong")
			} else {
				h.flip = flagWillRetain
			}
		},
	} {
		h := t.hello()
		h.id, h.clean = id, false
		change(&h)
		if p := refusal(t, h); p != nil && len(p.body) > 2 {
			all = append(all, *p)
		}
	}
	if len(all) == 0 {
		t.notApplicable("refuses without a CONNACK, as it may")
	}
	return all
}

func fiveConnackFlags(t *Try) {
	id := t.id()
	begin(t, id).leave()
	c := back(t, id)
	for _, p := range append(refusals(t, t.id()), c.connack, five(t).connack) {
		if p.body[0]&0xfe != 0 {
			t.failf("acknowledge flags of %v are %#x", p, p.body[0])
		}
	}
	gone(c)
}

func fivePresentClean(t *Try) {
	id := t.id()
	begin(t, id).leave()
	if five5(t, id).connack.present {
		t.failf("session is present after a clean start")
	}
}

func fivePresent(t *Try) {
	id := t.id()
	c := t.sleeper(id)
	if c.connack.present {
		t.failf("session is present where there was none")
	}
	c.leave()
	gone(back(t, id))
}

func fivePresentRefused(t *Try) {
	id := t.id()
	begin(t, id).leave()
	for _, p := range refusals(t, id) {
		if p.present {
			t.failf("%v, want session present 0", p)
		}
	}
	t.forget(id)
}

func fiveRefusalCloses(t *Try) { refusals(t, t.id()) }

func fiveConnackCodes(t *Try) {
	for _, p := range append(refusals(t, t.id()), five(t).connack) {
		if !known(p) {
			t.failf("%v has a reason that is not in the table", p)
		}
	}
}

func fiveMaximumQoS(t *Try) {
	c := five(t)
	most, said := c.connack.props.number(propMaximumQoS)
	switch {
	case said && most > 1:
		t.failf("Maximum QoS is %d, want 0 or 1", most)
	case !said:
		most = 2
	}
	for qos := range byte(most + 1) {
		c.publish(pub{topic: t.topic("a"), payload: "x", qos: qos})
	}
	c.ping()
}

func fiveSubscribeAnyQoS(t *Try) {
	c := five(t)
	for qos := range byte(3) {
		if code := c.subscribe(filter{t.topic("a"), qos})[0]; code > qos {
			t.failf("SUBACK %#x for QoS %d", code, qos)
		}
	}
}

func fiveWillQoS(t *Try) {
	c := five(t)
	most := c.maximum(propMaximumQoS, 2)
	for qos := range byte(3) {
		h := t.hello()
		h.will = &lastWill{topic: t.topic("a"), payload: "x", qos: qos}
		if uint32(qos) > most {
			turnedAway(t, h)
			continue
		}
		c, ack := t.open(h)
		if ack.code != 0 {
			t.failf("%v for a will with QoS %d", ack, qos)
		}
		c.leave()
	}
}

func fiveWillRetain(t *Try) {
	h := t.hello()
	h.will = &lastWill{topic: t.topic("a"), payload: "x", retain: true}
	if five(t).maximum(propRetainAvailable, 1) == 0 {
		turnedAway(t, h)
		return
	}
	c, ack := t.open(h)
	if ack.code != 0 {
		t.failf("%v for a will with retain", ack)
	}
	c.leave()
}

func fiveTooLarge(t *Try) {
	c := five(t)
	most := c.maximum(propMaximumPacket, 0)
	if most == 0 || most > 16<<20 {
		t.notApplicable("names no Maximum Packet Size that can be tried")
	}
	p := pub{topic: t.topic("a"), qos: 1, id: 1}
	p.payload = string(make([]byte, int(most)+1-len(p.bytes(v5))))
	c.send(p.bytes(v5))
	c.turnedOut()
}

func fiveAssignedNew(t *Try) {
	seen := []string{t.id()}
	begin(t, seen[0]).leave()
	for range 5 {
		c, id := assigned(t)
		if c == nil {
			t.notApplicable("turns empty client ids away")
		}
		if slices.Contains(seen, id) {
			t.failf("the id %q was assigned and is in use", id)
		}
		seen = append(seen, id)
	}
	gone(back(t, seen[0]))
}

func fiveAliasTooHigh(t *Try) {
	c := five(t)
	most := c.maximum(propAliasMaximum, 0)
	if most == 65535 {
		t.notApplicable("allows every topic alias")
	}
	c.send(publishPacket(t.topic("a"), number(propAlias, most+1)))
	c.turnedOut()
}

func fiveConnackSize(t *Try) {
	const limit = 8 // what a CONNACK has that says nothing but its reason is 5
	for _, p := range refusedWith(t, number(propMaximumPacket, limit)) {
		if p.size() > limit {
			t.failf("%v has %d bytes, the client takes %d", p, p.size(), limit)
		}
	}
}

// refusedWith are CONNACK packets that refuse a client which says props.
func refusedWith(t *Try, props []byte) []packet {
	var all []packet
	for _, change := range []func(*hello){
		func(h *hello) { h.props = append(h.props, words(propAuthMethod, "no such method")...) },
		func(h *hello) {
			if h.password != nil {
				h.password = new("wrong")
			} else {
				h.extra = []byte{0}
			}
		},
	} {
		h := t.hello()
		h.props = slices.Clone(props)
		change(&h)
		if p := refusal(t, h); p != nil {
			all = append(all, *p)
		}
	}
	return all
}
