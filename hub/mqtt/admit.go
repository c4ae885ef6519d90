package mqtt

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"holdfast.dev/holdfast/hub"
	"holdfast.dev/holdfast/hub/wire"
)

// gateTimeout is how long a credential may take to be judged: an identity that is
// not known yet may be asked for in the cloud.
const gateTimeout = 20 * time.Second

// refusal is a CONNACK that is not 0: its code for 3.1.1 (IoT Hub SDKs try again
// after 3 and give up after 4 and 5) and for MQTT 5, and why, for count and log.
type refusal struct {
	old, new byte
	reason   string
	detail   error
}

var errFull = errors.New("max_clients are connected")

// connect reads CONNECT, judges it, and puts one of ours into rest for mochi.
func (c *conn) connect() error {
	head, body, err := c.packet(maxConnect)
	if err == nil && head>>4 != packets.Connect {
		err = protocol("first packet is not CONNECT")
	}
	if err == nil {
		err = check(0, head, body)
	}
	if m, ok := errors.AsType[*malformed](err); ok {
		c.who = c.RemoteAddr().String()
		c.version = v311
		if len(body) > 6 && string(body[2:6]) == "MQTT" && body[6] >= v5 {
			c.version = v5
		}
		if m.code == codeVersion {
			return c.turnAway(refusal{1, codeVersion, "version", m})
		}
		c.hangUp(cause{"malformed", m.code, m})
		return c.farewell()
	}
	if err != nil {
		return err
	}
	pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Connect, Remaining: len(body)}}
	if err := pk.ConnectDecode(slices.Clone(body)); err != nil {
		return err
	}
	c.place.speaks()
	c.buf = nil // it held a password
	c.version, c.who = pk.ProtocolVersion, pk.Connect.ClientIdentifier
	if r := c.admit(&pk); r != nil {
		return c.turnAway(*r)
	}
	c.place.leave()
	c.Conn.SetReadDeadline(time.Time{})
	return nil
}

func (c *conn) turnAway(r refusal) error {
	c.b.refused(c.who, r.reason, r.detail)
	c.linger()
	if c.version == v5 {
		c.write([]byte{packets.Connack << 4, 3, 0, r.new, 0})
	} else {
		c.write([]byte{packets.Connack << 4, 2, 0, r.old})
	}
	return io.EOF
}

// admit asks the Gate who it is and attaches the connection to its session.
func (c *conn) admit(pk *packets.Packet) *refusal {
	c.hub = c.b.running()
	switch {
	case c.hub == nil:
		return &refusal{3, codeUnavailable, "not ready", errors.New("the gateway is still starting")}
	case pk.Properties.AuthenticationMethod != "":
		return &refusal{5, codeBadMethod, "not authorized", errors.New("enhanced authentication is not offered")}
	}
	ctx, cancel := context.WithTimeout(c.ctx, gateTimeout)
	defer cancel()
	var r *refusal
	var key string
	if name := string(pk.Connect.Username); wire.IsUser(name) {
		key, r = c.admitDevice(ctx, pk, name)
	} else {
		key, r = c.admitAccount(ctx, pk, name)
	}
	if r != nil {
		return r
	}
	expiry, props := c.terms(pk)
	present, err := c.b.attach(c, key, c.account.Name, pk.Connect.Clean, expiry)
	switch {
	case errors.Is(err, errFull):
		return &refusal{3, codeBusy, "full", err}
	case errors.Is(err, errSessions):
		return &refusal{3, codeQuota, "sessions", err}
	case err != nil:
		return &refusal{2, codeClientID, "client id", err}
	}
	if err := c.awaitSession(ctx); err != nil {
		c.session.end(c)
		return &refusal{3, codeUnavailable, "not kept", err}
	}
	// The identity may have been taken away since the Gate was asked, and whoever
	// went through the connections for it cannot have seen this one.
	if c.device != "" && !c.b.gate.Known(c.device) {
		c.session.end(c)
		return &refusal{5, codeNotAuthorized, "not authorized", errors.New("identity is disabled or gone")}
	}
	return c.welcome(present, props)
}

