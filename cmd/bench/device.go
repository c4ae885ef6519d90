package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
)

const (
	ackTimeout = 30 * time.Second       // as Microsoft's Node SDK waits for a PUBACK
	backOffMin = 100 * time.Millisecond // between attempts to connect, doubled with jitter
	backOffMax = 2 * time.Second        // the SDKs go to 10 s; a demonstration has less patience
)

// device is a publisher as the SDKs are: it has up to window QoS 1 publishes under
// way, and when the connection is lost it connects again and publishes all of them
// once more, in order, with new packet ids and without DUP, for to the SDK they
// are new publishes. It numbers its messages from 1.
type device struct {
	name   string
	login  func() login       // with a fresh password each time
	topic  func(n int) string // where number n goes
	window int                // publishes under way at once
	rec    *record
	onAck  func() // a message was acknowledged for the first time

	wake chan struct{} // limit, rate or window has changed

	mu       sync.Mutex
	limit    int           // the last number to publish
	interval time.Duration // between publishes; 0: full speed
	next     int           // the next number
	due      time.Time     // when it may go
	open     []flight      // published and not acknowledged, ascending
	packet   uint16        // the last packet id used
	losses   int           // connections lost
	strays   int           // PUBACKs for nothing under way
	up       bool
	lastErr  error
}

// flight is one publish under way.
type flight struct {
	n    int
	id   uint16
	sent time.Time
}

// newDevice makes a device that sends nothing yet.
func newDevice(name string, window int, rec *record) *device {
	return &device{name: name, window: window, rec: rec, next: 1, wake: make(chan struct{}, 1), onAck: func() {}}
}

// send lets the device publish up to number limit, one in interval.
func (d *device) send(limit int, interval time.Duration) {
	d.mu.Lock()
	if d.interval != interval { // devices do not all speak at once
		d.due = time.Now().Add(rand.N(max(interval, 1)))
	}
	d.limit, d.interval = limit, interval
	d.mu.Unlock()
	d.nudge()
}

// halt lets it publish nothing new; what is under way goes on.
func (d *device) halt() {
	d.mu.Lock()
	d.limit = d.next - 1
	d.mu.Unlock()
}

// idle says whether it has published all it may and all was acknowledged.
func (d *device) idle() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.next > d.limit && len(d.open) == 0
}

// state tells whether it is connected and why not.
func (d *device) state() (up bool, losses, strays int, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.up, d.losses, d.strays, d.lastErr
}

func (d *device) nudge() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// Run keeps the device connected until ctx ends.
func (d *device) Run(ctx context.Context) error {
	wait := backOffMin
	for {
		c, err := dial(ctx, d.login())
		if err == nil {
			wait = backOffMin
			d.mark(true, nil)
			err = d.session(ctx, c)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		d.mark(false, err)
		if !pause(ctx, wait/2+rand.N(wait/2)) {
			return ctx.Err()
		}
		wait = min(2*wait, backOffMax)
	}
}

func (d *device) mark(up bool, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.up && !up {
		d.losses++
	}
	d.up, d.lastErr = up, err
}

// pause waits, or says false when ctx ended first.
func pause(ctx context.Context, t time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(t):
		return true
	}
}

// session publishes over one connection until it is lost or ctx ends.
func (d *device) session(ctx context.Context, c *conn) error {
	lost := make(chan error, 1)
	go func() { lost <- d.listen(c) }()
	finished := false
	defer func() {
		c.close()
		if !finished {
			<-lost
		}
	}()
	if err := d.repeat(c); err != nil {
		return err
	}
	ping := time.NewTicker(c.quiet / 4)
	defer ping.Stop()
	for {
		wait, err := d.publish(c)
		if err != nil {
			return err
		}
		due := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			c.disconnect()
			err = ctx.Err()
		case err = <-lost:
			finished = true
		case <-ping.C:
			err = d.keepAlive(c)
		case <-d.wake:
		case <-due.C:
		}
		due.Stop()
		if err != nil {
			return err
		}
	}
}

// listen takes the acknowledgements until the connection is lost.
func (d *device) listen(c *conn) error {
	for {
		pk, err := c.read()
		if err != nil {
			return err
		}
		if pk.FixedHeader.Type == packets.Puback {
			d.acked(pk.PacketID)
			d.nudge()
		}
	}
}

func (d *device) acked(id uint16) {
	d.mu.Lock()
	i := slices.IndexFunc(d.open, func(f flight) bool { return f.id == id })
	if i < 0 {
		d.strays++
		d.mu.Unlock()
		return
	}
	n := d.open[i].n
	d.open = slices.Delete(d.open, i, i+1)
	d.mu.Unlock()
	if d.rec.ack(n) {
		d.onAck()
	}
}

// repeat publishes again, on a new connection, what nobody has acknowledged.
func (d *device) repeat(c *conn) error {
	d.mu.Lock()
	for i := range d.open {
		d.open[i].id, d.open[i].sent = d.packetID(), time.Now()
	}
	again := slices.Clone(d.open)
	d.mu.Unlock()
	for _, f := range again {
		if err := d.put(c, f); err != nil {
			return err
		}
	}
	return c.flush()
}

// publish sends what may go now and says when to come back: a moment for the next
// one that is due, long if an acknowledgement must come first.
func (d *device) publish(c *conn) (time.Duration, error) {
	for {
		f, wait := d.take()
		if wait > 0 {
			return wait, c.flush()
		}
		if err := d.put(c, f); err != nil {
			return 0, err
		}
	}
}

// take begins the next publish, or says how long none may go.
func (d *device) take() (flight, time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.open) >= d.window || d.next > d.limit {
		return flight{}, time.Hour
	}
	now := time.Now()
	if d.interval > 0 {
		if wait := d.due.Sub(now); wait > 0 {
			return flight{}, wait
		}
		// Measured from when it was due, so the rate holds; but what a long wait
		// has cost is not made up for in a burst.
		d.due = d.due.Add(d.interval)
		if now.Sub(d.due) > time.Second {
			d.due = now
		}
	}
	f := flight{n: d.next, id: d.packetID(), sent: now}
	d.next++
	d.open = append(d.open, f)
	return f, 0
}

// packetID gives the next one that is not under way; mu is held.
func (d *device) packetID() uint16 {
	for {
		d.packet = d.packet%math.MaxUint16 + 1
		if !slices.ContainsFunc(d.open, func(f flight) bool { return f.id == d.packet }) {
			return d.packet
		}
	}
}

// put writes one publish. It is noted first: it must not arrive unannounced.
func (d *device) put(c *conn, f flight) error {
	d.rec.publish(f.n)
	return c.publish(d.topic(f.n), f.id, body(d.name, f.n, d.rec.payload))
}

var errNoAck = errors.New("no acknowledgement in time")

// keepAlive pings, and gives the connection up when the oldest publish has waited
// too long for its acknowledgement.
func (d *device) keepAlive(c *conn) error {
	d.mu.Lock()
	late := len(d.open) > 0 && time.Since(d.open[0].sent) > ackTimeout
	d.mu.Unlock()
	if late {
		return fmt.Errorf("publish: %w (%s)", errNoAck, ackTimeout)
	}
	return c.ping()
}
