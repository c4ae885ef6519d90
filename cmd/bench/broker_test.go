package main

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"sync"
	"testing"

	"github.com/mochi-mqtt/server/v2/packets"
)

// peer is the broker's side of one connection, for fakes.
type peer struct {
	nc net.Conn
	r  *bufio.Reader
	mu sync.Mutex
}

func newPeer(nc net.Conn) *peer { return &peer{nc: nc, r: bufio.NewReader(nc)} }

// read gives the next packet that a client may send.
func (p *peer) read() (packets.Packet, error) {
	pk := packets.Packet{ProtocolVersion: 4}
	head, err := p.r.ReadByte()
	if err != nil {
		return pk, err
	}
	if err := pk.FixedHeader.Decode(head); err != nil {
		return pk, err
	}
	n, _, err := packets.DecodeLength(p.r)
	if err != nil {
		return pk, err
	}
	pk.FixedHeader.Remaining = n
	b := make([]byte, n)
	if _, err := io.ReadFull(p.r, b); err != nil {
		return pk, err
	}
	switch pk.FixedHeader.Type {
	case packets.Connect:
		err = pk.ConnectDecode(b)
	case packets.Publish:
		err = pk.PublishDecode(b)
	case packets.Subscribe:
		err = pk.SubscribeDecode(b)
	case packets.Puback:
		err = pk.PubackDecode(b)
	}
	return pk, err
}

func (p *peer) write(pk packets.Packet) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var b bytes.Buffer
	pk.ProtocolVersion = 4
	var err error
	switch pk.FixedHeader.Type {
	case packets.Connack:
		err = pk.ConnackEncode(&b)
	case packets.Publish:
		err = pk.PublishEncode(&b)
	case packets.Puback:
		err = pk.PubackEncode(&b)
	case packets.Suback:
		err = pk.SubackEncode(&b)
	case packets.Pingresp:
		err = pk.PingrespEncode(&b)
	}
	if err == nil {
		_, err = p.nc.Write(b.Bytes())
	}
	return err
}

func (p *peer) connack(code byte) error {
	return p.write(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Connack}, ReasonCode: code})
}

func (p *peer) puback(id uint16) error {
	return p.write(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Puback}, PacketID: id})
}

// peers listens and gives each connection once its CONNECT was read.
func peers(t *testing.T) (addr string, next func() (*peer, packets.Packet)) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln.Addr().String(), func() (*peer, packets.Packet) {
		t.Helper()
		nc, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { nc.Close() })
		p := newPeer(nc)
		pk, err := p.read()
		if err != nil || pk.FixedHeader.Type != packets.Connect {
			t.Fatalf("first packet is %d (%v), want CONNECT", pk.FixedHeader.Type, err)
		}
		return p, pk
	}
}
