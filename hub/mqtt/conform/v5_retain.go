package conform

// rowsRetain5 are the statements of section 3.3.1.3 about retained messages.
func rowsRetain5() []Row {
	return []Row{
		{"3.3.1-5", "a retained message replaces the one of before", fiveRetainReplaces},
		{"3.3.1-6", "an empty retained message removes the one of before, and is delivered", fiveRetainRemoves},
		{"3.3.1-7", "an empty message is not retained", fiveRetainEmpty},
		{"3.3.1-8", "a message without retain leaves the retained one alone", fiveRetainStays},
		{"3.3.1-9", "Retain Handling 0: retained messages come with each SUBSCRIBE", fiveRetainHandling0},
		{"3.3.1-10", "Retain Handling 1: they come if the subscription is new", fiveRetainHandling1},
		{"3.3.1-11", "Retain Handling 2: they do not come", fiveRetainHandling2},
		{"3.3.1-12", "RETAIN is 0 without Retain As Published", fiveRetainAsPublished(0)},
		{"3.3.1-13", "RETAIN is as published with Retain As Published", fiveRetainAsPublished(retainAsPublished)},
		{"3.8.4-4", "a SUBSCRIBE again brings retained messages again and loses none", fiveRetainAgain},
	}
}

// retainer is a client that leaves a retained message on topic; the row has to
// take it away at the end.
func retainer(t *Try, topic, payload string) *conn {
	c := five(t).needsRetained()
	c.retain(topic, payload)
	t.settle()
	return c
}

func (c *conn) retain(topic, payload string) {
	c.publish(pub{topic: topic, payload: payload, qos: 1, retain: true})
}

// retained is what a new subscriber gets at once: a payload, or "" for nothing.
func retained(t *Try, filter string) string {
	t.settle()
	c := five(t)
	c.listen(1, filter)
	if !c.comes(moment) {
		return ""
	}
	p := c.message()
	if !p.retain {
		t.failf("%v, want RETAIN 1 for a new subscription", p)
	}
	c.expectNothing()
	return p.payload
}

func fiveRetainReplaces(t *Try) {
	topic := t.topic("a/b")
	from := retainer(t, topic, "old")
	from.retain(topic, "new")
	if got := retained(t, topic); got != "new" {
		t.failf("%q is retained, want %q", got, "new")
	}
	from.retain(topic, "")
}

func fiveRetainRemoves(t *Try) {
	topic := t.topic("a")
	from := retainer(t, topic, "old")
	c := five(t)
	c.option(topic, 1|retainNever)
	from.retain(topic, "")
	c.take(topic, "", 1)
	if got := retained(t, topic); got != "" {
		t.failf("%q is retained, want nothing", got)
	}
}

func fiveRetainEmpty(t *Try) {
	topic := t.topic("a")
	retainer(t, topic, "")
	c := five(t)
	c.listen(1, topic)
	c.expectNothing()
}

func fiveRetainStays(t *Try) {
	topic := t.topic("a")
	from := retainer(t, topic, "retained")
	for _, payload := range []string{"not", ""} {
		from.publish(pub{topic: topic, payload: payload, qos: 1})
	}
	if got := retained(t, topic); got != "retained" {
		t.failf("%q is retained, want %q", got, "retained")
	}
	from.publish(pub{topic: t.topic("b"), payload: "not", qos: 1})
	if got := retained(t, t.topic("b")); got != "" {
		t.failf("%q is retained, want nothing", got)
	}
	from.retain(topic, "")
}

func fiveRetainHandling0(t *Try) {
	topic := t.topic("a/b")
	from := retainer(t, topic, "x")
	c := five(t)
	for _, f := range []string{topic, topic, t.topic("+/b"), t.topic("#"), t.topic("a/b/#"), t.topic("+/+/#")} {
		c.option(f, 1)
		if p := c.take(topic, "x", 1); !p.retain {
			t.failf("%v, want RETAIN 1", p)
		}
	}
	c.expectNothing()
	from.retain(topic, "")
}

func fiveRetainHandling1(t *Try) {
	topic := t.topic("a")
	from := retainer(t, topic, "x")
	c := five(t)
	c.option(topic, 1|retainIfNew)
	c.take(topic, "x", 1)
	c.option(topic, 1|retainIfNew)
	c.expectNothing()
	c.unsubscribe(topic)
	c.option(topic, 1|retainIfNew)
	c.take(topic, "x", 1)
	from.retain(topic, "")
}

func fiveRetainHandling2(t *Try) {
	topic := t.topic("a")
	from := retainer(t, topic, "x")
	c := five(t)
	for range 2 {
		c.option(topic, 1|retainNever)
		c.expectNothing()
	}
	from.retain(topic, "y")
	c.take(topic, "y", 1)
	from.retain(topic, "")
}

// fiveRetainAsPublished is a row: RETAIN of what is delivered to a subscription
// that is in force is as the option says.
func fiveRetainAsPublished(option byte) func(*Try) {
	return func(t *Try) {
		c, from := five(t), five(t).needsRetained()
		c.option(t.topic("+"), 1|option)
		for _, retain := range []bool{true, false} {
			from.publish(pub{topic: t.topic("a"), payload: "x", qos: 1, retain: retain})
			if p := c.take(t.topic("a"), "x", 1); p.retain != (retain && option != 0) {
				t.failf("%v for a message that was published with RETAIN %t", p, retain)
			}
		}
		from.retain(t.topic("a"), "")
	}
}

func fiveRetainAgain(t *Try) {
	id, topic := t.id(), t.topic("a")
	from := retainer(t, topic, "retained")
	c := begin(t, id, number(propReceiveMaximum, 1))
	c.option(t.topic("+"), 1)
	first := c.expectPublish(topic, "retained", 1)
	for _, s := range []string{"1", "2"} { // they wait, for the window is full
		from.publish(pub{topic: t.topic("b"), payload: s, qos: 1})
	}
	c.option(t.topic("+"), 1)
	c.finish(first)
	want := map[string]bool{"retained": true, "1": true, "2": true}
	for len(want) > 0 {
		p := c.message()
		c.finish(p)
		delete(want, p.payload)
	}
	gone(c)
	from.retain(topic, "")
}
