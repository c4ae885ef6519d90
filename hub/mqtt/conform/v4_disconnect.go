package conform

// PINGREQ and DISCONNECT: sections 3.12 to 3.14.

func disconnectRows311() []Row {
	return []Row{
		{"3.12.4-1", "PINGREQ is answered with PINGRESP", rowPing},
		{"3.14.1-1", "DISCONNECT with other flags than 0 is no DISCONNECT", rowDisconnectFlags},
		{"3.14.4-3", "DISCONNECT discards the will", rowDisconnectWill},
	}
}

func rowPing(t *Try) {
	c := t.client()
	for range 3 {
		c.send(pingreq())
		c.expect(kindPingresp)
	}
	c.send(pingreq(), pingreq())
	c.expect(kindPingresp)
	c.expect(kindPingresp)
}

// rowDisconnectFlags sees by the will that the server closed the connection for
// the flags and not because it was asked to.
func rowDisconnectFlags(t *Try) {
	watch := t.client()
	watch.listen(0, t.topic("will"))
	for _, flags := range []byte{1, 2, 4, 8} {
		c := t.mortal(lastWill{topic: t.topic("will"), payload: "gone"})
		c.send(frame(kindDisconnect<<4 | flags))
		c.expectClosed()
		watch.expectPublish(t.topic("will"), "gone", 0)
	}
}

func rowDisconnectWill(t *Try) {
	watch := t.client()
	watch.listen(0, t.topic("will"))
	for range 2 {
		t.mortal(lastWill{topic: t.topic("will"), payload: "gone"}).leave()
	}
	c := t.mortal(lastWill{topic: t.topic("will"), payload: "gone"})
	c.send(goodbye())
	c.close() // at once, as many clients do
	watch.expectNothing()
}
