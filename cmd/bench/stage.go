package main

import (
	"context"
)

// prepare starts the hub, the uplink and the gateway, and makes the devices.
func (o *outage) prepare(ctx context.Context) error {
	var p ports
	fleet := members(o.p.devices)
	key := newKey()
	if !o.p.once {
		o.guest = newGuest()
	}
	o.con.say("work folder %s", o.dir)
	o.con.say("starting hubsim, the gateway and %d devices", len(fleet))
	var err error
	if o.hub, err = startHub(ctx, o.kids, o.p.bin, &p, o.registered(fleet, key)); err != nil {
		return err
	}
	if o.gw, err = newGateway(o.kids, o.p.bin, &p, !o.p.once); err != nil {
		return err
	}
	var c gatewayConfig
	c.IoTHub.Connection = "HostName=" + hubHost + ";DeviceId=" + gatewayID + ";ModuleId=$edgeHub;SharedAccessKey=" + key
	c.IoTHub.CA = o.hub.ca
	if c.IoTHub.Address, err = o.connect(&p, o.hub.mqtt); err != nil {
		return err
	}
	if c.IoTHub.HTTPS, err = o.connect(&p, o.hub.https); err != nil {
		return err
	}
	if err := o.accounts(&c, fleet); err != nil {
		return err
	}
	if err := o.gw.configure(c); err != nil {
		return err
	}
	if err := o.gw.start(ctx); err != nil {
		return err
	}
	return o.enlist(fleet)
}

// registered is whom the hub knows: the gateway with its key, and those behind it.
func (o *outage) registered(fleet []member, key string) []string {
	out := []string{gatewayID + ",edge", gatewayID + "/$edgeHub,key=" + key}
	for _, m := range fleet {
		if r := m.registered(); r != "" {
			out = append(out, r)
		}
	}
	if o.guest != nil {
		out = append(out, o.guest.registered())
	}
	return out
}

// connect makes one port of the uplink and gives its address.
func (o *outage) connect(p *ports, target string) (string, error) {
	port, err := p.free()
	if err != nil {
		return "", err
	}
	r, err := newRelay(loopback(port), target)
	if err != nil {
		return "", err
	}
	o.uplink = append(o.uplink, r)
	return r.addr, nil
}

// accounts brings the ordinary clients into the configuration, and makes the
// watcher if there are any.
func (o *outage) accounts(c *gatewayConfig, fleet []member) error {
	add := func(name, password, device string, publish, subscribe []string) error {
		a, err := account(name, password, device, publish, subscribe)
		c.Account = append(c.Account, a)
		return err
	}
	for _, m := range fleet {
		if !m.ordinary {
			continue
		}
		device := m.hubID
		if device == gatewayID {
			device = "" // the gateway's own is the default
		}
		if err := add(m.name, m.key, device, []string{"plant/" + m.name + "/#"}, nil); err != nil {
			return err
		}
		o.watch = &watcher{filter: "plant/+/data"}
	}
	c.Forward = []forwardConfig{{Filter: "plant/#"}}
	if o.watch != nil {
		secret := newKey()
		o.watch.login = func() login {
			return login{addr: o.gw.mqtt, clientID: "watch", user: "watch", secret: secret, keepAlive: keepAlive, clean: true}
		}
		if err := add("watch", secret, "", nil, []string{"plant/#"}); err != nil {
			return err
		}
	}
	if o.guest != nil {
		return add(o.guest.account, o.guest.password, "", []string{"plant/#"}, []string{"plant/#"})
	}
	return nil
}

// enlist makes the devices.
func (o *outage) enlist(fleet []member) error {
	secure, err := trust(o.gw.ca)
	if err != nil {
		return err
	}
	for _, m := range fleet {
		d, err := m.device(o.p, o.gw, secure, o.tally)
		if err != nil {
			return err
		}
		o.devices = append(o.devices, d)
	}
	return nil
}
