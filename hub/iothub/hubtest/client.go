package hubtest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"holdfast.dev/holdfast/hub/wire"
)

// transport is a connection that MQTT runs over: TLS, or WebSocket messages.
type transport interface {
	io.ReadWriter
	SetReadDeadline(time.Time) error
	// abort closes it at once, from any goroutine, and never waits for the peer.
	abort()
}

// client is one MQTT connection that has been let in.
type client struct {
	h     *Hub
	from  *sender
	user  wire.User
	token string // kept to be judged again when the registry changes
	conn  transport
	kind  string // "mqtt" or "websocket"
	since time.Time
	out   *outbox
	acks  *acker
	ctx   context.Context // ends with the connection
	stop  context.CancelFunc
	once  sync.Once

	heard   int                // telemetry messages; of the reading goroutine
	will    *packets.Packet    // sent when the client goes without a word
	idle    time.Duration      // how long it may be silent; 0: for ever
	deliver sync.Mutex         // held while letters are handed out, to keep their order
	posted  map[uint16]*letter // cloud-to-device messages under way; guarded by h.mu
	nextID  uint16             // guarded by h.mu
}

// maxKeepAlive is the longest keep-alive IoT Hub allows, times one and a half.
const maxKeepAlive = 1767 * time.Second

// serve runs one connection from its first byte to its end.
func (h *Hub) serve(conn transport, kind string) {
	defer conn.abort()
	conn.SetReadDeadline(time.Now().Add(h.connectWait)) // if that fails, so will reading
	r := bufio.NewReaderSize(conn, 16<<10)
	pk, err := readPacket(r)
	if err != nil || pk.FixedHeader.Type != packets.Connect {
		h.log.Debug("connection without CONNECT", "transport", kind, "error", err)
		return
	}
	c, no := h.admit(&pk, conn, kind)
	if no != nil {
		h.log.Info("client refused", "client", pk.Connect.ClientIdentifier, "code", no.code, "reason", no.why)
		conn.Write(connack(no.code, false)) // it is leaving either way
		linger(conn)
		return
	}
	defer c.leave()
	var written sync.WaitGroup
	defer written.Wait()
	defer c.close(nil) // before waiting
	written.Go(func() { c.close(c.out.run(conn, c.ctx.Done())) })
	written.Go(func() { c.acks.run(c.ctx) })
	expiry := time.AfterFunc(time.Until(c.from.until), func() { c.close(errors.New("token has expired")) })
	defer expiry.Stop()
	c.welcome(pk.Connect.Clean)
	c.close(c.read(r))
}

// lingerWait is how long a client that is refused may take to leave.
const lingerWait = 250 * time.Millisecond

// linger reads until the peer closes: closing first, with something unread, would
// be a reset, and that can overtake the answer.
func linger(conn transport) {
	conn.SetReadDeadline(time.Now().Add(lingerWait)) // if that fails, so will reading
	io.Copy(io.Discard, conn)
}

// admit judges a CONNECT and makes the client of it.
func (h *Hub) admit(pk *packets.Packet, conn transport, kind string) (*client, *refusal) {
	if string(pk.Connect.ProtocolName) != "MQTT" || pk.ProtocolVersion != 4 {
		return nil, &refusal{badVersion, fmt.Errorf("protocol %q level %d, want MQTT 3.1.1", pk.Connect.ProtocolName, pk.ProtocolVersion)}
	}
	from, user, no := h.authenticate(string(pk.Connect.Username), pk.Connect.ClientIdentifier, string(pk.Connect.Password))
	if no != nil {
		return nil, no
	}
	c := &client{h: h, from: from, user: user, token: string(pk.Connect.Password), conn: conn, kind: kind, since: time.Now(), out: newOutbox(), posted: map[uint16]*letter{}}
	c.acks = newAcker(c)
	c.ctx, c.stop = context.WithCancel(context.Background())
	if k := time.Duration(pk.Connect.Keepalive) * time.Second * 3 / 2; k > 0 {
		c.idle = min(k, maxKeepAlive)
	}
	if pk.Connect.WillFlag {
		c.will = &packets.Packet{TopicName: pk.Connect.WillTopic, Payload: pk.Connect.WillPayload}
		c.will.FixedHeader.Qos = min(pk.Connect.WillQos, 1)
		if _, err := c.telemetry(c.will); err != nil {
			return nil, &refusal{notAuthorized, fmt.Errorf("will: %w", err)}
		}
	}
	return c, nil
}

// write puts a packet on its way.
func (c *client) write(packet []byte) {
	if !c.out.put(packet) {
		c.close(errors.New("client does not read"))
	}
}

