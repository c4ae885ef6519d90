package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"time"

	"holdfast.dev/holdfast/hub/identity"
	"holdfast.dev/holdfast/hub/wire"
)

const (
	gatewayID = "gw"
	keepAlive = 60 * time.Second
	tokenLife = time.Hour
)

// member is a device as it is registered: an IoT Hub device with a key, or an
// ordinary MQTT client with an account.
type member struct {
	name     string
	ordinary bool
	tls      bool   // connects through TLS
	hubID    string // identity that its messages arrive as
	key      string // base64; of an account: its password
}

// members plans n devices: every second one through TLS, and at the end one or two
// ordinary clients, the first with a device identity of its own in the cloud, the
// second without, so that its messages go up as the gateway's.
func members(n int) []member {
	out := make([]member, n)
	ordinary := min(2, n/3)
	for i := range out {
		m := member{name: fmt.Sprintf("d%02d", i+1), tls: i%2 == 1, key: newKey()}
		if p := i - (n - ordinary); p >= 0 {
			m = member{name: fmt.Sprintf("p%02d", p+1), tls: i%2 == 1, key: newKey(), ordinary: true}
			if p == 1 {
				m.hubID = gatewayID
			}
		}
		if m.hubID == "" {
			m.hubID = m.name
		}
		out[i] = m
	}
	return out
}

// kind is the member in words.
func (m member) kind() string {
	s := "IoT Hub device"
	if m.ordinary && m.hubID == m.name {
		s = "MQTT account"
	} else if m.ordinary {
		s = "MQTT, as " + m.hubID
	}
	if m.tls {
		s += ", TLS"
	}
	return s
}

// registered is the member as hubsim's --device wants it, "" if the cloud does not know it.
func (m member) registered() string {
	if m.hubID == gatewayID {
		return ""
	}
	key := m.key
	if m.ordinary {
		key = newKey() // a password is none
	}
	return m.name + ",parent=" + gatewayID + ",key=" + key
}

// account is the member, or anybody, as the gateway's configuration wants it.
func account(name, password, device string, publish, subscribe []string) (accountConfig, error) {
	hash, err := identity.Hash([]byte(password))
	if err != nil {
		return accountConfig{}, fmt.Errorf("hash the password of %s: %w", name, err)
	}
	return accountConfig{Name: name, Password: hash, Device: device, Publish: publish, Subscribe: subscribe}, nil
}

// device makes the publisher of the member.
func (m member) device(p profile, g *gateway, secure *tls.Config, t *tally) (*device, error) {
	rec := &record{name: m.name, kind: m.kind(), hubID: m.hubID, mid: !m.ordinary, payload: p.payload}
	t.add(rec)
	d := newDevice(m.name, p.window, rec)
	d.onAck = func() { t.acked.Add(1) }
	base := login{addr: g.mqtt, clientID: m.name, user: m.name, secret: m.key, keepAlive: keepAlive}
	if m.tls {
		base.addr, base.tls = g.tls, secure
	}
	d.login = func() login { return base }
	d.topic = func(int) string { return "plant/" + m.name + "/data" }
	if m.ordinary {
		return d, nil
	}
	key, err := wire.DecodeKey(m.key)
	if err != nil {
		return nil, fmt.Errorf("device %s: %w", m.name, err)
	}
	base.user = wire.User{Host: hubHost, Device: m.name, APIVersion: "2021-04-12", ClientType: "holdfast-bench"}.String()
	d.login = func() login {
		l := base
		l.secret = wire.NewSAS(hubHost, m.name, "", key, time.Now().Add(tokenLife))
		return l
	}
	d.topic = func(n int) string {
		return wire.TelemetryTopic(m.name, "", wire.NewBag(wire.MessageID, messageID(m.name, n)))
	}
	return d, nil
}

// trust reads the authority that the gateway has made for itself.
func trust(caFile string) (*tls.Config, error) {
	pem, err := os.ReadFile(caFile)
	if err != nil {
		return nil, fmt.Errorf("read the gateway's certificate authority: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, errors.New("read the gateway's certificate authority: no certificate in " + caFile)
	}
	return &tls.Config{RootCAs: roots, ServerName: "localhost", ClientSessionCache: tls.NewLRUClientSessionCache(64)}, nil
}
