package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// story is what happens, in order, readable aloud.
func (o *outage) story(ctx context.Context) error {
	if err := o.gather(ctx); err != nil {
		return err
	}
	if err := o.steady(ctx); err != nil {
		return err
	}
	if err := o.cut(ctx); err != nil {
		return err
	}
	if err := o.drain(ctx); err != nil {
		return err
	}
	if err := o.verdict(); err != nil {
		return err
	}
	if o.p.once {
		return nil
	}
	return o.stay(ctx)
}

// until waits for cond; it says false when limit (0: none) has passed first.
func until(ctx context.Context, limit time.Duration, cond func() bool) (bool, error) {
	start := time.Now()
	for !cond() {
		if limit > 0 && time.Since(start) >= limit {
			return false, nil
		}
		if !pause(ctx, 10*time.Millisecond) {
			return false, context.Cause(ctx)
		}
	}
	return true, nil
}

// gather waits until the uplink is up and all devices are connected.
func (o *outage) gather(ctx context.Context) error {
	ok, err := until(ctx, startTimeout, func() bool { return o.view().link && len(o.absent()) == 0 })
	if err != nil || ok {
		return err
	}
	if !o.view().link {
		return fmt.Errorf("the gateway has no link to the hub %s after its start; the end of %s:\n%s",
			startTimeout, o.gw.child.log, tail(o.gw.child.log, 20))
	}
	return errors.New("not connected after " + startTimeout.String() + ": " + strings.Join(o.absent(), "; "))
}

// absent names the clients that are not connected, and why.
func (o *outage) absent() []string {
	var out []string
	for _, d := range o.devices {
		if up, _, _, err := d.state(); !up {
			out = append(out, fmt.Sprintf("%s (%v)", d.name, err))
		}
	}
	if o.watch != nil && !o.watch.up.Load() {
		out = append(out, "the local subscriber")
	}
	return out
}

// steady lets the devices send while all is well.
func (o *outage) steady(ctx context.Context) error {
	pace := "at full speed"
	if o.p.rate > 0 {
		pace = fmt.Sprintf("%g messages a second each", o.p.rate)
	}
	o.con.say("all is well: the uplink is up, %d devices send %s, up to %d under way each", len(o.devices), pace, o.p.window)
	o.release(1)
	limit := (o.p.duration - o.p.outage) / 3
	if o.p.messages > 0 {
		limit = 15 * time.Second
	}
	_, err := until(ctx, limit, func() bool { return o.half(1) })
	return err
}

// release lets the devices send up to the end of a stage.
func (o *outage) release(stage int) {
	for i, d := range o.devices {
		d.send(o.p.limit(i, stage), o.p.interval())
	}
}

// half says whether half of a stage's messages are acknowledged, the moment for
// its event.
func (o *outage) half(stage int) bool {
	share := (float64(stage) - 0.5) / float64(o.p.stages())
	return o.p.messages > 0 && float64(o.tally.acked.Load()) >= share*float64(o.p.messages)
}

// cut takes the uplink away, kills the gateway meanwhile, and gives it back.
func (o *outage) cut(ctx context.Context) error {
	how, mode := "connections are reset and refused", relayRefuse
	if o.p.silent {
		how, mode = "packets vanish, nobody is told", relaySilent
	}
	o.con.say("cutting the uplink for %s: %s", o.p.outage, how)
	start := time.Now()
	if err := o.switchUplink(mode); err != nil {
		return err
	}
	heard, told := o.localCounts()
	o.release(2)
	if err := o.killAll(ctx, start); err != nil {
		return err
	}
	if !pause(ctx, o.p.outage-time.Since(start)) {
		return context.Cause(ctx)
	}
	o.local.heard, o.local.acked = o.localCounts()
	o.local.heard, o.local.acked = o.local.heard-heard, o.local.acked-told
	o.con.say("restoring the uplink after %.0f s", time.Since(start).Seconds())
	acked, arrived := o.tally.acked.Load(), o.tally.arrived.Load()
	o.release(o.p.stages())
	o.mu.Lock()
	o.recovery = recovery{restored: time.Now(), acked: acked, waited: acked - arrived}
	o.mu.Unlock()
	return o.switchUplink(relayUp)
}