// close ends the connection; the first reason given counts.
func (c *client) close(reason error) {
	c.once.Do(func() {
		c.stop()
		c.conn.abort()
		c.h.log.Debug("client leaves", "id", c.from.id, "via", c.from.via, "reason", reason)
	})
}

// errGoodbye is the reason of a client that said DISCONNECT.
var errGoodbye = errors.New("said goodbye")

// read handles packets until one of them, or the lack of one, ends the connection.
func (c *client) read(r io.Reader) error {
	for {
		var deadline time.Time
		if c.idle > 0 {
			deadline = time.Now().Add(c.idle)
		}
		if err := c.conn.SetReadDeadline(deadline); err != nil {
			return err
		}
		pk, err := readPacket(r)
		if err != nil {
			return err
		}
		if err := c.handle(&pk); err != nil {
			return err
		}
	}
}

func (c *client) handle(pk *packets.Packet) error {
	switch pk.FixedHeader.Type {
	case packets.Publish:
		return c.published(pk)
	case packets.Puback:
		c.acknowledged(pk.PacketID)
	case packets.Subscribe:
		c.subscribe(pk)
	case packets.Unsubscribe:
		c.unsubscribe(pk)
	case packets.Pingreq:
		c.write(encode(packets.Pingresp, &packets.Packet{}))
	case packets.Disconnect:
		c.will = nil
		return errGoodbye
	default: // a second CONNECT
		return fmt.Errorf("packet of type %d out of place", pk.FixedHeader.Type)
	}
	return nil
}

// welcome makes c the connection of its identity, in place of an older one, and
// answers its CONNECT. The answer is put into the outbox before anybody can find
// c, so it is the first thing sent.
func (c *client) welcome(clean bool) {
	h := c.h
	h.mu.Lock()
	older := h.clients[c.from.id]
	present := h.session(c.from.id).begin(clean)
	c.write(connack(accepted, present))
	h.clients[c.from.id] = c
	h.connects[c.from.id]++
	over := h.ended
	h.wake()
	h.mu.Unlock()
	if older != nil {
		older.close(errors.New("a newer connection of the same identity"))
	}
	if over || h.faults.get().Down || c.forbidden() != nil {
		c.close(errors.New("changed while connecting"))
	}
	h.log.Debug("client enters", "id", c.from.id, "via", c.from.via, "transport", c.kind)
	c.handOut()
}

// forbidden says why c may no longer be connected, after a change of the
// registry: it is gone, disabled, behind another gateway, or its key is another.
func (c *client) forbidden() error {
	s := *c.from // shared by messages: not to be written
	_, err := c.h.permit(&s, c.user.AuthChain, c.token)
	return err
}

// leave ends what depends on the connection.
func (c *client) leave() {
	h := c.h
	h.mu.Lock()
	if h.clients[c.from.id] == c {
		delete(h.clients, c.from.id)
	}
	quiet := h.ended || c.will == nil || h.faults.get().Down
	h.mu.Unlock()
	if !quiet {
		c.sendWill()
	}
}

// expel closes the connections that the registry forbids.
func (h *Hub) expel() {
	for _, c := range h.connected() {
		if err := c.forbidden(); err != nil {
			c.close(err)
		}
	}
}

func (h *Hub) connected() []*client {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := make([]*client, 0, len(h.clients))
	for _, c := range h.clients {
		out = append(out, c)
	}
	return out
}

// wake tells those who wait for a client or a subscription. h.mu is held.
func (h *Hub) wake() {
	if h.arrived != nil {
		close(h.arrived)
		h.arrived = nil
	}
}

// Connection is one MQTT client that is connected.
type Connection struct {
	ID         string    `json:"id"`  // "device" or "device/module"
	Via        string    `json:"via"` // who connected for it: "gateway/$edgeHub", or "" for itself
	Since      time.Time `json:"since"`
	Connects   int       `json:"connects"`   // connections of this identity since New, this one included
	Transport  string    `json:"transport"`  // "mqtt" or "websocket"
	ClientType string    `json:"clientType"` // what its SDK calls itself
	Filters    []string  `json:"filters"`    // what it has subscribed to
}

// serveMQTT takes connections until the listener is closed.
func (h *Hub) serveMQTT() error {
	for {
		raw, err := h.mqtt.Accept()
		if err != nil {
			return err
		}
		if !h.enter() {
			raw.Close()
			return net.ErrClosed
		}
		go func() {
			defer h.running.Done()
			h.serve(newTLSTransport(raw, h.tls), "mqtt")
		}()
	}
}
