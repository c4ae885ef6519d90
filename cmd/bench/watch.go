package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"

	"github.com/mochi-mqtt/server/v2/packets"
)

// watcher is an ordinary MQTT client beside the devices: it subscribes to what
// they publish locally and counts what it hears, cloud or no cloud.
type watcher struct {
	login  func() login
	filter string

	heard atomic.Int64
	up    atomic.Bool
}

// Run keeps the subscription until ctx ends.
func (w *watcher) Run(ctx context.Context) error {
	wait := backOffMin
	for {
		if err := w.session(ctx); err == nil {
			wait = backOffMin
		}
		w.up.Store(false)
		if !pause(ctx, wait/2+rand.N(wait/2)) {
			return ctx.Err()
		}
		wait = min(2*wait, backOffMax)
	}
}

// session is one connection; nil if it was subscribed for a while.
func (w *watcher) session(ctx context.Context) error {
	c, err := dial(ctx, w.login())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // closes c, too, and ends the pings
	context.AfterFunc(ctx, c.close)
	if err := w.subscribe(c); err != nil {
		return err
	}
	go w.pings(ctx, c)
	for {
		pk, err := c.read()
		if err != nil {
			return nil
		}
		if pk.FixedHeader.Type != packets.Publish {
			continue
		}
		w.heard.Add(1)
		if pk.FixedHeader.Qos == 0 {
			continue
		}
		ack := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Puback}, ProtocolVersion: 4, PacketID: pk.PacketID}
		if c.writeNow(&ack) != nil {
			return nil
		}
	}
}

func (w *watcher) subscribe(c *conn) error {
	err := c.writeNow(&packets.Packet{
		FixedHeader:     packets.FixedHeader{Type: packets.Subscribe, Qos: 1},
		ProtocolVersion: 4,
		PacketID:        1,
		Filters:         packets.Subscriptions{{Filter: w.filter, Qos: 1}},
	})
	if err != nil {
		return err
	}
	pk, err := c.read()
	if err != nil {
		return err
	}
	if pk.FixedHeader.Type != packets.Suback || len(pk.ReasonCodes) != 1 || pk.ReasonCodes[0] > 2 {
		return fmt.Errorf("subscribe to %s: refused", w.filter)
	}
	w.up.Store(true)
	return nil
}

// pings keeps a connection alive until it is closed.
func (w *watcher) pings(ctx context.Context, c *conn) {
	for pause(ctx, c.quiet/4) {
		if c.ping() != nil {
			return
		}
	}
}