// awaitSession waits until a new session is on disk: what comes on the connection is
// written beside it, and may not be there without it.
func (c *conn) awaitSession(ctx context.Context) error {
	if c.kept == nil {
		return nil
	}
	select {
	case err := <-c.kept:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *conn) admitDevice(ctx context.Context, pk *packets.Packet, name string) (key string, r *refusal) {
	u, err := wire.ParseUser(name)
	switch {
	case err != nil:
		return "", &refusal{4, codeBadPassword, "user name", err}
	case c.version != v311:
		return "", &refusal{1, codeVersion, "version", errors.New("IoT Hub clients speak MQTT 3.1.1")}
	case pk.Connect.ClientIdentifier != u.ClientID():
		return "", &refusal{5, codeNotAuthorized, "foreign id", fmt.Errorf("client id is not %q, as the user name says", u.ClientID())}
	}
	id, err := c.b.gate.Device(ctx, u, string(pk.Connect.Password))
	if err != nil {
		return "", c.notProven(name, err)
	}
	c.device = id
	if pk.Connect.WillFlag {
		props, err := c.ownTelemetry(pk.Connect.WillTopic)
		if err != nil {
			return "", &refusal{5, codeNotAuthorized, "foreign id", fmt.Errorf("will: %w", err)}
		}
		c.will = &will{m: hub.Message{From: id, QoS: min(pk.Connect.WillQos, 1), Body: pk.Connect.WillPayload,
			Props: props.With("iothub-MessageType", "Will")}}
	}
	return "device\x00" + string(id), nil
}

func (c *conn) admitAccount(ctx context.Context, pk *packets.Packet, name string) (key string, r *refusal) {
	id := pk.Connect.ClientIdentifier
	switch {
	case name == "":
		return "", &refusal{5, codeNotAuthorized, "not authorized", errors.New("anonymous clients are not let in: user name and password are missing")}
	case reserved(id):
		return "", &refusal{2, codeClientID, "client id", fmt.Errorf("client id %q is reserved", id)}
	case len(id) > maxClientID:
		return "", &refusal{2, codeClientID, "client id", fmt.Errorf("client id has %d bytes, at most %d are allowed", len(id), maxClientID)}
	case id == "" && c.version != v5 && !pk.Connect.Clean:
		return "", &refusal{2, codeClientID, "client id", errors.New("a session that is to be kept needs a client id")}
	case id == "":
		c.who = "auto-" + rand.Text()
		pk.Properties.AssignedClientID = c.who
	}
	account, err := c.b.gate.Account(ctx, name, string(pk.Connect.Password))
	if err != nil {
		return "", c.notProven(name, err)
	}
	c.account = account
	if pk.Connect.WillFlag {
		t := pk.Connect.WillTopic
		if reserved(t) || !anyMatches(account.Publish, t) {
			return "", &refusal{5, codeNotAuthorized, "not authorized", fmt.Errorf("will: account %s may not publish on %q", name, t)}
		}
		c.will = c.localWill(pk)
	}
	return "client\x00" + c.who, nil
}

// gateRefusal tells "the credential is bad" from "I cannot tell yet".
func gateRefusal(err error) *refusal {
	if errors.Is(err, hub.ErrUnauthorized) {
		return &refusal{5, codeBadPassword, "not authorized", err}
	}
	return &refusal{3, codeUnavailable, "unsure", err}
}

// terms settles keep alive, session expiry and the limits of both sides. props
// are those of our CONNACK on MQTT 5.
func (c *conn) terms(pk *packets.Packet) (expiry time.Duration, props packets.Properties) {
	asked, most := time.Duration(pk.Connect.Keepalive)*time.Second, c.b.keepAlive
	granted := asked
	if asked > most || asked == 0 && (c.device != "" || c.version == v5) {
		granted = most
	}
	c.keepAlive = granted * 3 / 2 // [MQTT-3.1.2-24], and [MQTT-3.1.2-22] of MQTT 5
	if c.version != v5 {
		if !pk.Connect.Clean {
			expiry = c.b.sessionExpiry
		}
		return expiry, props
	}
	p := pk.Properties
	c.window = maxWindow
	if p.ReceiveMaximum > 0 {
		c.window = min(int(p.ReceiveMaximum), maxWindow)
	}
	if p.MaximumPacketSize > 0 {
		c.maxOut = int(p.MaximumPacketSize)
	}
	expiry = c.b.expiryOf(p.SessionExpiryInterval)
	props = packets.Properties{
		ReceiveMaximum: uint16(c.b.window), TopicAliasMaximum: maxAlias, MaximumPacketSize: maxPacket,
		AssignedClientID: p.AssignedClientID,
	}
	if granted != asked {
		props.ServerKeepAlive, props.ServerKeepAliveFlag = uint16(granted/time.Second), true
	}
	if expiry < time.Duration(p.SessionExpiryInterval)*time.Second {
		props.SessionExpiryInterval, props.SessionExpiryIntervalFlag = uint32(expiry/time.Second), true
	}
	return expiry, props
}

// welcome makes the two packets of a connection that is let in: CONNACK for the
// client, to be written when mochi writes its own, and CONNECT for mochi.
func (c *conn) welcome(present bool, props packets.Properties) *refusal {
	ack := packets.Packet{ProtocolVersion: c.version, FixedHeader: packets.FixedHeader{Type: packets.Connack}, SessionPresent: present, Properties: props}
	hello := packets.Packet{ProtocolVersion: c.version, FixedHeader: packets.FixedHeader{Type: packets.Connect}}
	hello.Connect = packets.ConnectParams{ProtocolName: []byte("MQTT"), Clean: true, Keepalive: 60, ClientIdentifier: c.id}
	var a, h bytes.Buffer
	if err := errors.Join(ack.ConnackEncode(&a), hello.ConnectEncode(&h)); err != nil {
		return &refusal{3, codeUnavailable, "unsure", err} // it has no way to fail
	}
	c.connack, c.rest = a.Bytes(), h.Bytes()
	return nil
}

// established is called when CONNACK is written: from here on the client may be
// written to.
func (c *conn) established() {
	c.mu.Lock()
	c.pumping = true
	c.mu.Unlock()
	go c.pump()
	c.session.listen(c)
	c.poke() // for what waited, and for a cause that came meanwhile
}
