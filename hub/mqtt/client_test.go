package mqtt

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
)

// client is the far side of a connection, packet by packet.
type client struct {
	t  testing.TB
	nc net.Conn
	br *bufio.Reader
	v  byte
}

func dial(t testing.TB, b *Broker) *client {
	t.Helper()
	nc, err := net.Dial("tcp", b.Addr().String())
	if err != nil {
		t.Fatalf("dial: %v", err)
	}
	t.Cleanup(func() { nc.Close() })
	return newClient(t, nc, v311)
}

func newClient(t testing.TB, nc net.Conn, v byte) *client {
	return &client{t: t, nc: nc, br: bufio.NewReader(nc), v: v}
}

func (c *client) raw(b ...byte) {
	c.t.Helper()
	c.nc.SetWriteDeadline(time.Now().Add(patience))
	if _, err := c.nc.Write(b); err != nil {
		c.t.Logf("write: %v", err) // the answer tells
	}
}

func encode(t testing.TB, pk packets.Packet) []byte {
	t.Helper()
	var b bytes.Buffer
	var err error
	switch pk.FixedHeader.Type {
	case packets.Connect:
		err = pk.ConnectEncode(&b)
	case packets.Publish:
		err = pk.PublishEncode(&b)
	case packets.Puback:
		err = pk.PubackEncode(&b)
	case packets.Pubrec:
		err = pk.PubrecEncode(&b)
	case packets.Pubrel:
		pk.FixedHeader.Qos = 1
		err = pk.PubrelEncode(&b)
	case packets.Pubcomp:
		err = pk.PubcompEncode(&b)
	case packets.Subscribe:
		pk.FixedHeader.Qos = 1
		err = pk.SubscribeEncode(&b)
	case packets.Unsubscribe:
		pk.FixedHeader.Qos = 1
		err = pk.UnsubscribeEncode(&b)
	case packets.Pingreq:
		err = pk.PingreqEncode(&b)
	case packets.Disconnect:
		err = pk.DisconnectEncode(&b)
	case packets.Auth:
		err = pk.AuthEncode(&b)
	}
	if err != nil {
		t.Fatalf("encode %s: %v", packets.PacketNames[pk.FixedHeader.Type], err)
	}
	return b.Bytes()
}

func (c *client) send(kind byte, set func(*packets.Packet)) {
	c.t.Helper()
	pk := packets.Packet{ProtocolVersion: c.v, FixedHeader: packets.FixedHeader{Type: kind}}
	if set != nil {
		set(&pk)
	}
	c.raw(encode(c.t, pk)...)
}

func (c *client) read() (packets.Packet, error) {
	c.nc.SetReadDeadline(time.Now().Add(patience))
	var pk packets.Packet
	head, err := c.br.ReadByte()
	if err != nil {
		return pk, err
	}
	n, _, err := packets.DecodeLength(c.br)
	if err != nil {
		return pk, err
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(c.br, body); err != nil {
		return pk, err
	}
	if err := pk.FixedHeader.Decode(head); err != nil {
		return pk, err
	}
	pk.ProtocolVersion, pk.FixedHeader.Remaining = c.v, n
	switch pk.FixedHeader.Type {
	case packets.Connack:
		err = pk.ConnackDecode(body)
	case packets.Publish:
		err = pk.PublishDecode(body)
	case packets.Puback:
		err = pk.PubackDecode(body)
	case packets.Suback:
		err = pk.SubackDecode(body)
	case packets.Unsuback:
		err = pk.UnsubackDecode(body)
	case packets.Disconnect:
		err = pk.DisconnectDecode(body)
	}
	return pk, err
}

func (c *client) want(kind byte) packets.Packet {
	c.t.Helper()
	pk, err := c.read()
	if err != nil {
		c.t.Fatalf("read: %v, want %s", err, packets.PacketNames[kind])
	}
	if pk.FixedHeader.Type != kind {
		c.t.Fatalf("read %s, want %s", packets.PacketNames[pk.FixedHeader.Type], packets.PacketNames[kind])
	}
	return pk
}

// wantClosed says that the broker ends the connection without another packet.
func (c *client) wantClosed() {
	c.t.Helper()
	pk, err := c.read()
	if err == nil {
		c.t.Fatalf("read %s, want the end of the connection", packets.PacketNames[pk.FixedHeader.Type])
	}
	var ne net.Error
	if errors.As(err, &ne) && ne.Timeout() {
		c.t.Fatalf("connection is still open")
	}
}

func (c *client) connect(id, user, password string, set func(*packets.Packet)) packets.Packet {
	c.t.Helper()
	c.send(packets.Connect, func(pk *packets.Packet) {
		pk.Connect = packets.ConnectParams{ProtocolName: []byte("MQTT"), ClientIdentifier: id, Clean: true, Keepalive: 60}
		if user != "" {
			pk.Connect.UsernameFlag, pk.Connect.Username = true, []byte(user)
			pk.Connect.PasswordFlag, pk.Connect.Password = true, []byte(password)
		}
		if set != nil {
			set(pk)
		}
	})
	return c.want(packets.Connack)
}

func deviceUser(id string) string { return "hub.local/" + id + "/?api-version=2021-04-12" }

// device is a connected IoT Hub device.
func device(t testing.TB, b *Broker, id string) *client {
	t.Helper()
	c := dial(t, b)
	if ack := c.connect(id, deviceUser(id), "key", nil); ack.ReasonCode != 0 {
		t.Fatalf("CONNACK %d for %s", ack.ReasonCode, id)
	}
	return c
}

// ordinary is a connected ordinary client.
func ordinary(t testing.TB, b *Broker, v byte, id, account string, set func(*packets.Packet)) *client {
	t.Helper()
	c := dial(t, b)
	c.v = v
	if ack := c.connect(id, account, "secret", set); ack.ReasonCode != 0 {
		t.Fatalf("CONNACK %#x for %s", ack.ReasonCode, id)
	}
	return c
}

func (c *client) publish(topic string, qos byte, id uint16, body string) {
	c.t.Helper()
	c.send(packets.Publish, func(pk *packets.Packet) {
		pk.FixedHeader.Qos, pk.PacketID, pk.TopicName, pk.Payload = qos, id, topic, []byte(body)
	})
}

func (c *client) subscribe(filter string, qos byte) byte {
	c.t.Helper()
	c.send(packets.Subscribe, func(pk *packets.Packet) {
		pk.PacketID, pk.Filters = 9, packets.Subscriptions{{Filter: filter, Qos: qos}}
	})
	return c.want(packets.Suback).ReasonCodes[0]
}

// ping waits until the broker has dealt with all that was sent before.
func (c *client) ping() {
	c.t.Helper()
	c.send(packets.Pingreq, nil)
	c.want(packets.Pingresp)
}

func (c *client) puback(id uint16) {
	c.t.Helper()
	c.send(packets.Puback, func(pk *packets.Packet) { pk.PacketID = id })
}
