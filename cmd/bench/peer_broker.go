package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
)

// broker is one of those that are compared: processes of its own in a folder of
// its own, that can be stopped, killed, and started again on the same data.
type broker struct {
	id, name string
	kids     *children
	addr     string // of MQTT
	native   string // of its own protocol, where it has one
	child    *child
	helpers  []*child // that outlive a kill

	launch  func(context.Context) error // starts child on what is in the folder
	revive  func(context.Context) error // the same after a kill; launch if nil
	keep    func(context.Context) error // makes it keep what it takes
	collect func(context.Context, time.Duration, func([]byte)) error
	login   func(client int) login
}

// brokerNames are all that can be compared, and what each acknowledgement stands
// on, in the order of the rows.
var brokerNames = map[string]string{
	"holdfast":          "Holdfast",
	"sink":              "nothing behind the socket (the client's own limit)",
	"sink-always":       "a page flushed before each answer, nothing else behind the socket",
	"mochi":             "mochi without a store",
	"mosquitto":         "mosquitto, default settings",
	"mosquitto-persist": "mosquitto, persistence, no limit of messages",
	"mosquitto-always":  "mosquitto, persistence, saved at each change",
	"rabbitmq":          "RabbitMQ, durable queue",
	"nats":              "NATS JetStream, its MQTT gateway, default sync",
	"nats-always":       "NATS JetStream, its MQTT gateway, sync always",
}

// brokerOrder is the order of the rows; quickOrder that of the quick form.
func brokerOrder() []string {
	return []string{"holdfast", "sink", "sink-always", "mochi", "mosquitto", "mosquitto-persist", "mosquitto-always", "rabbitmq", "nats", "nats-always"}
}

func quickOrder() []string { return []string{"holdfast", "mosquitto", "mochi", "nats-always"} }

func knownBrokers() string { return strings.Join(brokerOrder(), ", ") }

// chosen are the brokers that this run is about. The gateway is always there.
func (p *peersRun) chosen() []string {
	order := brokerOrder()
	if p.quick && len(p.only) == 0 {
		order = quickOrder()
	}
	if len(p.only) == 0 {
		return order
	}
	return slices.DeleteFunc(order, func(id string) bool { return id != "holdfast" && !slices.Contains(p.only, id) })
}

// absent says why a broker cannot be measured here; "" if it can.
func (p *peersRun) absent(id string) string {
	switch {
	case strings.HasPrefix(id, "mosquitto"):
		if program("mosquitto") == "" {
			return "mosquitto is not installed: make peers"
		}
	case id == "rabbitmq":
		if program("rabbitmq-server") == "" || program("epmd") == "" {
			return "rabbitmq-server is not installed: make peers"
		}
	}
	return ""
}

// program finds a program, also where only root's path leads; "" if it is not there.
func program(name string) string {
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	for _, dir := range []string{"/usr/sbin", "/usr/local/sbin"} {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path
		}
	}
	return ""
}

// broker prepares one, in dir; nothing is started yet.
func (p *peersRun) broker(id, dir string) (*broker, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("prepare %s: %w", id, err)
	}
	port, err := p.ports.free()
	if err != nil {
		return nil, err
	}
	b := &broker{id: id, name: brokerNames[id], kids: newChildren(dir), addr: loopback(port)}
	b.login = func(client int) login {
		return login{addr: b.addr, clientID: clientName(client), user: "guest", secret: "guest", keepAlive: keepAlive, clean: true}
	}
	b.keep, b.collect = b.subscribeAndLeave, b.takeAll
	switch id {
	case "holdfast":
		err = b.holdfast(p)
	case "sink", "mochi":
		b.library(p, id)
	case "sink-always":
		b.library(p, "sink", "--always")
	case "nats", "nats-always":
		err = b.nats(p, id == "nats-always")
	case "mosquitto":
		b.mosquitto()
	case "mosquitto-persist":
		b.mosquitto("persistence true", "max_queued_messages 0")
	case "mosquitto-always":
		b.mosquitto("persistence true", "max_queued_messages 0", "autosave_on_changes true", "autosave_interval 1")
	case "rabbitmq":
		err = b.rabbitmq(p)
	default:
		err = fmt.Errorf("prepare %s: no such broker", id)
	}
	if err != nil {
		b.kids.close()
		return nil, err
	}
	return b, nil
}

// begin starts it and makes it keep what it takes.
func (b *broker) begin(ctx context.Context) error {
	if err := b.launch(ctx); err != nil {
		return err
	}
	return b.keep(ctx)
}

