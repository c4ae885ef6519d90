package storage

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// promise is what the user of a store may count on at one moment: what it was told.
type promise struct {
	queues map[string]*promised
	keys   map[string][]string // values of a key that it may have, the first was acknowledged
	now    Stamp
}

type promised struct {
	evicts  bool            // its oldest records may make way
	tried   map[string]bool // bodies that were handed over
	bodies  map[Position]string
	until   map[Position]word // when those end that do not live for ever
	ending  map[Position]bool // somebody asked for its end
	ended   map[Position]bool // and was told that it is true
	parked  map[string]bool   // senders
	parking map[string]bool   // senders about which something was asked and not answered
}

func newPromise() *promise {
	return &promise{queues: map[string]*promised{}, keys: map[string][]string{}}
}

func (p *promise) queue(name string) *promised {
	q := p.queues[name]
	if q == nil {
		q = &promised{tried: map[string]bool{}, bodies: map[Position]string{}, until: map[Position]word{}, ending: map[Position]bool{},
			ended: map[Position]bool{}, parked: map[string]bool{}, parking: map[string]bool{}}
		p.queues[name] = q
	}
	return q
}

// hear takes a word of the tape.
func (p *promise) hear(w word) {
	switch w.Kind {
	case wordTime:
		p.now = w.Stamp
		for _, q := range p.queues { // what is over stays so, whatever a later boot knows
			for pos := range q.until {
				q.ending[pos] = q.ending[pos] || q.expired(pos, p.now)
			}
		}
		return
	case wordMay:
		if p.keys[w.Name] == nil {
			p.keys[w.Name] = []string{""}
		}
		p.keys[w.Name] = append(p.keys[w.Name], w.Text)
		return
	case wordHas:
		p.keys[w.Name] = []string{w.Text}
		return
	}
	q := p.queue(w.Queue)
	switch w.Kind {
	case wordEvicts:
		q.evicts = true
	case wordTried:
		q.tried[w.Text] = true
	case wordRefused:
		delete(q.tried, w.Text)
	case wordKept:
		q.bodies[w.Positions[0]] = w.Text
		if w.TTL > 0 {
			q.until[w.Positions[0]] = w
			q.ending[w.Positions[0]] = q.ending[w.Positions[0]] || q.expired(w.Positions[0], p.now)
		}
	case wordEnding, wordEnded:
		for _, pos := range w.Positions {
			q.ending[pos] = true
			q.ended[pos] = q.ended[pos] || w.Kind == wordEnded
		}
	case wordParking:
		q.parking[w.Name] = true
	case wordParked:
		q.parking[w.Name], q.parked[w.Name] = false, w.Is
	}
}

// broken says what of the promise a store that was opened does not keep: something
// acknowledged is lost, out of order or changed, something is there that nobody
// handed over, or the ledger does not add up.
func (p *promise) broken(db *DB) error {
	if d := db.Stats().Damage; slices.ContainsFunc(d, func(d Damage) bool { return !d.Torn }) {
		return fmt.Errorf("damage %+v", d)
	}
	// What the opening has set going, a pack whose time is over for one, is to be
	// committed before anything is counted.
	done := make(chan error, 1)
	db.submit(&request{done: func(err error) { done <- err }})
	if err := <-done; err != nil {
		return err
	}
	if err := db.Verify(); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(p.queues)) {
		if err := p.queues[name].broken(db.Queue(name), p.balance(db, name)); err != nil {
			return fmt.Errorf("queue %s: %w", name, err)
		}
	}
	for key, may := range p.keys {
		v, _ := db.Map("m").Get(key)
		if !slices.Contains(may, string(v)) {
			return fmt.Errorf("map has %s = %.20q, want one of %.20q", key, v, may)
		}
	}
	return nil
}

// balance sums the ledger's rows of a queue.
func (p *promise) balance(db *DB, queue string) (sum Row) {
	for _, r := range db.Ledger() {
		if r.Queue == queue {
			sum.Accepted += r.Accepted
			sum.Pending += r.Pending
			sum.Parked += r.Parked
			sum.Damaged += r.Damaged
			sum.Evicted += r.Evicted
		}
	}
	return sum
}

// every gives all records of a queue that have not ended.
func every(q *Queue) (all []Seen, err error) {
	for after := Position(0); ; {
		seen, next, err := q.Look(after, Limit{Records: 1000}, nil)
		if err != nil {
			return nil, err
		}
		if all = append(all, seen...); next >= q.Stats().Last {
			return all, nil
		}
		after = next // some may have moved meanwhile
	}
}

