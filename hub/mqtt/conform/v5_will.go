package conform

import (
	"slices"
	"time"
)

// rowsWill5 are the statements about wills of sections 3.1 and 3.14.
func rowsWill5() []Row {
	return []Row{
		{"3.1.2-7", "a will is published when the network fails", fiveWillStored},
		{"3.1.2-8", "a will waits for its delay or for the end of the session, no longer", fiveWillDelay},
		{"3.1.2-10", "a will is gone after DISCONNECT 0x00, and once it is published", fiveWillRemoved},
		{"3.1.2-14", "a will without retain is not retained", fiveWillNotRetained},
		{"3.1.2-15", "a will with retain is retained", fiveWillRetained},
		{"3.1.3-9", "no will if the client is back before its delay is over", fiveWillBack},
		{"3.1.3-10", "user properties of a will keep their order", fiveWillProperties},
		{"3.14.4-3", "DISCONNECT 0x00 discards the will, DISCONNECT 0x04 does not", fiveWillDisconnect},
	}
}

// mortal is a client with a will.
func mortal(t *Try, id string, w lastWill, props ...[]byte) *conn {
	return t.connect(func(h *hello) {
		h.id, h.will, h.props = id, &w, slices.Concat(props...)
	})
}

// heir is a client that waits for a will, and the will.
func heir(t *Try) (*conn, lastWill) {
	c := five(t)
	w := lastWill{topic: t.topic("will"), payload: "the will", qos: 1}
	c.listen(1, w.topic)
	return c, w
}

func fiveWillStored(t *Try) {
	c, w := heir(t)
	for qos := range byte(3) {
		if qos == 2 && c.maximum(propMaximumQoS, 2) < 2 {
			continue
		}
		w.qos = qos
		mortal(t, t.id(), w).close()
		c.take(w.topic, w.payload, min(qos, 1))
	}
	c.expectNothing()
}

// fiveWillDelay looks at three clients at once, as each of them takes its time.
func fiveWillDelay(t *Try) {
	c, w := heir(t)
	die := func(payload string, delay, expiry uint32) {
		w.payload, w.props = payload, number(propWillDelay, delay)
		mortal(t, t.id(), w, number(propSessionExpiry, expiry)).close()
	}
	start := time.Now()
	die("no session", 600, 0)
	c.take(w.topic, "no session", 1)
	die("delay over", 2, 3600)
	die("session over", 600, 2)
	c.expectNothing()
	got := []string{}
	for range 2 {
		p := c.message()
		c.finish(p)
		got = append(got, p.payload)
		// Servers may count in whole seconds, so a second is not held against them.
		if d := time.Since(start); d < time.Second {
			t.failf("%v after %v, want it after 2 s", p, d)
		}
	}
	if slices.Sort(got); !slices.Equal(got, []string{"delay over", "session over"}) {
		t.failf("got the wills %q", got)
	}
	c.expectNothing()
}

func fiveWillRemoved(t *Try) {
	c, w := heir(t)
	mortal(t, t.id(), w).leave()
	c.expectNothing()
	id := t.id()
	mortal(t, id, w, number(propSessionExpiry, 3600)).close()
	c.take(w.topic, w.payload, 1)
	back(t, id).close()
	c.expectNothing()
	gone(back(t, id))
}

func fiveWillNotRetained(t *Try) {
	c, w := heir(t)
	mortal(t, t.id(), w).close()
	c.take(w.topic, w.payload, 1)
	late := five(t)
	late.listen(1, w.topic)
	late.expectNothing()
}

func fiveWillRetained(t *Try) {
	c, w := heir(t)
	c.needsRetained()
	w.retain = true
	mortal(t, t.id(), w).close()
	c.take(w.topic, w.payload, 1)
	late := five(t)
	late.listen(1, w.topic)
	if p := late.take(w.topic, w.payload, 1); !p.retain {
		t.failf("%v, want RETAIN 1", p)
	}
	late.publish(pub{topic: w.topic, qos: 1, retain: true})
}

func fiveWillBack(t *Try) {
	c, w := heir(t)
	w.props = number(propWillDelay, 4) // time enough to be back on a slow machine
	id := t.id()
	mortal(t, id, w, number(propSessionExpiry, 3600)).close()
	again := back(t, id)
	c.silence(5500 * time.Millisecond)
	gone(again)
}

func fiveWillProperties(t *Try) {
	c, w := heir(t)
	w.props = slices.Concat(pair("b", "1"), pair("a", "2"), pair("b", "0"), pair("", ""))
	mortal(t, t.id(), w).close()
	wantPairs(t, c.take(w.topic, w.payload, 1), "b", "1", "a", "2", "b", "0", "", "")
}

// wantPairs says that the user properties of p are these, in that order.
func wantPairs(t *Try, p packet, want ...string) {
	var got []string
	for _, u := range p.props.all(propUser) {
		got = append(got, u.text, u.value)
	}
	if !slices.Equal(got, want) {
		t.failf("user properties are %q, want %q", got, want)
	}
}

func fiveWillDisconnect(t *Try) {
	c, w := heir(t)
	mortal(t, t.id(), w).bye(0)
	c.expectNothing()
	mortal(t, t.id(), w).bye(4)
	c.take(w.topic, w.payload, 1)
	c.expectNothing()
}
