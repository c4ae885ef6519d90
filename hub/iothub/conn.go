package iothub

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"sync/atomic"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"holdfast.dev/holdfast/hub"
	"holdfast.dev/holdfast/hub/wire"
)

const (
	apiVersion = "2020-09-30" // what IoT Edge's hub speaks upstream
	clientType = "holdfast/1"
	tokenLife  = time.Hour // as the SDKs have it
)

// conn is one life of one connection, and one client of the MQTT library
// (paho.mqtt.golang v1.5.1). What that library does, read in its source, and what
// is done about it:
//
//   - With AutoReconnect it sends what is open again and, in resume, completes the
//     older token with a nil error, without any PUBACK. So there is one client for
//     each connection, AutoReconnect and ConnectRetry are off, and its store dies
//     with it.
//   - Without AutoReconnect and with a kept session the tokens of a lost connection
//     never complete, nor does that of a Publish while it is disconnecting. So no
//     token is waited for: the tap reads the acknowledgements, and our own list of
//     what is open is failed when the tap says that the connection is over.
//   - Any PUBACK, SUBACK, PUBCOMP or UNSUBACK completes the token of its id, of
//     whatever type it is. The tap lets through what fits.
//   - A Publish that waited too long for the writer gives up alone, and the next
//     one may get through before it is repeated. So an error from Publish ends the
//     connection.
//   - When CONNECT is refused it tries again with MQTT 3.1 unless the version is
//     given; a refusal with an unknown code counts as success. The tap reads the
//     code.
//   - A read error that says "use of closed network connection" leaves the client
//     as it is, connected for ever. The tap gives another error.
//   - Without a handler a message is never acknowledged, and with one it is
//     acknowledged when the handler returns. So there is one default handler from
//     the start and acknowledging is ours.
//   - A topic over 64 KiB is written with its length cut to 16 bits. See encode.
type conn struct {
	s      *session
	client mqtt.Client
	tap    *tap
	line   *line
	down   chan struct{} // closed when it is over
	over   atomic.Bool
	why    error // valid once down is closed
	born   time.Time
	old    time.Duration // age at which it is renewed
	kept   bool          // the hub had kept the session
	c2d    commands
	calls  chan struct{} // a place for each method under way

	// Guarded by s.mu.
	handed []*entry          // given to the library, not yet on the wire
	open   map[uint16]*entry // on the wire, not yet acknowledged
	halted bool              // nothing more is sent: it is about to be closed
	useful bool              // something was acknowledged
}

// connect opens a connection for s. The error is hub.ErrRefused if the cloud
// refused the identity, else hub.ErrOffline.
func (s *session) connect(ctx context.Context) (*conn, error) {
	u := s.u
	u.counts.attempts.Add(1)
	ctx, cancel := context.WithTimeout(ctx, u.set.timings.connect)
	defer cancel()
	ctx, abandon := context.WithCancelCause(ctx)
	l := &line{}
	u.wg.Go(func() { s.escort(ctx, abandon, l) })
	c, err := s.open(ctx, l)
	if err == nil {
		return c, nil
	}
	why := context.Cause(ctx)
	if errors.Is(why, errOutrun) || errors.Is(why, errLinkLost) || errors.Is(why, errNoAnswer) {
		err = fmt.Errorf("%w: connect to %s: %w", hub.ErrOffline, u.set.mqtt, why)
	}
	if l.heard.Load() == 0 && !errors.Is(why, errOutrun) {
		err = unreachableError{err}
	}
	return nil, err
}

// open is one attempt, over l.
func (s *session) open(ctx context.Context, l *line) (*conn, error) {
	u := s.u
	c := &conn{
		s: s, line: l, down: make(chan struct{}), born: time.Now(), open: map[uint16]*entry{},
		old: jitter(u.set.timings.renew, u.set.timings.renew*5/4), calls: make(chan struct{}, maxCalls),
		c2d: commands{more: newSignal()},
	}
	var dialled error
	opts := c.options(func(*url.URL, mqtt.ClientOptions) (net.Conn, error) {
		raw, err := u.set.dialMQTT(ctx, l)
		if err != nil {
			dialled = err
			return nil, err
		}
		c.tap = newTap(raw, c)
		context.AfterFunc(ctx, func() {
			if ctx.Err() != nil && c.tap.shook.Load() == 0 {
				c.lost(fmt.Errorf("no answer to CONNECT: %w", ctx.Err()))
			}
		})
		return c.tap, nil
	})
	c.client = mqtt.NewClient(opts)
	token := c.client.Connect().(*mqtt.ConnectToken)
	<-token.Done() // it ends: dial and CONNACK have deadlines
	switch {
	case c.tap == nil:
		return nil, fmt.Errorf("%w: %w", hub.ErrOffline, dialled)
	case c.tap.code() == 0 && token.Error() == nil:
		c.kept = token.SessionPresent()
		return c, nil
	}
	code := c.tap.code()
	c.lost(token.Error())
	<-c.down
	switch code {
	case 4, 5:
		return nil, fmt.Errorf("%w: CONNACK %d", hub.ErrRefused, code)
	case -1:
		return nil, fmt.Errorf("%w: connect to %s: %w", hub.ErrOffline, u.set.mqtt, c.why)
	}
	return nil, fmt.Errorf("%w: connect to %s: CONNACK %d", hub.ErrOffline, u.set.mqtt, code)
}

