package mqtt

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"holdfast.dev/holdfast/hub"
	"holdfast.dev/holdfast/hub/identity"
	"holdfast.dev/holdfast/hub/wire"
)

// FuzzPackets feeds bytes to a broker, after CONNECT or as the first, and then
// asks whether it still serves another client. A panic that mochi cannot contain
// ends the process and so the test; one that is contained to a connection is
// found in the log.
func FuzzPackets(f *testing.F) {
	for _, v := range []byte{v311, v5} {
		for _, p := range specimens(f, v) {
			for _, first := range []bool{false, true} {
				f.Add(v, first, p)
				f.Add(v, first, p[:len(p)-1])
				f.Add(v, first, p[:len(p)/2])
				if len(p) > 2 {
					cut := bytes.Clone(p[:len(p)-1])
					cut[1]-- // the length agrees, the content is cut
					f.Add(v, first, cut)
				}
			}
		}
		f.Add(v, false, []byte{0x82, 6, 0x12, 0x34, 0, 0, 1, 0x61})    // ends a bare mochi
		f.Add(v, false, []byte{0x30, 0xff, 0xff, 0xff, 0xff, 1})       // remaining length of five bytes
		f.Add(v, false, []byte{0x30, 5, 0, 0, 2, 0x23, 0})             // property cut
		f.Add(v, false, []byte{0xa2, 5, 0, 1, 0, 0, 9})                // filter cut
		f.Add(v, false, []byte{0x40, 2, 0, 0, 0x62, 2, 0, 1, 0xc0, 0}) // acknowledgements of nothing
	}
	h, g := newFakes()
	var panics bytes.Buffer
	log := slog.New(slog.NewTextHandler(&panics, &slog.HandlerOptions{Level: slog.LevelError}))
	b, err := New(Config{Listen: "off"}, stored(f, Deps{Gate: unsure{g}, Log: log}))
	if err != nil {
		f.Fatal(err)
	}
	run(f, b, h)
	f.Fuzz(func(t *testing.T, v byte, first bool, p []byte) {
		if v != v311 {
			v = v5
		}
		far, near := net.Pipe()
		served := make(chan struct{})
		go func() { b.serve(near, nil); close(served) }()
		c := newClient(t, far, v)
		if !first {
			c.send(packets.Connect, hello)
			c.want(packets.Connack)
		}
		read := make(chan struct{})
		go func() { io.Copy(io.Discard, c.br); close(read) }()
		far.SetWriteDeadline(time.Now().Add(patience))
		far.Write(p) // may well be cut short
		far.Close()
		<-read
		select {
		case <-served:
		case <-time.After(patience):
			t.Fatalf("connection does not end")
		}
		if panics.Len() > 0 {
			s := panics.String()
			panics.Reset()
			t.Fatalf("panic: %s", s)
		}
		other := pipe(t, b, v311)
		other.send(packets.Connect, func(pk *packets.Packet) { hello(pk); pk.Connect.ClientIdentifier = "other" })
		other.want(packets.Connack)
		other.publish("other", 1, 1, "x")
		other.want(packets.Puback)
		other.nc.Close()
		h.mu.Lock()
		h.messages = nil
		h.mu.Unlock()
	})
}

// specimens are good packets of every type.
func specimens(t testing.TB, v byte) (all [][]byte) {
	user := []packets.UserProperty{{Key: "k", Val: "v"}}
	add := func(kind byte, set func(*packets.Packet)) {
		pk := packets.Packet{ProtocolVersion: v, FixedHeader: packets.FixedHeader{Type: kind}, PacketID: 1}
		pk.Mods.AllowResponseInfo = true
		set(&pk)
		all = append(all, encode(t, pk))
	}
	add(packets.Connect, hello)
	add(packets.Connect, func(pk *packets.Packet) {
		hello(pk)
		k := &pk.Connect
		k.WillFlag, k.WillQos, k.WillRetain, k.WillTopic, k.WillPayload = true, 1, true, "will", []byte("w")
		k.WillProperties = packets.Properties{WillDelayInterval: 1, ContentType: "t", ResponseTopic: "r", CorrelationData: []byte{1}, User: user}
		pk.Properties = packets.Properties{SessionExpiryInterval: 10, SessionExpiryIntervalFlag: true, ReceiveMaximum: 5,
			MaximumPacketSize: 1000, TopicAliasMaximum: 5, RequestProblemInfoFlag: true, RequestResponseInfo: 1, User: user}
	})
	add(packets.Connect, func(pk *packets.Packet) {
		hello(pk)
		pk.Properties = packets.Properties{AuthenticationMethod: "m", AuthenticationData: []byte{1}}
	})
	for qos := range byte(3) {
		add(packets.Publish, func(pk *packets.Packet) {
			pk.FixedHeader.Qos, pk.FixedHeader.Retain, pk.TopicName, pk.Payload = qos, true, "a/b", []byte("x")
			pk.Properties = packets.Properties{PayloadFormatFlag: true, PayloadFormat: 1, MessageExpiryInterval: 5, ContentType: "t",
				ResponseTopic: "r", CorrelationData: []byte{1}, TopicAlias: 1, TopicAliasFlag: true, User: user}
		})
	}
	for _, kind := range []byte{packets.Puback, packets.Pubrec, packets.Pubrel, packets.Pubcomp} {
		add(kind, func(*packets.Packet) {})
		add(kind, func(pk *packets.Packet) {
			pk.ReasonCode, pk.Properties = 0x80, packets.Properties{ReasonString: "r", User: user}
		})
	}
	add(packets.Subscribe, func(pk *packets.Packet) {
		pk.Filters = packets.Subscriptions{{Filter: "a/+", Qos: 1}, {Filter: "#", Qos: 2}, {Filter: "$share/g/a"}, {Filter: "+/#"}}
		pk.Properties = packets.Properties{SubscriptionIdentifier: []int{300}, User: user}
	})
	add(packets.Unsubscribe, func(pk *packets.Packet) {
		pk.Filters = packets.Subscriptions{{Filter: "a/+"}, {Filter: "#"}}
		pk.Properties = packets.Properties{User: user}
	})
	add(packets.Pingreq, func(*packets.Packet) {})
	add(packets.Disconnect, func(pk *packets.Packet) {
		pk.ReasonCode, pk.Properties = 4, packets.Properties{SessionExpiryInterval: 5, SessionExpiryIntervalFlag: true, ReasonString: "r", User: user}
	})
	add(packets.Auth, func(pk *packets.Packet) {
		pk.ReasonCode, pk.Properties = 0x18, packets.Properties{AuthenticationMethod: "m", AuthenticationData: []byte{1}}
	})
	// What only servers send.
	return append(all, []byte{0x20, 2, 0, 0}, []byte{0x90, 3, 0, 1, 0}, []byte{0xb0, 2, 0, 1}, []byte{0xd0, 0}, []byte{0, 0})
}

// unsure never says that a credential is wrong: the answer to that is held back, longer
// each time.
type unsure struct{ Gate }

func (g unsure) Device(ctx context.Context, u wire.User, password string) (hub.Identity, error) {
	id, err := g.Gate.Device(ctx, u, password)
	return id, doubt(err)
}

func (g unsure) Account(ctx context.Context, name, password string) (identity.Account, error) {
	a, err := g.Gate.Account(ctx, name, password)
	return a, doubt(err)
}

func doubt(err error) error {
	if errors.Is(err, hub.ErrUnauthorized) {
		return hub.ErrUnsure
	}
	return err
}