func (p *promised) broken(q *Queue, sum Row) error {
	all, err := every(q)
	if err != nil {
		return err
	}
	last := q.Stats().Last
	there := map[Position]bool{}
	var readable []Position
	newest := 0
	for _, s := range all {
		if s.Err != nil {
			return fmt.Errorf("record %d: %w", s.Position, s.Err)
		}
		there[s.Position] = true
		if !s.Parked && !q.db.expired(s.Stamp, s.TTL) {
			readable = append(readable, s.Position)
		}
		if err := p.wrong(s); err != nil {
			return err
		}
		var n int
		if _, err := fmt.Sscan(strings.TrimLeft(string(s.Body), "abc "), &n); err != nil || n <= newest {
			return fmt.Errorf("record %d is number %d, behind %d", s.Position, n, newest)
		}
		newest = n
	}
	evicted := uint64(0)
	for pos := range p.bodies {
		switch {
		case pos > last:
			return fmt.Errorf("record %d is lost, the last one is %d", pos, last)
		case !there[pos] && !p.ending[pos]:
			if evicted++; p.evicts && evicted <= sum.Evicted {
				continue
			}
			return fmt.Errorf("record %d has ended and nobody asked for it", pos)
		}
	}
	if sum.Accepted != uint64(last) || sum.Pending+sum.Parked != uint64(len(all)) || sum.Damaged > 0 {
		return fmt.Errorf("ledger %+v, but %d records came and %d are there", sum, last, len(all))
	}
	got := q.Parked()
	for _, s := range []string{"a", "b", "c"} {
		if _, ok := got[s]; ok != p.parked[s] && !p.parking[s] {
			return fmt.Errorf("sender %s is parked: %v, want %v", s, ok, p.parked[s])
		}
	}
	return p.reads(q, readable)
}

// wrong says what is wrong with a record that is there.
func (p *promised) wrong(s Seen) error {
	body, known := p.bodies[s.Position]
	switch {
	case p.ended[s.Position]:
		return fmt.Errorf("record %d is back though its end was acknowledged", s.Position)
	case known && string(s.Body) != body:
		return fmt.Errorf("record %d is %.20q, want %.20q", s.Position, s.Body, body)
	case !p.tried[string(s.Body)]:
		return fmt.Errorf("record %d is %.20q, which nobody handed over", s.Position, s.Body)
	}
	return nil
}

// expired says whether a record's time to live may be over.
func (p *promised) expired(pos Position, now Stamp) bool {
	w, ok := p.until[pos]
	age := now.Up
	if w.Stamp.Boot == now.Boot {
		age -= w.Stamp.Up
	}
	return ok && age >= w.TTL
}

// reads says whether Read gives what Look has seen.
func (p *promised) reads(q *Queue, want []Position) error {
	var got []Position
	for after := Position(0); after < q.Stats().Last; {
		items, next, err := q.Read(after, Limit{Records: 1 << 20}, nil)
		if err != nil {
			return err
		}
		for _, it := range items {
			if got = append(got, it.Position); p.bodies[it.Position] != "" && string(it.Body) != p.bodies[it.Position] {
				return fmt.Errorf("record %d is read as %.20q, want %.20q", it.Position, it.Body, p.bodies[it.Position])
			}
		}
		after = next
	}
	if !slices.Equal(got, want) {
		return fmt.Errorf("records %v are read, want %v", got, want)
	}
	return nil
}

// handClock is a clock that is moved by hand.
type handClock struct {
	mu  sync.Mutex
	now Stamp
}

func (c *handClock) Now() Stamp {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *handClock) Age(s Stamp) (min, max time.Duration) {
	now := c.Now()
	if s.Boot == now.Boot {
		return now.Up - s.Up, now.Up - s.Up
	}
	return now.Up, -1
}

// pass lets time go by, reboot begins another boot. It is said before it is true, so
// that nothing can be found to have expired before its time.
func (c *handClock) pass(d time.Duration, reboot bool, say func(word)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now
	now.Up += d
	now.Wall = now.Wall.Add(d)
	if reboot {
		now.Boot++
		now.Up = d
	}
	say(word{Kind: wordTime, Stamp: now})
	c.now = now
}