// killAll does the outage's kills, each at its share of the time since start; of a
// fixed number of messages each has a stage and falls amid it.
func (o *outage) killAll(ctx context.Context, start time.Time) error {
	part := o.p.outage / time.Duration(o.p.kills+1)
	for i := range o.p.kills {
		if !pause(ctx, time.Duration(i+1)*part-time.Since(start)) {
			return context.Cause(ctx)
		}
		o.release(i + 3)
		if o.p.messages > 0 {
			if _, err := until(ctx, part/2, func() bool { return o.half(i + 3) }); err != nil {
				return err
			}
		}
		if err := o.kill(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (o *outage) switchUplink(mode relayMode) error {
	for _, r := range o.uplink {
		if err := r.set(mode); err != nil {
			return err
		}
	}
	return nil
}

// kill ends the gateway as a power cut would and starts it again.
func (o *outage) kill(ctx context.Context) error {
	o.con.say("SIGKILL to the gateway (pid %d)", o.gw.child.pid())
	o.gw.child.kill()
	start := time.Now()
	if err := o.gw.start(ctx); err != nil {
		return err
	}
	o.con.say("the gateway is back after %.1f s (pid %d)", time.Since(start).Seconds(), o.gw.child.pid())
	return nil
}

// localCounts tells what the watcher has heard and what was acknowledged to those
// whom it listens to.
func (o *outage) localCounts() (heard, acked int64) {
	if o.watch == nil {
		return 0, 0
	}
	for _, d := range o.devices {
		if !d.rec.mid {
			acked += int64(d.rec.row(limits{}).acked)
		}
	}
	return o.watch.heard.Load(), acked
}

// drain lets the devices come to their end and waits until everything that was
// acknowledged has arrived and is settled. It is not an error if that never
// comes: the table says what is missing.
func (o *outage) drain(ctx context.Context) error {
	start := time.Now()
	for range o.p.drain {
		before := o.tally.arrived.Load()
		if _, err := until(ctx, time.Minute, func() bool { return o.tally.arrived.Load() > before }); err != nil {
			return err
		}
		if err := o.kill(ctx); err != nil {
			return err
		}
	}
	if rest := (o.p.duration - o.p.outage) * 2 / 3; o.p.messages == 0 {
		if !pause(ctx, rest-time.Since(start)) {
			return context.Cause(ctx)
		}
		for _, d := range o.devices {
			d.halt()
		}
		o.con.say("the devices fall silent; waiting for the rest to arrive")
	}
	settled, err := o.progress(ctx, func() bool {
		v := o.view()
		return o.idle() && o.complete() && v.gateway && v.backlog == 0
	})
	if err != nil {
		return err
	}
	if !settled {
		o.con.say("nothing has moved for %s: giving up", o.p.stall)
		return nil
	}
	o.con.say("everything has arrived and is settled")
	o.mu.Lock()
	r := o.recovery
	o.mu.Unlock()
	o.con.say("after the uplink came back the first message took %.1f s, all %s that had waited %.1f s",
		r.after(r.first), thousands(r.waited), r.after(r.caughtUp))
	// A late repeat would be counted, too.
	if !pause(ctx, 3*watchEvery) {
		return context.Cause(ctx)
	}
	return nil
}

// progress waits for cond as long as messages are acknowledged or arrive.
func (o *outage) progress(ctx context.Context, cond func() bool) (bool, error) {
	moved, last := time.Now(), int64(-1)
	for {
		ok, err := until(ctx, time.Second, cond)
		if ok || err != nil {
			return ok, err
		}
		if now := o.tally.acked.Load() + o.tally.arrived.Load(); now != last {
			moved, last = time.Now(), now
		}
		if time.Since(moved) > o.p.stall {
			return false, nil
		}
	}
}

func (o *outage) idle() bool {
	for _, d := range o.devices {
		if !d.idle() {
			return false
		}
	}
	return true
}

// complete says whether everything acknowledged has arrived.
func (o *outage) complete() bool {
	return o.tally.arrived.Load() >= o.tally.acked.Load() && o.tally.missing() == 0
}
