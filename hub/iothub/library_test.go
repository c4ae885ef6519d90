package iothub

import (
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"holdfast.dev/holdfast/hub"
)

// TestLibrary pins what the library does with its tokens, which is why nothing
// here waits for them: a publish that nobody acknowledged completes without an
// error as soon as it is sent again on another connection. If this fails after an
// update, read conn's comment again.
func TestLibrary(t *testing.T) {
	l := newLiar(t)
	l.talk = func(c *talk) {
		if p, err := c.read(); err == nil && p.kind == pktPublish && c.n > 1 {
			c.read() // until the client leaves
		}
	}
	u := newUpstream(t, l.config())
	client := mqtt.NewClient(mqtt.NewClientOptions().AddBroker("tls://" + l.addr).SetTLSConfig(u.set.tls).SetClientID("raw").SetCleanSession(false))
	defer client.Disconnect(0)
	if c := client.Connect(); !c.WaitTimeout(5*time.Second) || c.Error() != nil {
		t.Fatalf("Connect: %v", c.Error())
	}
	p := client.Publish("a", 1, false, "x")
	if !p.WaitTimeout(15*time.Second) || p.Error() != nil {
		t.Errorf("token of a publish that was never acknowledged: %v, want it to complete with nil, as it is known to", p.Error())
	}
}

// TestOptions: the library does nothing of its own accord.
func TestOptions(t *testing.T) {
	u := newUpstream(t, Config{Connection: goodConnection})
	s := newSession(u, "d1/m")
	r := mqtt.NewClient((&conn{s: s}).options(nil)).OptionsReader()
	if r.AutoReconnect() || r.ConnectRetry() || r.CleanSession() || r.ProtocolVersion() != 4 || r.WriteTimeout() != 10*time.Second || r.KeepAlive() > 30*time.Second {
		t.Errorf("reconnect %v, retry %v, clean %v, version %d, write timeout %v, keep-alive %v", r.AutoReconnect(), r.ConnectRetry(),
			r.CleanSession(), r.ProtocolVersion(), r.WriteTimeout(), r.KeepAlive())
	}
	want := "h.azure-devices.net/d1/m/?api-version=2020-09-30&DeviceClientType=holdfast%2F1&auth-chain=d1%2Fm%3Bd1%3Bgw"
	if got := r.Username(); r.ClientID() != "d1/m" || got != want {
		t.Errorf("client id %q, user name %q; want d1/m, %q", r.ClientID(), got, want)
	}
}

// TestSubackPanic: the library takes the codes of a SUBACK for as many filters as
// it asked for, without looking. Mutation seen to end the whole process: let every
// SUBACK through in tap.inspect.
func TestSubackPanic(t *testing.T) {
	t.Parallel()
	l := newLiar(t)
	l.talk = func(c *talk) {
		for {
			p, err := c.read()
			if err != nil {
				return
			}
			if p.kind == pktSubscribe {
				c.Write([]byte{pktSuback << 4, 6, byte(p.id >> 8), byte(p.id), 0, 0, 0, 0})
			}
		}
	}
	u := newUpstream(t, l.config())
	h := newFakeHub(nil)
	h.Attach("d1", nil, hub.Method)
	start(t, u, h)
	until(t, "another try", 10*time.Second, func() bool { return l.count("d1") > 1 })
	if u.State().Strays == 0 {
		t.Errorf("strays: 0, want the SUBACK to be counted")
	}
}
