package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// most are the clients that any load has.
const most = 10

func clientName(i int) string { return fmt.Sprintf("c%02d", i) }

// holdfast is the gateway, with a queue for a cloud that is away: port 9 (discard)
// refuses. What a persistent subscriber is to the others, the cloud is to it.
func (b *broker) holdfast(p *peersRun) error {
	b.kids.env = p.env
	gw, err := newGateway(b.kids, p.bin, p.ports, false)
	if err != nil {
		return err
	}
	b.addr = gw.mqtt
	secret, key := newKey(), newKey()
	b.login = func(client int) login {
		name := clientName(client)
		return login{addr: b.addr, clientID: name, user: name, secret: secret, keepAlive: keepAlive, clean: true}
	}
	c := gatewayConfig{Forward: []forwardConfig{{Filter: keptFilter}}}
	for i := range most {
		a, err := account(clientName(i), secret, "", []string{keptFilter}, nil)
		if err != nil {
			return err
		}
		c.Account = append(c.Account, a)
	}
	c.IoTHub.Connection = "HostName=" + hubHost + ";DeviceId=" + gatewayID + ";ModuleId=$edgeHub;SharedAccessKey=" + key
	c.IoTHub.Address, c.IoTHub.HTTPS = loopback(9), loopback(9)
	start := func(ctx context.Context) error {
		if err := configureRoom(gw, c); err != nil {
			return err
		}
		err := gw.start(ctx)
		b.child = gw.child
		return err
	}
	b.launch = start
	b.keep = func(context.Context) error { return nil } // the forward does
	var hub *simHub
	b.revive = func(ctx context.Context) error {
		var err error
		if hub, err = startHub(ctx, b.kids, p.bin, p.ports, []string{gatewayID + ",edge", gatewayID + "/$edgeHub,key=" + key}); err != nil {
			return err
		}
		b.helpers = append(b.helpers, hub.child)
		c.IoTHub.Address, c.IoTHub.HTTPS, c.IoTHub.CA = hub.mqtt, hub.https, hub.ca
		return start(ctx)
	}
	b.collect = func(ctx context.Context, quiet time.Duration, each func([]byte)) error {
		return hub.takeAll(ctx, quiet, each)
	}
	return nil
}

// configureRoom writes the gateway's configuration, with room for all that a run
// can bring.
func configureRoom(gw *gateway, c gatewayConfig) error {
	if err := gw.configure(c); err != nil {
		return err
	}
	f, err := os.OpenFile(gw.config, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("write the gateway's configuration: %w", err)
	}
	_, err = f.WriteString("\n[store]\nmax_bytes = \"8GiB\"\n")
	return errors.Join(err, f.Close())
}

// takeAll gives what arrives until nothing has come for a while.
func (h *simHub) takeAll(ctx context.Context, quiet time.Duration, each func([]byte)) error {
	for last := time.Now(); time.Since(last) < quiet; {
		err := h.fetch(ctx, func(a arrival) { last = time.Now(); each(a.Body) })
		if err != nil {
			return err
		}
		if !pause(ctx, 50*time.Millisecond) {
			return ctx.Err()
		}
	}
	return nil
}

// library is a peer that is a Go library, in a process of its own.
func (b *broker) library(p *peersRun, kind string, args ...string) {
	line := append(append(p.self[1:len(p.self):len(p.self)], kind, "--mqtt", b.addr, "--dir", filepath.Join(b.kids.dir, "data")), args...)
	b.launch = func(ctx context.Context) error { return b.run(ctx, p.self[0], line...) }
	if kind == "sink" {
		b.keep = func(context.Context) error { return nil } // it keeps nothing
	}
}

// nats is a NATS server with JetStream and its MQTT gateway.
func (b *broker) nats(p *peersRun, always bool) error {
	port, err := p.ports.free()
	if err != nil {
		return err
	}
	b.native = loopback(port)
	args := []string{"--native", b.native}
	if always {
		args = append(args, "--always")
	}
	b.library(p, "nats", args...)
	return nil
}

// mosquitto is Debian's, with the given lines in its configuration.
func (b *broker) mosquitto(settings ...string) {
	config := filepath.Join(b.kids.dir, "mosquitto.conf")
	_, port := splitPort(b.addr)
	lines := append([]string{"listener " + port + " 127.0.0.1", "allow_anonymous true",
		"persistence_location " + b.kids.dir + "/"}, settings...)
	if os.Getuid() == 0 {
		lines = append(lines, "user root") // else it would become one who may not write here
	}
	b.launch = func(ctx context.Context) error {
		if err := os.WriteFile(config, []byte(strings.Join(lines, "\n")+"\n"), 0o644); err != nil {
			return fmt.Errorf("configure mosquitto: %w", err)
		}
		return b.run(ctx, program("mosquitto"), "-c", config)
	}
}

// rabbitmq is Debian's with the MQTT plugin, as a node that shares nothing with
// one that may run on this machine: its own name, epmd, ports, cookie and folders.
func (b *broker) rabbitmq(p *peersRun) error {
	dir := b.kids.dir
	_, mqtt := splitPort(b.addr)
	var ports [3]string // epmd, distribution, AMQP
	for i := range ports {
		port, err := p.ports.free()
		if err != nil {
			return err
		}
		ports[i] = fmt.Sprint(port)
	}
	for name, text := range map[string]string{
		"enabled_plugins": "[rabbitmq_mqtt].\n",
		"rabbitmq.conf": "listeners.tcp.1 = 127.0.0.1:" + ports[2] + "\nmqtt.listeners.tcp.1 = 127.0.0.1:" + mqtt +
			"\nlog.console = true\nlog.console.level = warning\nlog.file = false\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return fmt.Errorf("configure RabbitMQ: %w", err)
		}
	}
	b.kids.env = []string{
		"HOME=" + dir, // of the cookie
		"ERL_EPMD_PORT=" + ports[0], "ERL_EPMD_ADDRESS=127.0.0.1",
		"RABBITMQ_NODENAME=bench" + ports[0] + "@localhost", "RABBITMQ_DIST_PORT=" + ports[1],
		"RABBITMQ_CONF_ENV_FILE=/dev/null", "RABBITMQ_CONFIG_FILE=" + filepath.Join(dir, "rabbitmq.conf"),
		"RABBITMQ_ENABLED_PLUGINS_FILE=" + filepath.Join(dir, "enabled_plugins"),
		"RABBITMQ_MNESIA_BASE=" + filepath.Join(dir, "mnesia"), "RABBITMQ_LOG_BASE=" + dir,
		"RABBITMQ_PID_FILE=" + filepath.Join(dir, "pid"),
		// Erlang sizes its table of ports by the limit of open files, which in a
		// container may be a thousand million.
		"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=+Q 65536 -kernel inet_dist_use_interface {127,0,0,1}",
		"RUNNING_UNDER_SYSTEMD=true", // the script becomes the server, so that the server dies with us
	}
	b.launch = func(ctx context.Context) error {
		if len(b.helpers) == 0 { // else the server would start one that outlives it
			epmd, err := b.kids.start("epmd", program("epmd"), "-port", ports[0], "-address", "127.0.0.1")
			if err != nil {
				return err
			}
			b.helpers = append(b.helpers, epmd)
		}
		return b.run(ctx, rabbitServer())
	}
	return nil
}

// rabbitServer is the script that starts the server. Debian's in the path goes
// through su to another user and a log of the system's.
func rabbitServer() string {
	const plain = "/usr/lib/rabbitmq/bin/rabbitmq-server"
	if _, err := os.Stat(plain); err == nil {
		return plain
	}
	return program("rabbitmq-server")
}
