package hubtest

import (
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"holdfast.dev/holdfast/hub/wire"
)

// household is a hub with a gateway, what is behind it, and others.
func household(t *testing.T) *Hub {
	t.Helper()
	h := start(t, Config{})
	h.Put(Device{ID: "gw", Edge: true})
	h.Put(Device{ID: "gw/mod"})
	h.Put(Device{ID: "leaf", Parent: "gw"})
	h.Put(Device{ID: "leaf/m"})
	h.Put(Device{ID: "off", Parent: "gw", Disabled: true})
	h.Put(Device{ID: "other", Edge: true})
	h.Put(Device{ID: "child", Edge: true, Parent: "gw"})
	h.Put(Device{ID: "grandchild", Parent: "child"})
	h.Put(Device{ID: "plain"})
	h.Put(Device{ID: "behindplain", Parent: "plain"})
	return h
}

func TestConnect(t *testing.T) {
	h := household(t)
	h.Put(Device{ID: "half"})
	h.registry.mu.Lock()
	h.registry.entries["half"].Secondary = nil // as a state file may have it
	h.registry.mu.Unlock()
	const query = "/?api-version=2021-04-12"
	leaf, _ := h.registry.get("leaf")
	mod, _ := h.registry.get("leaf/m")
	hub, _ := h.registry.get("gw/$edgeHub")
	soon, past := time.Now().Add(time.Hour), time.Now().Add(-wire.Skew-time.Minute)
	sas := func(host, device, module string, key []byte, at time.Time) string {
		return wire.NewSAS(host, device, module, key, at)
	}
	for _, c := range []struct {
		name               string
		user, id, password string
		code               byte
	}{
		{"primary key", "hub.local/leaf" + query, "leaf", sas("hub.local", "leaf", "", leaf.Primary, soon), 0},
		{"secondary key", "hub.local/leaf" + query, "leaf", sas("hub.local", "leaf", "", leaf.Secondary, soon), 0},
		{"host in capitals", "HUB.local/leaf" + query, "leaf", sas("Hub.Local", "leaf", "", leaf.Primary, soon), 0},
		{"module", "hub.local/leaf/m" + query, "leaf/m", sas("hub.local", "leaf", "m", mod.Primary, soon), 0},
		{"hub of the gateway", "hub.local/gw/$edgeHub" + query, "gw/$edgeHub", sas("hub.local", "gw", "$edgeHub", hub.Primary, soon), 0},
		{"bare host as resource", "hub.local/leaf/api-version=2018-06-30", "leaf", wire.NewPolicySAS("hub.local", "", leaf.Primary, soon), 0},
		{"within the skew", "hub.local/leaf" + query, "leaf", sas("hub.local", "leaf", "", leaf.Primary, time.Now().Add(-time.Minute)), 0},
		{"expired", "hub.local/leaf" + query, "leaf", sas("hub.local", "leaf", "", leaf.Primary, past), 5},
		{"wrong key", "hub.local/leaf" + query, "leaf", sas("hub.local", "leaf", "", mod.Primary, soon), 5},
		{"empty key of one without", "hub.local/half" + query, "half", sas("hub.local", "half", "", nil, soon), 5},
		{"empty key", "hub.local/leaf" + query, "leaf", sas("hub.local", "leaf", "", nil, soon), 5},
		{"token of another", "hub.local/leaf" + query, "leaf", sas("hub.local", "plain", "", leaf.Primary, soon), 5},
		{"token of another hub", "hub.local/leaf" + query, "leaf", sas("else", "leaf", "", leaf.Primary, soon), 5},
		{"user name of another hub", "else/leaf" + query, "leaf", sas("hub.local", "leaf", "", leaf.Primary, soon), 5},
		{"no token", "hub.local/leaf" + query, "leaf", "secret", 5},
		{"client id of another", "hub.local/leaf" + query, "plain", sas("hub.local", "leaf", "", leaf.Primary, soon), 5},
		{"client id in capitals", "hub.local/leaf" + query, "LEAF", sas("hub.local", "leaf", "", leaf.Primary, soon), 5},
		{"unknown", "hub.local/nobody" + query, "nobody", sas("hub.local", "nobody", "", leaf.Primary, soon), 5},
		{"disabled", "hub.local/off" + query, "off", sas("hub.local", "off", "", leaf.Primary, soon), 5},
		{"no api-version", "hub.local/leaf/?", "leaf", sas("hub.local", "leaf", "", leaf.Primary, soon), 3},
		{"account name", "leaf", "leaf", sas("hub.local", "leaf", "", leaf.Primary, soon), 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := dial(t, h)
			if code := p.enter(connectPacket(c.user, c.id, c.password)); code != c.code {
				t.Fatalf("code %d, want %d", code, c.code)
			}
			if c.code != 0 {
				p.expectEnd()
			}
		})
	}
}

