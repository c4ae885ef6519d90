package iothub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"holdfast.dev/holdfast/hub"
	"holdfast.dev/holdfast/hub/wire"
)

// kinds is a set of what an identity listens for.
type kinds uint8

const (
	methods kinds = 1 << iota
	devicebound
	everything = methods | devicebound
)

func kindsOf(p hub.Present) (k kinds) {
	if p.Listens(hub.Method) {
		k |= methods
	}
	if p.Listens(hub.CloudToDevice) {
		k |= devicebound
	}
	return k
}

const (
	maxCalls = 100  // methods under way on one connection
	refused  = 0x80 // in a SUBACK
)

// listen keeps the subscriptions as the identity's attachment wants them. What
// the hub had kept of them from an earlier connection is not known, so all of it
// is said again.
func (c *conn) listen(ctx context.Context) {
	have, unknown := kinds(0), kinds(0)
	if c.kept {
		unknown = everything
	}
	for {
		c.s.mu.Lock()
		want := c.s.listens
		c.s.mu.Unlock()
		err := c.subscribe(want &^ have)
		if err == nil {
			err = c.unsubscribe((have | unknown) &^ want)
		}
		if err != nil {
			c.lost(err)
			return
		}
		have, unknown = want, 0
		select {
		case <-c.s.hear:
		case <-c.down:
			return
		case <-ctx.Done():
			return
		}
	}
}

func (c *conn) filters(k kinds) map[string]byte {
	f := map[string]byte{}
	if k&methods != 0 {
		f[wire.MethodFilter] = 0 // as the SDKs do: an answer that comes too late is worth nothing
	}
	if k&devicebound != 0 {
		f[wire.DeviceboundFilter(c.s.id.Device(), c.s.id.Module())] = 1
	}
	return f
}

func (c *conn) subscribe(k kinds) error {
	for filter, qos := range c.filters(k) {
		t := c.client.Subscribe(filter, qos, nil).(*mqtt.SubscribeToken)
		if err := c.answered(t); err != nil {
			return fmt.Errorf("subscribe %s: %w", filter, err)
		}
		if t.Result()[filter] == refused {
			c.s.u.deps.Log.Warn("cloud refuses a subscription", "identity", c.s.id, "filter", filter)
		}
	}
	return nil
}

func (c *conn) unsubscribe(k kinds) error {
	for filter := range c.filters(k) {
		if err := c.answered(c.client.Unsubscribe(filter)); err != nil {
			return fmt.Errorf("unsubscribe %s: %w", filter, err)
		}
	}
	return nil
}

// answered waits for the answer to a SUBSCRIBE or UNSUBSCRIBE; not for the token
// alone, which may never complete.
func (c *conn) answered(t mqtt.Token) error {
	late := time.NewTimer(c.s.u.set.timings.ack)
	defer late.Stop()
	select {
	case <-t.Done():
		return t.Error()
	case <-c.down:
		return errGivenUp
	case <-late.C:
		return errNoAck
	}
}

// incoming takes what the hub publishes. It must not block: the library reads
// acknowledgements in the same goroutine.
func (c *conn) incoming(m mqtt.Message) {
	if name, rid, err := wire.ParseMethod(m.Topic()); err == nil {
		m.Ack()
		c.call(name, rid, m.Payload())
		return
	}
	device, module, bag, err := wire.ParseDevicebound(m.Topic())
	if err != nil || wire.JoinID(device, module) != string(c.s.id) {
		c.stray() // and not acknowledged: it is not for us
		return
	}
	c.c2d.add(command{hub.Command{Kind: hub.CloudToDevice, To: c.s.id, Props: bag, Body: m.Payload()}, m.Ack})
}

// call has a method carried out, beside others.
func (c *conn) call(name, rid string, body []byte) {
	select {
	case c.calls <- struct{}{}:
	default:
		c.reply(rid, problem(http.StatusTooManyRequests, "too many methods under way"))
		return
	}
	c.s.u.wg.Go(func() {
		defer func() { <-c.calls }()
		ctx, cancel := c.bound(c.s.u.set.timings.method)
		defer cancel()
		r, err := c.s.u.do(ctx, hub.Command{Kind: hub.Method, To: c.s.id, Name: name, Body: body})
		switch {
		case err == nil && len(r.Body) > wire.MaxMethod:
			r = problem(http.StatusBadGateway, "the device's answer is too large")
		case errors.Is(err, hub.ErrUnknown):
			r = problem(http.StatusNotFound, "the device is not there, or does not listen for methods")
		case errors.Is(err, hub.ErrTimeout), errors.Is(err, context.DeadlineExceeded):
			r = problem(http.StatusGatewayTimeout, "the device did not answer in time")
		case err != nil:
			r = problem(http.StatusBadGateway, err.Error())
		}
		c.reply(rid, r)
	})
}

// bound is a context that ends with the connection, or after d.
func (c *conn) bound(d time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	go func() {
		select {
		case <-c.down:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

func (c *conn) reply(rid string, r hub.Reply) {
	c.client.Publish(wire.MethodReplyTopic(r.Status, rid), 0, false, r.Body)
}

func problem(status int, message string) hub.Reply {
	body, _ := json.Marshal(map[string]string{"message": message}) // strings always marshal
	return hub.Reply{Status: status, Body: body}
}

// command is a cloud-to-device message and how to acknowledge it.
type command struct {
	hub.Command
	ack func()
}

// commands are those that wait, in order. IoT Hub keeps at most 50 for a device,
// so the list stays short.
type commands struct {
	mu   sync.Mutex
	list []command
	more signal
}

func (q *commands) add(c command) {
	q.mu.Lock()
	q.list = append(q.list, c)
	q.mu.Unlock()
	q.more.send()
}

func (q *commands) take() (command, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.list) == 0 {
		return command{}, false
	}
	c := q.list[0]
	q.list = q.list[1:]
	return c, true
}

// deliver hands cloud-to-device messages to the device, one after the other, and
// acknowledges each when the device has. One that the device does not take is
// tried again while the connection lasts; the hub keeps it.
func (c *conn) deliver(ctx context.Context) {
	for {
		m, ok := c.c2d.take()
		if !ok {
			select {
			case <-c.c2d.more:
				continue
			case <-c.down:
				return
			case <-ctx.Done():
				return
			}
		}
		for failures := 1; ; failures++ {
			do, cancel := c.bound(c.s.u.set.timings.method)
			_, err := c.s.u.do(do, m.Command)
			cancel()
			if err == nil {
				m.ack()
				break
			}
			t := time.NewTimer(backoff(failures, time.Second, 30*time.Second))
			select {
			case <-t.C:
			case <-c.down:
				return
			case <-ctx.Done():
				return
			}
		}
	}
}