// again starts it once more after a kill, on the same data.
func (b *broker) again(ctx context.Context) error {
	if b.revive != nil {
		return b.revive(ctx)
	}
	return b.launch(ctx)
}

// run starts the broker's main process and waits until it lets a client in.
func (b *broker) run(ctx context.Context, path string, args ...string) error {
	var err error
	if b.child, err = b.kids.start(b.id, path, args...); err != nil {
		return err
	}
	l := b.login(0)
	l.clientID = "probe"
	for begun := time.Now(); ; {
		c, err := dial(ctx, l)
		if err == nil {
			c.disconnect()
			c.close()
			return nil
		}
		select {
		case <-b.child.done:
			b.child.asked.Store(true) // told here, not as a surprise
			return b.child.obituary()
		default:
		}
		if time.Since(begun) > slowStart || !pause(ctx, 50*time.Millisecond) {
			return errors.Join(ctx.Err(), fmt.Errorf("%s does not let clients in: %w; the end of %s:\n%s", b.name, err, b.child.log, tail(b.child.log, 20)))
		}
	}
}

// slowStart is more than any broker may take to start: nine start at once, and
// RabbitMQ alone needs the processor for ten seconds.
const slowStart = 2 * time.Minute

// end kills it and removes its folder: nothing of what it keeps is wanted any more.
func (b *broker) end() error {
	if b.child != nil {
		b.child.kill()
	}
	for _, k := range b.helpers {
		k.kill()
	}
	b.kids.close()
	return os.RemoveAll(b.kids.dir)
}

// freeze and thaw stop its processes and let them go on.
func (b *broker) freeze() { b.signal(syscall.SIGSTOP) }
func (b *broker) thaw()   { b.signal(syscall.SIGCONT) }

func (b *broker) signal(s syscall.Signal) {
	if b.child != nil {
		syscall.Kill(-b.child.pid(), s) // its group; fails only if it has ended, which the client will tell
	}
}

// diagnose says why a client has lost its connection: the broker may be dead, and
// its connections end a moment before it does.
func (b *broker) diagnose(err error) error {
	select {
	case <-b.child.done:
		return errors.Join(err, b.child.obituary())
	case <-time.After(100 * time.Millisecond):
		return fmt.Errorf("%s: %w; the end of %s:\n%s", b.name, err, b.child.log, tail(b.child.log, 10))
	}
}

const keptFilter = "plant/#" // what the persistent subscriber wants

// keeper is the persistent subscriber, that is away while messages come.
func (b *broker) keeper() login {
	l := b.login(0)
	l.clientID, l.clean = "keeper", false
	return l
}

// subscribeAndLeave makes the session of the persistent subscriber.
func (b *broker) subscribeAndLeave(ctx context.Context) error {
	c, err := dial(ctx, b.keeper())
	if err != nil {
		return err
	}
	defer c.close()
	err = c.writeNow(&packets.Packet{
		FixedHeader:     packets.FixedHeader{Type: packets.Subscribe, Qos: 1},
		ProtocolVersion: 4, PacketID: 1,
		Filters: packets.Subscriptions{{Filter: keptFilter, Qos: 1}},
	})
	if err != nil {
		return err
	}
	pk, err := c.read()
	if err != nil {
		return fmt.Errorf("subscribe: %w", err)
	}
	if pk.FixedHeader.Type != packets.Suback || len(pk.ReasonCodes) != 1 || pk.ReasonCodes[0] != 1 {
		return fmt.Errorf("subscribe: want SUBACK with QoS 1, got %s %v", packets.PacketNames[pk.FixedHeader.Type], pk.ReasonCodes)
	}
	c.disconnect()
	return nil
}

// takeAll connects as the persistent subscriber and takes what was kept for it,
// until nothing has come for a while.
func (b *broker) takeAll(ctx context.Context, quiet time.Duration, each func([]byte)) error {
	c, err := dial(ctx, b.keeper())
	if err != nil {
		return err
	}
	defer c.close()
	defer context.AfterFunc(ctx, c.close)()
	c.quiet = quiet
	for {
		pk, err := c.read()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, os.ErrDeadlineExceeded):
			c.disconnect()
			return nil
		case err != nil:
			return fmt.Errorf("take what was kept: %w", err)
		case pk.FixedHeader.Type != packets.Publish:
			continue
		}
		each(pk.Payload)
		if pk.FixedHeader.Qos == 1 {
			err = c.write(&packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Puback}, ProtocolVersion: 4, PacketID: pk.PacketID})
		}
		if err == nil && c.r.Buffered() == 0 {
			err = c.flush()
		}
		if err != nil {
			return fmt.Errorf("take what was kept: %w", err)
		}
	}
}