func TestConnectOnBehalfOf(t *testing.T) {
	h := household(t)
	for _, c := range []struct {
		name  string
		chain []string
		code  byte
		via   string
	}{
		{"leaf", []string{"leaf", "gw"}, 0, "gw/$edgeHub"},
		{"module of a leaf", []string{"leaf/m", "leaf", "gw"}, 0, "gw/$edgeHub"},
		{"module of the gateway", []string{"gw/mod", "gw"}, 0, "gw/$edgeHub"},
		{"the hub for itself", []string{"gw/$edgeHub", "gw"}, 0, ""},
		{"two gateways", []string{"grandchild", "child", "gw"}, 0, "gw/$edgeHub"},
		{"a gateway between left out", []string{"grandchild", "gw"}, 5, ""},
		{"not its gateway", []string{"leaf", "other"}, 5, ""},
		{"disabled leaf", []string{"off", "gw"}, 5, ""},
		{"parent is no gateway", []string{"behindplain", "plain"}, 5, ""},
		{"no parent", []string{"plain", "gw"}, 5, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := dial(t, h)
			if code := p.enter(h.helloFor(c.chain...)); code != c.code {
				t.Fatalf("code %d, want %d", code, c.code)
			}
			if c.code != 0 {
				return
			}
			device, module := wire.SplitID(c.chain[0])
			n := h.Count()
			p.publish(wire.TelemetryTopic(device, module, ""), 1, 1, "x")
			p.expect(packets.Puback)
			if m := h.MessagesAfter(n, 1)[0]; m.Device != device || m.Module != module || m.Via != c.via {
				t.Errorf("message of %s/%s via %q, want %s via %q", m.Device, m.Module, m.Via, c.chain[0], c.via)
			}
		})
	}
	t.Run("chain of another", func(t *testing.T) {
		hello := h.helloFor("leaf", "gw")
		u, _ := wire.ParseUser(string(hello.Connect.Username))
		u.AuthChain = []string{"leaf/m", "leaf", "gw"}
		hello.Connect.Username = []byte(u.String())
		if code := dial(t, h).enter(hello); code != notAuthorized {
			t.Errorf("code %d, want %d", code, notAuthorized)
		}
	})
	t.Run("key of the leaf", func(t *testing.T) {
		hello := h.helloFor("leaf", "gw")
		hello.Connect.Password = h.hello("leaf").Connect.Password
		if code := dial(t, h).enter(hello); code != notAuthorized {
			t.Errorf("code %d, want %d", code, notAuthorized)
		}
	})
}

func TestChangeOfRegistryClosesConnections(t *testing.T) {
	h := household(t)
	enter := func(hello *packets.Packet) *peer {
		p := dial(t, h)
		if code := p.enter(hello); code != accepted {
			t.Fatalf("code %d, want 0", code)
		}
		return p
	}
	leaf, behind := enter(h.helloFor("leaf", "gw")), enter(h.helloFor("leaf/m", "leaf", "gw"))
	plain := enter(h.hello("plain"))
	h.Put(Device{ID: "leaf", Parent: "gw", Disabled: true})
	leaf.expectEnd()
	behind.expectEnd()
	plain.expectSilence()
	h.Remove("plain")
	plain.expectEnd()
	h.Put(Device{ID: "leaf", Parent: "gw"})
	leaf = enter(h.helloFor("leaf", "gw"))
	h.Put(Device{ID: "leaf", Parent: "other"})
	leaf.expectEnd()
	leaf = enter(h.hello("leaf"))
	h.Put(Device{ID: "leaf"}) // it speaks for itself: its parent does not matter
	leaf.expectSilence()
	h.Put(Device{ID: "leaf", Secondary: []byte("new")}) // it has signed with the other
	leaf.expectSilence()
	h.Put(Device{ID: "leaf", Primary: []byte("new")})
	leaf.expectEnd()
}

// TestTokenEnds: a gateway must renew its tokens on connections that stay.
func TestTokenEnds(t *testing.T) {
	h := household(t)
	d, _ := h.registry.get("leaf")
	hello := h.hello("leaf")
	end := time.Now().Add(2*time.Second - wire.Skew).Truncate(time.Second) // 1 to 2 s from now, with the skew
	hello.Connect.Password = []byte(wire.NewSAS("hub.local", "leaf", "", d.Primary, end))
	p := dial(t, h)
	if code := p.enter(hello); code != accepted {
		t.Fatalf("code %d", code)
	}
	p.expectSilence()
	p.expectEnd()
	if late := time.Since(end.Add(wire.Skew)); late < 0 || late > 5*time.Second {
		t.Errorf("closed %s after the end", late)
	}
}

func TestPutKeepsWhatIsNotGiven(t *testing.T) {
	h := start(t, Config{})
	a := h.Put(Device{ID: "a"})
	if len(a.Primary) == 0 || len(a.Secondary) == 0 || a.Generation == "" || a.ETag == "" {
		t.Fatalf("stored %+v", a)
	}
	b := h.Put(Device{ID: "a", Disabled: true, Secondary: []byte("new")})
	if string(b.Primary) != string(a.Primary) || string(b.Secondary) != "new" || b.Generation != a.Generation || b.ETag == a.ETag {
		t.Errorf("stored %+v, before %+v", b, a)
	}
	if h.ConnectionString("nobody") != "" {
		t.Error("connection string of nobody")
	}
	h.Put(Device{ID: "x/m", Primary: []byte("secret")})
	if got, want := h.ConnectionString("x/m"), "HostName=hub.local;DeviceId=x;ModuleId=m;SharedAccessKey=c2VjcmV0"; got != want {
		t.Errorf("connection string %s, want %s", got, want)
	}
	if _, ok := h.registry.get("x"); !ok {
		t.Error("device of the module is not registered")
	}
	h.Remove("x")
	if _, ok := h.registry.get("x/m"); ok {
		t.Error("module has outlived its device")
	}
}
