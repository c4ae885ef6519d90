package main

import (
	"encoding/json"
	"errors"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestTelemetryIsJSON(t *testing.T) {
	s := newSource(bodyBytes)
	seen := map[string]bool{}
	for range 2 * templates {
		m := s.one()
		if len(m.body) != bodyBytes || len(m.topic) != topicBytes || !json.Valid(m.body) {
			t.Fatalf("topic of %d bytes, body of %d: %s", len(m.topic), len(m.body), m.body)
		}
		seen[string(m.body)] = true
	}
	if len(seen) != 2*templates {
		t.Errorf("%d different bodies of %d", len(seen), 2*templates)
	}
}

func TestNumberOf(t *testing.T) {
	s := newSource(bodyBytes)
	for n := range uint64(1000) {
		m := s.make(n * 7919)
		if got, err := s.numberOf(m); err != nil || got != n*7919 {
			t.Fatalf("message %d came back as %d, %v", n*7919, got, err)
		}
	}
	for name, harm := range map[string]func(*message){
		"a bit":   func(m *message) { m.body[100] ^= 1 },
		"number":  func(m *message) { writeNumber(m.body, 8) },
		"topic":   func(m *message) { m.topic = s.topics[9] },
		"cut":     func(m *message) { m.body = m.body[:200] },
		"nothing": func(m *message) { m.body = nil },
		"text":    func(m *message) { m.body[digitsAt] = 'x' },
	} {
		m := s.make(7)
		if harm(&m); mustFail(s.numberOf(m)) {
			t.Errorf("%s was harmed and nobody saw it", name)
		}
	}
}

func mustFail(_ uint64, err error) bool { return err == nil }

// TestContendersGiveBack runs every store through the same steps, twice round R's
// ring among them.
func TestContendersGiveBack(t *testing.T) {
	for _, r := range rivals() {
		t.Run(r.name, func(t *testing.T) {
			c, err := r.open(filepath.Join(t.TempDir(), "store"), 1)
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := c.close(); err != nil {
					t.Error(err)
				}
			}()
			d, ok := c.(drainer)
			if !ok {
				if err := c.keep(newSource(bodyBytes).group(3)); err != nil || c.commits() != 3 {
					t.Errorf("%d commits of 3 messages, %v", c.commits(), err)
				}
				return
			}
			l := &lane{c: d, s: newSource(bodyBytes)}
			for range 40 {
				for range 2 {
					if err := c.keep(l.s.group(groupSize)); err != nil {
						t.Fatal(err)
					}
				}
				if err := l.follow(l.s.next.Load()); err != nil {
					t.Fatal(err)
				}
			}
			if got, err := d.take(1); err != nil || len(got) != 0 {
				t.Errorf("%d messages are left, %v", len(got), err)
			}
		})
	}
}

