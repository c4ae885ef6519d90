package conform

// Wills: sections 3.1.2.5 to 3.1.2.7.

func willRows311() []Row {
	return []Row{
		{"3.1.2-8", "a will is published when the connection ends without DISCONNECT", rowWillPublished},
		{"3.1.2-9", "will QoS is used; a will flag without topic and message is malformed", rowWillFields},
		{"3.1.2-10", "a will is gone once published, or with DISCONNECT", rowWillRemoved},
		{"3.1.2-11", "will fields without the will flag are malformed", rowWillUnflagged},
		{"3.1.2-12", "without a will flag nothing is published", rowNoWill},
		{"3.1.2-13", "will flag 0 with a will QoS is malformed", rowWillQoSUnflagged},
		{"3.1.2-14", "will QoS 3 is malformed", rowWillQoS3},
		{"3.1.2-15", "will flag 0 with will retain is malformed", rowWillRetainUnflagged},
		{"3.1.2-16", "will retain 0: the will is not retained", rowWillNotRetained},
		{"3.1.2-17", "will retain 1: the will is retained", rowWillRetained},
	}
}

func rowWillPublished(t *Try) {
	watch := t.client()
	watch.listen(1, t.topic("will/+"))
	t.mortal(lastWill{topic: t.topic("will/1"), payload: "died", qos: 1}).close()
	watch.take(t.topic("will/1"), "died", 1)
	// A protocol violation: the server closes.
	c := t.mortal(lastWill{topic: t.topic("will/2"), payload: "broke off", qos: 1})
	c.send(frame(kindPublish<<4|6, text("x")))
	watch.take(t.topic("will/2"), "broke off", 1)
	c.untilClosed()
}

func rowWillFields(t *Try) {
	watch := t.client()
	watch.listen(2, t.topic("will/+"))
	for _, qos := range []byte{0, 1, 2} {
		w := lastWill{topic: t.topic("will/a"), payload: "x", qos: qos}
		t.mortal(w).close()
		watch.take(w.topic, "x", qos)
	}
	h := t.hello()
	h.user, h.password = nil, nil
	h.flip = 4 // the will flag
	t.malformed(h)
	h.extra = text(t.topic("will/b")) // and no message
	t.malformed(h)
	watch.expectNothing()
}

func rowWillRemoved(t *Try) {
	watch := t.client()
	watch.listen(0, t.topic("will"))
	id := t.id()
	die := func(w *lastWill, end func(*conn)) {
		end(t.connect(func(h *hello) { t.asSleeper(h, id); h.will = w }))
	}
	die(&lastWill{topic: t.topic("will"), payload: "once"}, (*conn).close)
	watch.expectPublish(t.topic("will"), "once", 0)
	die(nil, (*conn).close) // the same session, now without a will
	watch.expectNothing()
	die(&lastWill{topic: t.topic("will"), payload: "never"}, (*conn).leave)
	die(nil, (*conn).close)
	watch.expectNothing()
	t.forget(id)
}

func rowWillUnflagged(t *Try) {
	watch := t.client()
	watch.listen(0, t.topic("will"))
	h := t.hello()
	h.will = &lastWill{topic: t.topic("will"), payload: "x"}
	h.user, h.password = nil, nil
	h.flip = 4
	t.malformed(h)
	watch.expectNothing()
}

func rowNoWill(t *Try) {
	watch := t.client()
	watch.listen(0, t.topic("#"))
	c := t.client()
	c.publish(pub{topic: t.topic("a"), payload: "alive"})
	watch.expectPublish(t.topic("a"), "alive", 0)
	c.close()
	watch.expectNothing()
}

func rowWillQoSUnflagged(t *Try) {
	for _, bits := range []byte{1 << 3, 2 << 3} {
		h := t.hello()
		h.flip = bits
		t.malformed(h)
	}
}

func rowWillQoS3(t *Try) {
	h := t.hello()
	h.will = &lastWill{topic: t.topic("will"), payload: "x", qos: 3}
	t.malformed(h)
}

func rowWillRetainUnflagged(t *Try) {
	h := t.hello()
	h.flip = 32
	t.malformed(h)
}

func rowWillNotRetained(t *Try) {
	watch := t.client()
	watch.listen(1, t.topic("will"))
	t.mortal(lastWill{topic: t.topic("will"), payload: "x", qos: 1}).close()
	if p := watch.take(t.topic("will"), "x", 1); p.retain {
		t.failf("%v", p)
	}
	late := t.client()
	late.listen(1, t.topic("will"))
	late.expectNothing()
}

func rowWillRetained(t *Try) {
	watch := t.client()
	watch.listen(1, t.topic("will"))
	t.mortal(lastWill{topic: t.topic("will"), payload: "x", qos: 1, retain: true}).close()
	watch.take(t.topic("will"), "x", 1)
	late := t.client()
	late.listen(1, t.topic("will"))
	if p := late.take(t.topic("will"), "x", 1); !p.retain {
		t.failf("%v, want RETAIN", p)
	}
	t.clear("will")
}
