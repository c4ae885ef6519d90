package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// outage is one run: the parts on the stage, and what is seen of them.
type outage struct {
	p       profile
	con     *console
	dir     string
	kids    *children
	hub     *simHub
	gw      *gateway
	uplink  []*relay // MQTT and HTTPS
	tally   *tally
	devices []*device
	watch   *watcher
	guest   *guest // whom a person may connect as; nil in a run that ends by itself

	local struct{ cutHeard, cutAcked, heard, acked int64 } // by the watcher, during the outage

	mu       sync.Mutex
	seen     view
	restored time.Time // the uplink came back
	first    time.Time // arrival after that, by the hub's clock, which is ours
}

const watchEvery = 500 * time.Millisecond // status and arrivals are fetched

// runOutage is the whole command, told on con. The work folder stays when it failed.
func runOutage(ctx context.Context, p profile, con *console) error {
	dir, temporary, err := workDir(p.dir)
	if err != nil {
		return err
	}
	o := &outage{p: p, con: con, dir: dir, tally: newTally()}
	o.kids = newChildren(dir)
	o.kids.env = p.env
	err = o.run(ctx)
	o.kids.close()
	switch {
	case err != nil && !errors.Is(err, context.Canceled):
		o.con.say("logs, configuration and what arrived are kept in %s", dir)
	case temporary:
		os.RemoveAll(dir)
	}
	return err
}

// workDir gives the work folder, made if need be, and whether it is a temporary one.
func workDir(dir string) (string, bool, error) {
	if dir == "" {
		dir, err := os.MkdirTemp("", "holdfast-bench-")
		return dir, true, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", false, fmt.Errorf("make the work folder: %w", err)
	}
	old, err := os.ReadDir(dir)
	if err != nil {
		return "", false, fmt.Errorf("read the work folder: %w", err)
	}
	if len(old) > 0 {
		// Messages of an earlier run in the gateway's store would be counted into this one.
		return "", false, fmt.Errorf("work folder %s is not empty: give a new one", dir)
	}
	dir, err = filepath.Abs(dir)
	return dir, false, err
}

// run sets the stage, tells the story and clears up. Whatever ends unasked ends
// the run with its obituary.
func (o *outage) run(ctx context.Context) error {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	defer o.clear()
	if err := o.prepare(ctx); err != nil {
		return err
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	defer fail(nil) // before the wait: deferred calls run last to first
	wg.Go(func() {
		select {
		case k := <-o.kids.died:
			fail(k.obituary())
		case <-ctx.Done():
		}
	})
	wg.Go(func() {
		if err := o.observe(ctx); err != nil {
			fail(err)
		}
	})
	for _, d := range o.devices {
		wg.Go(func() { d.Run(ctx) })
	}
	if o.watch != nil {
		wg.Go(func() { o.watch.Run(ctx) })
	}
	return o.story(ctx)
}

// clear stops the children, the gateway first so that it can say goodbye.
func (o *outage) clear() {
	if o.gw != nil && o.gw.child != nil {
		o.gw.child.stop(10 * time.Second)
	}
	if o.hub != nil && o.hub.child != nil {
		o.hub.child.stop(5 * time.Second)
	}
	for _, r := range o.uplink {
		r.close()
	}
}

// prepare starts the hub, the uplink and the gateway, and makes the devices.
func (o *outage) prepare(ctx context.Context) error {
	var p ports
	fleet := members(o.p.devices)
	key := newKey()
	registered := []string{gatewayID + ",edge", gatewayID + "/$edgeHub,key=" + key}
	for _, m := range fleet {
		if r := m.registered(); r != "" {
			registered = append(registered, r)
		}
	}
	if !o.p.once {
		o.guest = newGuest()
		registered = append(registered, o.guest.registered())
	}
	o.con.say("work folder %s", o.dir)
	o.con.say("starting hubsim, the gateway and %d devices", len(fleet))
	var err error
	if o.hub, err = startHub(ctx, o.kids, o.p.bin, &p, registered); err != nil {
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

// observe keeps the view: what the gateway says of itself, what the hub has, and
// the rates between two looks.
func (o *outage) observe(ctx context.Context) error {
	type sample struct {
		at             time.Time
		acked, arrived int64
	}
	past := []sample{{at: time.Now()}}
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		if err := o.fetch(ctx); err != nil {
			return err
		}
		now := sample{time.Now(), o.tally.acked.Load(), o.tally.arrived.Load()}
		if past = append(past, now); len(past) > 5 { // rates over two seconds
			past = past[1:]
		}
		s, err := o.gw.poll(ctx)
		if ctx.Err() != nil {
			return nil
		}
		v := view{gateway: err == nil, link: s.Link.Up, clients: s.Clients, acked: now.acked, arrived: now.arrived, ledger: s.Totals}
		v.backlog, v.parked, v.oldest = s.waiting()
		span := now.at.Sub(past[0].at).Seconds()
		v.in = float64(now.acked-past[0].acked) / span
		v.out = float64(now.arrived-past[0].arrived) / span
		o.mu.Lock()
		o.seen = v
		o.mu.Unlock()
		o.con.line(v.wide(), v.narrow())
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// fetch files what has arrived; a message of nobody on the list is a person's.
func (o *outage) fetch(ctx context.Context) error {
	err := o.hub.fetch(ctx, func(a arrival) {
		o.mu.Lock()
		if o.first.IsZero() && !o.restored.IsZero() && a.At.After(o.restored) {
			o.first = a.At
		}
		o.mu.Unlock()
		if !o.tally.arrive(a) && o.guest != nil {
			o.con.say("arrived at the hub: %.200q from %s, %v", a.Body, a.Device, a.Props)
		}
	})
	if ctx.Err() != nil {
		return nil // the end of the run, not of the hub
	}
	return err
}

// resumed is how long the first message took after the uplink came back.
func (o *outage) resumed() time.Duration {
	o.mu.Lock()
	defer o.mu.Unlock()
	return max(0, o.first.Sub(o.restored))
}

func (o *outage) view() view {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.seen
}
