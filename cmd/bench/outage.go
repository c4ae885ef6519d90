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

	local struct{ heard, acked int64 } // by the watcher, and what it could hear, during the outage

	mu       sync.Mutex
	seen     view
	recovery recovery
}

// recovery is how the way up came back to life, by the hub's clock, which is ours.
type recovery struct {
	restored time.Time // the uplink came back; zero before
	acked    int64     // by then
	waited   int64     // of these had not arrived
	first    time.Time // arrival after that
	caughtUp time.Time // as many had arrived as were acknowledged at restored
}

// arrived notes an arrival; total counts the messages that have arrived.
func (r *recovery) arrived(at time.Time, total int64) {
	if r.restored.IsZero() || at.Before(r.restored) {
		return
	}
	if r.first.IsZero() {
		r.first = at
	}
	if r.caughtUp.IsZero() && total >= r.acked {
		r.caughtUp = at
	}
}

// after is how long after the restoration t was; 0 if it never came.
func (r recovery) after(t time.Time) float64 { return max(0, t.Sub(r.restored).Seconds()) }

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
		ours := o.tally.arrive(a)
		o.mu.Lock()
		o.recovery.arrived(a.At, o.tally.arrived.Load())
		o.mu.Unlock()
		if !ours && o.guest != nil {
			o.con.say("arrived at the hub: %.200q from %s, %v", a.Body, a.Device, a.Props)
		}
	})
	if ctx.Err() != nil {
		return nil // the end of the run, not of the hub
	}
	return err
}

func (o *outage) view() view {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.seen
}