// TestRingGoesRound writes more than the ring holds, and once more than is free.
func TestRingGoesRound(t *testing.T) {
	r, err := openRing(t.TempDir(), 1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	l := &lane{c: r, s: newSource(bodyBytes)}
	for range 3 * int(r.size) * len(r.segments) / (1000 * 290) {
		if err := r.keep(l.s.group(1000)); err != nil {
			t.Fatal(err)
		}
		if err := l.follow(l.s.next.Load()); err != nil {
			t.Fatal(err)
		}
	}
	for range 1000 {
		if err = r.keep(l.s.group(1000)); err != nil {
			break
		}
	}
	if err == nil || !strings.Contains(err.Error(), "full") {
		t.Errorf("the ring was written over: %v", err)
	}
	if err := l.follow(l.s.next.Load() - 1000); err != nil { // all but the group that was refused
		t.Error(err)
	}
}

// TestGrouperGroups: what waits while a commit runs is one group, and answered in
// order.
func TestGrouperGroups(t *testing.T) {
	b := &blocking{release: make(chan struct{})}
	g := newGrouper(b)
	s := newSource(bodyBytes)
	var order []int
	answered := make(chan struct{}, 10)
	for i := range 10 {
		g.put(s.one(), func(error) { order = append(order, i); answered <- struct{}{} })
		if i == 0 {
			b.release <- struct{}{} // the first is under way alone
		}
	}
	close(b.release)
	for range 10 {
		<-answered
	}
	g.stop()
	for i, n := range order {
		if n != i {
			t.Fatalf("answered in the order %v", order)
		}
	}
	if b.n.Load() > 3 {
		t.Errorf("10 messages were %d groups", b.n.Load())
	}
}

// blocking is a store that commits when it may.
type blocking struct {
	n       atomic.Uint64
	release chan struct{}
}

func (b *blocking) keep([]message) error { <-b.release; b.n.Add(1); return nil }
func (b *blocking) commits() uint64      { return b.n.Load() }
func (b *blocking) close() error         { return nil }

// faulty is R with a fault.
type faulty struct {
	*ring
	side            *ring // where it does what is of no use
	lose, slow, bad bool
	n               int
}

func (f *faulty) keep(group []message) error {
	f.n++
	switch {
	case f.lose && f.n%5 == 0:
		group = group[:len(group)-1]
	case f.bad && f.n%5 == 0:
		group[0].body[200] ^= 1
	case f.slow:
		for range 20 {
			if err := f.side.keep(group); err != nil {
				return err
			}
			if _, err := f.side.take(1); err != nil {
				return err
			}
		}
	}
	return f.ring.keep(group)
}

// TestFaultsAreSeen measures stores that lose, alter or dawdle: a measurement that
// does not tell them from a good one measures nothing.
func TestFaultsAreSeen(t *testing.T) {
	open := func(name string, f faulty) rival {
		return rival{name, func(dir string, _ int64) (contender, error) {
			f, err := f, error(nil)
			if f.side, err = openRing(dir+"-side", 1); err != nil {
				return nil, err
			}
			t.Cleanup(func() { f.side.close() })
			f.ring, err = openRing(dir, 1)
			return &f, err
		}}
	}
	good := rival{"good", func(dir string, _ int64) (contender, error) { return openRing(dir, 1) }}
	tr := func() *trial {
		return &trial{measure: &measure{quick: true}, report: &report{}, work: t.TempDir()}
	}
	for want, f := range map[string]faulty{"that were acknowledged": {lose: true}, "altered": {bad: true}} {
		r := open("faulty", f)
		err := steadyRates(t.Context(), tr(), plainBed(t.TempDir()), []rival{r, good}, 50*time.Millisecond)
		if err == nil || !strings.Contains(err.Error(), "message") {
			t.Errorf("steady has not seen %+v: %v", f, err)
		}
		_, err = ingestLoad(t.Context(), tr(), plainBed(t.TempDir()), "x", []rival{r, good}, demands()[1])
		if err == nil || !strings.Contains(err.Error(), "came back") || !strings.Contains(err.Error(), want) {
			t.Errorf("ingest has not seen %+v: %v", f, err)
		}
	}
	slow := tr()
	if err := steadyRates(t.Context(), slow, plainBed(t.TempDir()), []rival{open("slow", faulty{slow: true}), good}, 100*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if f := slow.figures[0]; f.ID != "S1" || f.OK == nil || *f.OK {
		t.Errorf("a store that flushes 21 times is not told from one that does so once: %+v", f)
	}
}

// TestFlushIsMissed: a store that acknowledges before the flush is the fastest of
// all, and must not pass.
func TestFlushIsMissed(t *testing.T) {
	a := bill{commits: 1000, payload: 1000}
	a.Flushes = 3
	f := a.honest(a.perCommit("S2", "x").judged("<= 1.02"))
	if *f.OK || f.Why == "" {
		t.Errorf("3 flushes of 1000 commits are %+v", f)
	}
	a.Flushes = 1001
	if f := a.honest(a.perCommit("S2", "x").judged("<= 1.02")); !*f.OK || f.Value != 1.001 {
		t.Errorf("1001 flushes of 1000 commits are %+v", f)
	}
}

// TestFill stops at the first error.
func TestFill(t *testing.T) {
	broken := errors.New("broken")
	n := 0
	put := putter(func(_ message, done func(error)) {
		if n++; n > 1000 {
			done(broken)
			return
		}
		done(nil)
	})
	if err := fill(t.Context(), put, newSource(bodyBytes), 900); err != nil || n != 900 {
		t.Errorf("%d messages were kept of 900: %v", n, err)
	}
	if err := fill(t.Context(), put, newSource(bodyBytes), 900); !errors.Is(err, broken) {
		t.Errorf("error is %v", err)
	}
}

type putter func(message, func(error))

func (p putter) put(m message, done func(error)) { p(m, done) }
