package mqtt

import (
	"io"
	"slices"

	"github.com/mochi-mqtt/server/v2/packets"
)

// cause is why the broker ends a connection.
type cause struct {
	reason string // a constant, counted by
	code   byte   // for MQTT 5
	detail error  // for the log
}

// leave is DISCONNECT. mochi sees the end of the stream.
func (c *conn) leave(body []byte) error {
	pk := packets.Packet{ProtocolVersion: c.version, FixedHeader: packets.FixedHeader{Type: packets.Disconnect, Remaining: len(body)}}
	if err := pk.DisconnectDecode(slices.Clone(body)); err != nil {
		return bad("DISCONNECT: " + err.Error())
	}
	if pk.Properties.SessionExpiryIntervalFlag {
		if err := c.session.setExpiry(c, pk.Properties.SessionExpiryInterval); err != nil {
			return err
		}
	}
	c.mu.Lock()
	c.polite = pk.ReasonCode != packets.CodeDisconnectWillMessage.Code
	c.mu.Unlock()
	return io.EOF
}

func (c *conn) doomed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cause != nil
}

// hangUp has the connection ended, after the acknowledgements that are due. It
// never blocks. The first cause stands.
func (c *conn) hangUp(why cause) {
	c.mu.Lock()
	first, pumping := c.cause == nil, c.pumping
	if first {
		c.cause = &why
	}
	c.mu.Unlock()
	if first && why.reason != "shutdown" {
		c.complain(why)
	}
	if !pumping {
		go c.Close() // before CONNACK there is nothing to say goodbye to
	}
	c.poke()
}

// maxUnsaid is how many complaints may wait for the log: a client that is refused
// all it says gives cause for more than anybody reads.
const maxUnsaid = 16

// complain counts why and leaves the saying to pump, or to exit: the log may
// block, and whoever calls may be the committer or hold locks.
func (c *conn) complain(why cause) {
	c.b.count(why.reason)
	c.mu.Lock()
	if len(c.unsaid) < maxUnsaid {
		c.unsaid = append(c.unsaid, why)
	}
	c.mu.Unlock()
	c.poke()
}

// say logs what there is to complain about.
func (c *conn) say() {
	c.mu.Lock()
	unsaid := c.unsaid
	c.unsaid = nil
	c.mu.Unlock()
	for _, why := range unsaid {
		c.b.warn(c.who, why.reason, why.detail)
	}
}

// farewell waits until pump has said it, and ends reading.
func (c *conn) farewell() error {
	<-c.ctx.Done()
	return io.EOF
}

// Close ends the connection. It may take seconds over TLS: never call it from
// where others wait.
func (c *conn) Close() error {
	var err error
	c.once.Do(func() {
		c.cancel()
		err = c.Conn.Close()
	})
	return err
}