func (c *conn) options(open mqtt.OpenConnectionFunc) *mqtt.ClientOptions {
	set := c.s.u.set
	return mqtt.NewClientOptions().
		AddBroker("tcp://" + set.mqtt). // only has to be there: open dials
		SetCustomOpenConnectionFn(open).
		SetProtocolVersion(4).
		SetClientID(string(c.s.id)).
		SetUsername(c.s.user().String()).
		SetPassword(c.s.u.token()).
		SetCleanSession(false).
		SetAutoReconnect(false).
		SetConnectRetry(false).
		SetConnectTimeout(set.timings.connect).
		SetKeepAlive(set.timings.keepAlive).
		SetPingTimeout(set.timings.ping).
		SetWriteTimeout(writeTimeout).
		SetAutoAckDisabled(true).
		SetDefaultPublishHandler(func(_ mqtt.Client, m mqtt.Message) { c.incoming(m) })
}

// user is what the identity says of itself. The chain runs from it to the
// gateway, whose credential the password is.
func (s *session) user() wire.User {
	set := s.u.set
	user := wire.User{Host: set.host, Device: s.id.Device(), Module: s.id.Module(), APIVersion: apiVersion, ClientType: clientType}
	if s.own {
		return user
	}
	if user.Module != "" {
		user.AuthChain = append(user.AuthChain, string(s.id))
	}
	user.AuthChain = append(user.AuthChain, user.Device)
	if user.Device != set.device {
		user.AuthChain = append(user.AuthChain, set.device)
	}
	return user
}

// lost ends the connection, once, and keeps the first reason.
func (c *conn) lost(err error) {
	if c.over.Swap(true) {
		return
	}
	c.why = err
	close(c.down)
	if c.tap != nil {
		c.tap.Close()
	}
	c.client.Disconnect(0) // what is left of the library's goroutines; it does not wait
}

// part says goodbye: the hub then does not wait for the keep-alive to run out.
func (c *conn) part(why error) {
	if c.over.Swap(true) {
		return
	}
	c.why = why
	close(c.down)
	c.client.Disconnect(250) // ms at most
	c.tap.Close()
}

// send hands the session's messages to the library, in order, until the
// connection is over.
func (c *conn) send(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-c.down:
			cancel()
		case <-ctx.Done():
		}
	}()
	for {
		e := c.s.first(c)
		if e == nil {
			select {
			case <-c.s.work:
				continue
			case <-ctx.Done():
				return
			}
		}
		if err := c.s.u.window.take(ctx, e.size); err != nil {
			return
		}
		if !c.s.hand(c, e) { // failed meanwhile
			c.s.u.window.give(e.size)
			continue
		}
		t := c.client.Publish(e.topic, 1, false, e.body)
		select {
		case <-t.Done():
			if err := t.Error(); err != nil {
				c.lost(fmt.Errorf("publish: %w", err))
				return
			}
		default:
		}
	}
}

// published gives the next message that was handed over its packet id: the
// library writes them in the order in which they were given.
func (c *conn) published(id uint16) error {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	if len(c.handed) == 0 || c.open[id] != nil {
		return errors.New("packet ids are in disorder")
	}
	c.open[id], c.handed = c.handed[0], c.handed[1:]
	return nil
}

// acked settles the message of that id, if it is open on this connection.
func (c *conn) acked(id uint16) bool {
	c.s.mu.Lock()
	e := c.open[id]
	if e != nil {
		delete(c.open, id)
		e.settled, e.acked, c.useful = true, time.Now(), true
	}
	c.s.mu.Unlock()
	if e == nil {
		c.stray()
		return false
	}
	c.s.settle()
	return true
}

func (c *conn) stray() {
	c.s.u.counts.strays.Add(1)
}
