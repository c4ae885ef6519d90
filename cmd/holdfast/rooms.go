package main

import (
	"context"
	"errors"
	"path/filepath"
	"time"

	"holdfast.dev/holdfast/hub"
	"holdfast.dev/holdfast/hub/identity"
	"holdfast.dev/holdfast/hub/iothub"
	"holdfast.dev/holdfast/hub/mqtt"
	"holdfast.dev/holdfast/storage"
)

// toCloud is the destination of everything that goes to the cloud.
const toCloud = "iothub"

// scopeMap is where the state store keeps the hub's list of devices.
const scopeMap = "scope"

// The state store is small and on a partition of its own, so that losing the
// queue does not lose who the gateway is.
const (
	stateSegment = 2 << 20  // bytes
	stateMax     = 16 << 20 // bytes
)

// openStores opens state and queue. Where a queue store was before, another one or
// none is not taken for it: what waits in the old one would be hidden.
func (g *gateway) openStores() (err error) {
	mark := storeMark{file: filepath.Join(g.cfg.Data, "queue.id"), folder: filepath.Join(g.cfg.Data, "queue")}
	if err := mark.expect(); err != nil {
		return err
	}
	log := g.log.With("service", "stores")
	o := storage.Options{Clock: g.clock, Log: log, SegmentBytes: stateSegment, MaxBytes: stateMax}
	state := filepath.Join(g.cfg.Data, "state")
	if g.state, err = openPatiently(state, o); err != nil {
		if errors.Is(err, storage.ErrDamaged) {
			return withHint(err, "nothing waits in it: move %s away, and the list of devices is fetched from the cloud again", state)
		}
		return err
	}
	o = g.cfg.Store.Options(g.clock)
	o.Log = log
	if g.queue, err = openPatiently(mark.folder, o); err != nil {
		return err
	}
	if err := mark.keep(g.queue.ID()); err != nil {
		return err
	}
	return g.queue.Verify()
}

// patience is how long a store may be in use when the gateway starts: a console
// command may be looking into it.
const patience = 3 * time.Second

