package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
)

const (
	connectTimeout = 10 * time.Second // to be connected, TLS and CONNACK included
	writeTimeout   = 10 * time.Second // for one write: the gateway must not stop reading
	maxPacket      = 512 << 10        // bytes; more than the gateway may ever send
)

// login is how a client presents itself.
type login struct {
	addr         string
	tls          *tls.Config // nil: plain TCP
	clientID     string
	user, secret string
	keepAlive    time.Duration
	clean        bool
}

// refused is a CONNACK with a code other than 0.
type refused byte

func (r refused) Error() string {
	switch r {
	case 3:
		return "connection refused: the gateway cannot tell yet (CONNACK 3)"
	case 4, 5:
		return fmt.Sprintf("connection refused: not authorized (CONNACK %d)", byte(r))
	}
	return fmt.Sprintf("connection refused (CONNACK %d)", byte(r))
}

// conn is the client side of one MQTT 3.1.1 connection. One goroutine may read
// while others write.
type conn struct {
	nc    net.Conn
	r     *bufio.Reader
	quiet time.Duration // longest silence of the other side

	mu  sync.Mutex
	w   *bufio.Writer
	buf bytes.Buffer // of one packet
}

// dial connects and waits for the CONNACK. ctx bounds only that; the connection
// is the caller's to close.
func dial(ctx context.Context, l login) (*conn, error) {
	short, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	nc, err := dialNet(short, l)
	if err != nil {
		return nil, fmt.Errorf("connect %s: %w", l.clientID, err)
	}
	c := &conn{nc: nc, r: bufio.NewReaderSize(nc, 16<<10), w: bufio.NewWriterSize(nc, 32<<10), quiet: connectTimeout}
	stop := context.AfterFunc(short, func() { nc.Close() })
	err = c.hello(l)
	if !stop() && err == nil {
		err = short.Err()
	}
	if err != nil {
		c.close()
		return nil, fmt.Errorf("connect %s: %w", l.clientID, err)
	}
	c.quiet = l.keepAlive * 3 / 2
	return c, nil
}

func dialNet(ctx context.Context, l login) (net.Conn, error) {
	if l.tls != nil {
		return (&tls.Dialer{Config: l.tls}).DialContext(ctx, "tcp", l.addr)
	}
	return (&net.Dialer{}).DialContext(ctx, "tcp", l.addr)
}

func (c *conn) hello(l login) error {
	err := c.writeNow(&packets.Packet{
		FixedHeader:     packets.FixedHeader{Type: packets.Connect},
		ProtocolVersion: 4,
		Connect: packets.ConnectParams{
			ProtocolName:     []byte("MQTT"),
			ClientIdentifier: l.clientID,
			Clean:            l.clean,
			Keepalive:        uint16(l.keepAlive / time.Second),
			UsernameFlag:     true, Username: []byte(l.user),
			PasswordFlag: true, Password: []byte(l.secret),
		},
	})
	if err != nil {
		return err
	}
	pk, err := c.read()
	if err != nil {
		return err
	}
	if pk.FixedHeader.Type != packets.Connack {
		return fmt.Errorf("want CONNACK, got %s", packets.PacketNames[pk.FixedHeader.Type])
	}
	if pk.ReasonCode != 0 {
		return refused(pk.ReasonCode)
	}
	return nil
}

// write puts a packet into the buffer; flush sends it.
func (c *conn) write(pk *packets.Packet) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.buf.Reset()
	if err := encode(pk, &c.buf); err != nil {
		return err
	}
	c.nc.SetWriteDeadline(time.Now().Add(writeTimeout))
	_, err := c.w.Write(c.buf.Bytes())
	return err
}

// writeNow writes and flushes.
func (c *conn) writeNow(pk *packets.Packet) error {
	if err := c.write(pk); err != nil {
		return err
	}
	return c.flush()
}

func encode(pk *packets.Packet, buf *bytes.Buffer) error {
	switch pk.FixedHeader.Type {
	case packets.Connect:
		return pk.ConnectEncode(buf)
	case packets.Publish:
		return pk.PublishEncode(buf)
	case packets.Puback:
		return pk.PubackEncode(buf)
	case packets.Subscribe:
		return pk.SubscribeEncode(buf)
	case packets.Pingreq:
		return pk.PingreqEncode(buf)
	case packets.Disconnect:
		return pk.DisconnectEncode(buf)
	}
	return fmt.Errorf("a client does not send %s", packets.PacketNames[pk.FixedHeader.Type])
}

func (c *conn) flush() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nc.SetWriteDeadline(time.Now().Add(writeTimeout))
	return c.w.Flush()
}

func (c *conn) publish(topic string, id uint16, body []byte) error {
	return c.write(&packets.Packet{
		FixedHeader:     packets.FixedHeader{Type: packets.Publish, Qos: 1},
		ProtocolVersion: 4,
		TopicName:       topic,
		PacketID:        id,
		Payload:         body,
	})
}

func (c *conn) ping() error {
	return c.writeNow(&packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Pingreq}})
}

// disconnect says goodbye, as well as it can.
func (c *conn) disconnect() {
	_ = c.writeNow(&packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Disconnect}, ProtocolVersion: 4})
}

func (c *conn) close() { c.nc.Close() }

// read waits for the next packet that a broker may send.
func (c *conn) read() (packets.Packet, error) {
	pk := packets.Packet{ProtocolVersion: 4}
	if c.r.Buffered() == 0 {
		c.nc.SetReadDeadline(time.Now().Add(c.quiet))
	}
	head, err := c.r.ReadByte()
	if err != nil {
		return pk, err
	}
	if err := pk.FixedHeader.Decode(head); err != nil {
		return pk, err
	}
	n, _, err := packets.DecodeLength(c.r)
	if err != nil {
		return pk, err
	}
	if n > maxPacket {
		return pk, fmt.Errorf("packet of %d bytes is too long", n)
	}
	pk.FixedHeader.Remaining = n
	body := make([]byte, n)
	if _, err := io.ReadFull(c.r, body); err != nil {
		return pk, err
	}
	err = decode(&pk, body)
	return pk, err
}

func decode(pk *packets.Packet, body []byte) error {
	switch pk.FixedHeader.Type {
	case packets.Connack:
		return pk.ConnackDecode(body)
	case packets.Publish:
		return pk.PublishDecode(body)
	case packets.Puback:
		return pk.PubackDecode(body)
	case packets.Suback:
		return pk.SubackDecode(body)
	case packets.Pingresp:
		return nil
	}
	return fmt.Errorf("a broker does not send %s", packets.PacketNames[pk.FixedHeader.Type])
}
