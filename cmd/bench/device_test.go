package main

import (
	"context"
	"errors"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
)

// startDevice runs a device with a window of 3 against addr until the test ends.
func startDevice(t *testing.T, addr string) *device {
	t.Helper()
	d := newDevice("d01", 3, &record{name: "d01", payload: 40})
	d.login = func() login {
		return login{addr: addr, clientID: "d01", user: "somebody", secret: "something", keepAlive: time.Minute}
	}
	d.topic = func(n int) string { return "t/" + messageID("d01", n) }
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { d.Run(ctx); close(ended) }()
	t.Cleanup(func() { stop(); <-ended })
	return d
}

// wantPublish reads one publish and checks all of it but the packet id, which it gives.
func wantPublish(t *testing.T, p *peer, n int) uint16 {
	t.Helper()
	p.nc.SetReadDeadline(time.Now().Add(5 * time.Second))
	pk, err := p.read()
	if err != nil {
		t.Fatalf("wait for publish %d: %v", n, err)
	}
	if pk.FixedHeader.Type != packets.Publish || pk.FixedHeader.Qos != 1 || pk.FixedHeader.Dup {
		t.Fatalf("got type %d, QoS %d, DUP %v, want a QoS 1 publish without DUP", pk.FixedHeader.Type, pk.FixedHeader.Qos, pk.FixedHeader.Dup)
	}
	if want := "t/" + messageID("d01", n); pk.TopicName != want || string(pk.Payload) != string(body("d01", n, 40)) {
		t.Fatalf("got %s %s, want number %d", pk.TopicName, pk.Payload, n)
	}
	return pk.PacketID
}

// wantNothing checks that no packet comes for a moment.
func wantNothing(t *testing.T, p *peer) {
	t.Helper()
	p.nc.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if pk, err := p.read(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("got type %d (%v), want nothing", pk.FixedHeader.Type, err)
	}
}

// eventually waits for cond.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	if ok, err := until(t.Context(), 5*time.Second, cond); !ok {
		t.Fatalf("%s: not within 5 s (%v)", what, err)
	}
}

func TestDeviceKeepsToItsWindow(t *testing.T) {
	addr, next := peers(t)
	d := startDevice(t, addr)
	p, connect := next()
	if c := connect.Connect; string(c.Username) != "somebody" || string(c.Password) != "something" || c.Keepalive != 60 || c.ClientIdentifier != "d01" {
		t.Errorf("CONNECT says %s, %s, keep-alive %d", c.ClientIdentifier, c.Username, c.Keepalive)
	}
	p.connack(0)
	wantNothing(t, p)
	d.send(5, 0)
	var ids []uint16
	for n := 1; n <= 3; n++ {
		ids = append(ids, wantPublish(t, p, n))
	}
	wantNothing(t, p)
	p.puback(ids[1]) // brokers may acknowledge in any order
	ids[1] = wantPublish(t, p, 4)
	wantNothing(t, p)
	p.puback(ids[0])
	ids[0] = wantPublish(t, p, 5)
	if d.idle() {
		t.Error("idle with three under way")
	}
	for _, id := range ids {
		p.puback(id)
	}
	eventually(t, "all acknowledged", d.idle)
	if r := d.rec.row(limits{}); r.sent != 5 || r.acked != 5 {
		t.Errorf("record says %d sent, %d acknowledged, want 5 and 5", r.sent, r.acked)
	}
}

func TestDeviceRepeatsInOrder(t *testing.T) {
	addr, next := peers(t)
	d := startDevice(t, addr)
	p, _ := next()
	p.connack(0)
	d.send(4, 0)
	var old [4]uint16
	for n := 1; n <= 3; n++ {
		old[n] = wantPublish(t, p, n)
	}
	p.puback(old[2])
	wantPublish(t, p, 4)
	p.nc.Close()

	p, _ = next()
	p.connack(0)
	for _, n := range []int{1, 3, 4} {
		id := wantPublish(t, p, n)
		if n < 4 && id == old[n] {
			t.Errorf("number %d came again with its old packet id", n)
		}
		p.puback(id)
	}
	eventually(t, "all acknowledged", d.idle)
	p.puback(999)
	eventually(t, "a stray is counted", func() bool { _, _, strays, _ := d.state(); return strays == 1 })
	if _, losses, _, _ := d.state(); losses != 1 {
		t.Errorf("%d connections lost, want 1", losses)
	}
	for i, want := range []uint16{2, 1, 2, 2} {
		if got := d.rec.published[i]; got != want {
			t.Errorf("number %d was published %d times by the record, want %d", i+1, got, want)
		}
	}
}

func TestDeviceTriesAgain(t *testing.T) {
	addr, next := peers(t)
	d := startDevice(t, addr)
	p, _ := next()
	p.connack(5)
	eventually(t, "the refusal is known", func() bool {
		up, _, _, err := d.state()
		return !up && errors.Is(err, refused(5))
	})
	p, _ = next()
	p.connack(0)
	eventually(t, "connected", func() bool { up, _, _, _ := d.state(); return up })
}

func TestDeviceHalts(t *testing.T) {
	addr, next := peers(t)
	d := startDevice(t, addr)
	p, _ := next()
	p.connack(0)
	d.send(100, 0)
	for n := 1; n <= 3; n++ {
		defer p.puback(wantPublish(t, p, n))
	}
	d.halt()
	p.puback(1)
	wantNothing(t, p)
}

// TestDevicePace needs no network: take decides when a publish may go.
func TestDevicePace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDevice("d01", 1000, &record{})
		d.send(1000, 100*time.Millisecond)
		count := func(span time.Duration) int {
			n, end := 0, time.Now().Add(span)
			for time.Now().Before(end) {
				if _, wait := d.take(); wait > 0 {
					time.Sleep(min(wait, time.Until(end)))
				} else {
					n++
				}
			}
			return n
		}
		if n := count(10 * time.Second); n < 99 || n > 100 {
			t.Errorf("%d publishes in 10 s, want 100", n)
		}
		time.Sleep(time.Minute) // no connection
		if n := count(10 * time.Second); n < 99 || n > 112 {
			t.Errorf("%d publishes in 10 s after a minute's pause, want about 100: what was missed is not made up for", n)
		}
	})
}

func TestWatcherHears(t *testing.T) {
	addr, next := peers(t)
	w := &watcher{filter: "plant/+/data", login: func() login {
		return login{addr: addr, clientID: "watch", user: "watch", secret: "x", keepAlive: time.Minute, clean: true}
	}}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { w.Run(ctx); close(ended) }()
	defer func() { stop(); <-ended }()
	p, _ := next()
	p.connack(0)
	sub, err := p.read()
	if err != nil || len(sub.Filters) != 1 || sub.Filters[0].Filter != "plant/+/data" {
		t.Fatalf("got %+v (%v), want a subscription to plant/+/data", sub.Filters, err)
	}
	p.write(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Suback}, PacketID: sub.PacketID, ReasonCodes: []byte{1}})
	for _, qos := range []byte{1, 0} {
		p.write(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: qos}, PacketID: 7, TopicName: "plant/p01/data"})
	}
	if ack, err := p.read(); err != nil || ack.FixedHeader.Type != packets.Puback || ack.PacketID != 7 {
		t.Errorf("got type %d id %d (%v), want PUBACK 7", ack.FixedHeader.Type, ack.PacketID, err)
	}
	eventually(t, "both were heard", func() bool { return w.heard.Load() == 2 })
}
