package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

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

func (g *gateway) openStores() (err error) {
	log := g.log.With("service", "stores")
	o := storage.Options{Clock: g.clock, Log: log, SegmentBytes: stateSegment, MaxBytes: stateMax}
	if g.state, err = storage.Open(filepath.Join(g.cfg.Data, "state"), o); err != nil {
		return err
	}
	o = g.cfg.Store.Options(g.clock)
	o.Log = log
	if g.queue, err = storage.Open(filepath.Join(g.cfg.Data, "queue"), o); err != nil {
		return err
	}
	return g.queue.Verify()
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

// openHub says where messages are kept: telemetry for the cloud, and of ordinary
// clients what a [[forward]] names. Without a cloud there is no such place.
func (g *gateway) openHub() error {
	if g.cloud == nil {
		g.core = hub.NewCore(g.queue, g.clock)
		return nil
	}
	forward, err := mqtt.Forward(g.cfg.Forwards, toCloud)
	if err != nil {
		return err
	}
	g.core = hub.NewCore(g.queue, g.clock, telemetry(g.cfg.IoTHub), forward)
	return nil
}

// telemetry routes what IoT Hub devices and modules send. Ordinary clients'
// messages have a topic and are none of it.
func telemetry(c iothub.Config) hub.Router {
	to := hub.Dest{Queue: toCloud, Priority: 5, TTL: c.TTL.Or(0)}
	if c.Priority != nil {
		to.Priority = *c.Priority
	}
	return func(m *hub.Message) []hub.Dest {
		if m.Topic != "" {
			return nil
		}
		return []hub.Dest{to}
	}
}

// forwarder moves everything that is kept for the cloud.
func (g *gateway) forwarder() *hub.Forwarder {
	c := g.cfg.IoTHub
	return &hub.Forwarder{
		From: g.lanes(), To: g.cloud, Clock: g.clock, Log: g.log.With("service", "forwarder"), ParkRetry: c.ParkRetry.Or(0),
		Window: hub.Window{Messages: c.WindowTotal, Bytes: c.WindowBytes, PerSender: c.Window},
	}
}

// lanes are the queues to the cloud, the most urgent first.
func (g *gateway) lanes() []*storage.Queue {
	var lanes []*storage.Queue
	for p := range 10 {
		lanes = append(lanes, g.queue.Queue(hub.Lane(toCloud, p)))
	}
	return lanes
}

// health is the chain that the page and every other place report: the first that
// is not well is the reason.
func (g *gateway) health() hub.Health {
	chain := hub.Health{
		{Name: "store", Hint: "look at the disk; the gateway opens the store anew when it starts", Test: func() error {
			return errors.Join(g.state.Err(), g.queue.Err())
		}},
		{Name: "room", Hint: "bring the uplink back, or raise [store] max_bytes", Test: func() error {
			if g.queue.Full() {
				s := g.queue.Stats()
				return fmt.Errorf("the queue is full: %d of %d bytes; devices are told to wait", s.Disk, s.MaxBytes)
			}
			return nil
		}},
	}
	if g.cloud == nil {
		return chain
	}
	return append(chain,
		hub.Check{Name: "people", Hint: "the gateway needs one sync with the hub's scope; check [iothub] connection and the uplink", Test: func() error {
			if s := g.people.Status(); !s.Complete {
				return errors.New("the hub's list of devices was never fetched")
			}
			return nil
		}},
		hub.Check{Name: "cloud", Hint: "check the uplink; messages are kept and go up in order when it is back", Test: func() error {
			if s := g.cloud.State(); !s.Up {
				return fmt.Errorf("no connection to %s: %s", g.cloud.Host(), s.LastError)
			}
			return nil
		}},
		hub.Check{Name: "parked", Hint: "the hub refuses these devices: check that they are enabled and children of this gateway; holdfast queue parked list shows all", Test: func() error {
			for _, q := range g.lanes() {
				for sender, why := range q.Parked() {
					return fmt.Errorf("messages of %s are parked: %s", sender, why)
				}
			}
			return nil
		}},
	)
}
