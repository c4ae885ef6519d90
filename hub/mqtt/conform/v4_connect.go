package conform

import "time"

// CONNECT: sections 3.1.0 to 3.1.2 without clean session and wills.

func connectRows311() []Row {
	return []Row{
		{"3.1.0-1", "a first packet that is not CONNECT is not dealt with", rowFirstPacket},
		{"3.1.0-2", "a second CONNECT ends the connection", rowSecondConnect},
		{"3.1.2-1", "a CONNECT with another protocol name is not accepted", rowProtocolName},
		{"3.1.2-2", "an unknown protocol level is answered with code 1, then closed", rowProtocolLevel},
		{"3.1.2-3", "the reserved connect flag ends the connection", rowReservedFlag},
		{"3.1.2-18", "a user name without its flag is malformed", rowUserUnflagged},
		{"3.1.2-19", "a user name flag without user name is malformed", rowUserMissing},
		{"3.1.2-20", "a password without its flag is malformed", rowPasswordUnflagged},
		{"3.1.2-21", "a password flag without password is malformed", rowPasswordMissing},
		{"3.1.2-22", "a password flag without user name flag is malformed", rowPasswordAlone},
		{"3.1.2-24", "a client that is silent for 1.5 keep alives is disconnected", rowKeepAlive},
	}
}

// malformed says that h is closed without a CONNACK, as [MQTT-3.1.4-1] has it.
func (t *Try) malformed(h hello) {
	if ack := t.refused(h); ack != nil {
		t.failf("%v, want the connection closed without", ack)
	}
}

func rowFirstPacket(t *Try) {
	watch := t.client()
	watch.listen(0, t.topic("a"))
	for _, p := range [][]byte{
		pub{topic: t.topic("a"), payload: "x"}.bytes(v311),
		subscribePacket(v311, 1, nil, filter{t.topic("a"), 0}),
		pingreq(), goodbye(), ackPacket(kindPuback, 1),
	} {
		t.step("%s", name(p[0]>>4))
		c := t.dial()
		c.send(p, t.hello().bytes())
		c.expectClosed()
	}
	t.step("after all")
	watch.expectNothing()
}

func rowSecondConnect(t *Try) {
	h := t.hello()
	c, _ := t.open(h)
	c.send(h.bytes())
	c.expectClosed()
}

func rowProtocolName(t *Try) {
	for _, name := range []string{"MQTX", "mqtt", "MQT", "", "MQTTT"} {
		t.step("name %q", name)
		h := t.hello()
		h.name = name
		t.refused(h)
	}
}

// rowProtocolLevel has levels that no server here speaks. One that speaks MQTT 5
// may answer a level above it as that standard has it: with code 0x84.
func rowProtocolLevel(t *Try) {
	for _, level := range []byte{0, 1, 2, 6, 100} {
		t.step("level %d", level)
		h := t.hello()
		h.level = level
		ack := t.refused(h)
		switch {
		case ack == nil:
			t.failf("closed without CONNACK")
		case ack.code != 1 && !(level > v5 && ack.code == 0x84):
			t.failf("%v, want code 1", ack)
		}
	}
}

func rowReservedFlag(t *Try) {
	h := t.hello()
	h.flip = 1
	t.malformed(h)
}

func rowUserUnflagged(t *Try) {
	h := t.hello()
	h.user, h.password = nil, nil
	h.extra = text("user")
	t.malformed(h)
}

func rowUserMissing(t *Try) {
	h := t.hello()
	h.user, h.password = nil, nil
	h.flip = 128
	t.malformed(h)
}

func rowPasswordUnflagged(t *Try) {
	h := t.hello()
	user := "conform"
	h.user, h.password = &user, nil
	h.extra = text("secret")
	t.malformed(h)
}

func rowPasswordMissing(t *Try) {
	h := t.hello()
	user := "conform"
	h.user, h.password = &user, nil
	h.flip = 64
	t.malformed(h)
}

func rowPasswordAlone(t *Try) {
	h := t.hello()
	password := "secret"
	h.user, h.password = nil, &password
	t.malformed(h)
}

func rowKeepAlive(t *Try) {
	watch := t.client()
	watch.listen(0, t.topic("will"))
	c := t.connect(func(h *hello) {
		h.keep = 1
		h.will = &lastWill{topic: t.topic("will"), payload: "gone"}
	})
	// The standard does not say how soon a server has to see it; some look round
	// every few seconds.
	c.patience = max(c.patience, 15*time.Second)
	watch.patience = c.patience
	start := time.Now()
	c.expectClosed()
	if d := time.Since(start); d < time.Second/2 {
		t.failf("closed after %v, with a keep alive of a second", d.Round(time.Millisecond))
	}
	watch.expectPublish(t.topic("will"), "gone", 0) // as if the network had failed
}