func openPatiently(dir string, o storage.Options) (*storage.DB, error) {
	for end := time.Now().Add(patience); ; {
		db, err := storage.Open(dir, o)
		if !errors.Is(err, storage.ErrLocked) || time.Now().After(end) {
			return db, err
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// watchStores ends the gateway when a store can no longer be written: only
// opening it anew from the disk can tell what it holds, and until then nothing
// may be acknowledged.
func (g *gateway) watchStores(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-g.queue.Failed():
		return fatal(g.queue.Err())
	case <-g.state.Failed():
		return fatal(g.state.Err())
	}
}

func (g *gateway) openCloud() (err error) {
	if g.cfg.IoTHub.Connection == "" {
		g.log.Warn("no cloud is configured: messages stay among the devices", "key", "[iothub] connection")
		return nil
	}
	g.cloud, err = iothub.New(g.cfg.IoTHub, iothub.Deps{Clock: g.clock, Log: g.log.With("service", "cloud")})
	return err
}

// self is whose the messages are that come from no device.
func (g *gateway) self() hub.Identity {
	if g.cloud == nil {
		return "gateway"
	}
	return g.cloud.Gateway()
}

func (g *gateway) openPeople() (err error) {
	keyFile := filepath.Join(g.cfg.Data, "seal.key")
	key, err := identity.LoadKey(keyFile)
	if err != nil {
		return err
	}
	d := identity.Deps{
		Keep: g.state.Map(scopeMap), Key: key, KeyFile: keyFile,
		Clock: g.clock, Log: g.log.With("service", "people"),
	}
	if g.cloud != nil { // not as nil pointers in interfaces
		d.Source, d.Online = g.cloud, g.cloud
		d.Hosts = append(namesOf(g.cfg.TLS.Names), g.cloud.Host())
	}
	g.people, err = identity.New(identity.Config{Devices: g.cfg.Devices, Accounts: g.cfg.Accounts}, d)
	if errors.Is(err, identity.ErrSealed) {
		return withHint(err, "put %s back; if it is lost for good, holdfast scope forget --data %s --yes forgets the list, "+
			"and it is fetched from the cloud again", keyFile, g.cfg.Data)
	}
	return err
}

// openHub says where messages are kept: for ordinary clients whose sessions are kept,
// for the cloud telemetry and what a [[forward]] names of ordinary clients' messages.
func (g *gateway) openHub() error {
	if g.cloud == nil {
		g.core = hub.NewCore(g.queue, g.clock, g.broker.Route)
		return nil
	}
	forward, err := mqtt.Forward(g.cfg.Forwards, toCloud)
	if err != nil {
		return err
	}
	g.core = hub.NewCore(g.queue, g.clock, fitting(telemetry(g.cfg.IoTHub)), fitting(forward), g.broker.Route)
	return nil
}

// fitting refuses what the cloud could never take, while the device still has it.
func fitting(r hub.Router) hub.Router {
	return func(m *hub.Message) []hub.Dest {
		to := r(m)
		if len(to) > 0 {
			to[0].Refuse = iothub.Fits(m)
		}
		return to
	}
}

// telemetry routes what IoT Hub devices and modules send. Ordinary clients'
// messages have a topic and are none of it.
func telemetry(c iothub.Config) hub.Router {
	to := hub.Dest{Queue: toCloud, Priority: priorityOf(c.Priority), TTL: c.TTL.Or(0)}
	return func(m *hub.Message) []hub.Dest {
		if m.Topic != "" {
			return nil
		}
		return []hub.Dest{to}
	}
}

// priorityOf is a priority of the configuration, 5 where none is given.
func priorityOf(p *int) int {
	if p == nil {
		return 5
	}
	return *p
}

// live are the lanes of the routes that are marked so.
func (g *gateway) live() (lanes []*storage.Queue) {
	marked := map[int]bool{}
	if g.cfg.IoTHub.Live {
		marked[priorityOf(g.cfg.IoTHub.Priority)] = true
	}
	for _, f := range g.cfg.Forwards {
		if f.Live {
			marked[priorityOf(f.Priority)] = true
		}
	}
	for p, q := range g.lanes() {
		if marked[p] {
			lanes = append(lanes, q)
		}
	}
	return lanes
}

// forwarder moves everything that is kept for the cloud.
func (g *gateway) forwarder() *hub.Forwarder {
	c := g.cfg.IoTHub
	return &hub.Forwarder{
		From: g.lanes(), To: g.cloud, Clock: g.clock, Log: g.log.With("service", "forwarder"), ParkRetry: c.ParkRetry.Or(0),
		Window:  hub.Window{Messages: c.WindowTotal, Bytes: c.WindowBytes, PerSender: c.Window},
		Live:    hub.Live{Lanes: g.live(), Share: c.LiveShare, Backlog: c.LiveBacklog},
		Refused: func(hub.Identity) { g.people.Doubt() },
	}
}

// parole gives those whom the cloud had refused another trial when its list of
// devices changes and has them in it.
func (g *gateway) parole(ctx context.Context) error {
	for changed := g.people.Changed(); ; {
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
		changed = g.people.Changed()
		for _, q := range g.lanes() {
			for sender := range q.Parked() {
				if g.people.Known(hub.Identity(sender)) {
					q.Unpark(sender, nil)
				}
			}
		}
	}
}

// lanes are the queues to the cloud, the most urgent first.
func (g *gateway) lanes() []*storage.Queue {
	var lanes []*storage.Queue
	c := g.cfg.IoTHub
	for p := range 10 {
		q := g.queue.Queue(hub.Lane(toCloud, p))
		q.SetPolicy(storage.Policy{MaxBytes: int64(c.Quota), Evict: c.Full == "evict", Priority: p})
		lanes = append(lanes, q)
	}
	return lanes
}
