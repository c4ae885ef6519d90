package storage

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// model is what a store should hold, kept the simplest way.
type model struct {
	next    map[string]Position
	records map[string][]rec // by queue, those that have not ended
	senders map[string]map[string]bool
	ends    map[Outcome]int
	accept  int
	keys    map[string]string
}

type rec struct {
	pos          Position
	sender, body string
	parked       bool
	stamp        Stamp
	ttl          time.Duration
}

// expire ends what a reader of q meets after its time.
func (m *model) expire(q string, clock Clock) {
	m.records[q] = slices.DeleteFunc(m.records[q], func(r rec) bool {
		age, _ := clock.Age(r.stamp)
		over := r.ttl > 0 && age >= r.ttl && !r.parked && !m.senders[q][r.sender]
		if over {
			m.ends[Expired]++
		}
		return over
	})
}

// evicted takes note of what has made way in q: the oldest.
func (m *model) evicted(q string, left []Seen) error {
	n := len(m.records[q]) - len(left)
	if n < 0 {
		return fmt.Errorf("queue %s has %d records, want at most %d", q, len(left), len(m.records[q]))
	}
	m.ends[Evicted] += n
	m.records[q] = m.records[q][n:]
	for i, r := range m.records[q] {
		if left[i].Position != r.pos {
			return fmt.Errorf("queue %s has position %d, want %d: not the oldest were evicted", q, left[i].Position, r.pos)
		}
	}
	return nil
}

func (m *model) readable(q string) (out []string) {
	for _, r := range m.records[q] {
		if !r.parked && !m.senders[q][r.sender] {
			out = append(out, fmt.Sprintf("%d:%s", r.pos, r.body[:min(8, len(r.body))]))
		}
	}
	return out
}

// Any sequence of appends, ends, parkings, map changes, moves, evictions and openings,
// as time goes by, leaves the store as the model says, and every picture on the way as
// replay says.
func TestModel(t *testing.T) {
	var moved, evicted, expired, merged int
	defer func() {
		if t.Logf("%d records moved, %d expired, %d evicted, %d merges", moved, expired, evicted, merged); moved == 0 || evicted == 0 || expired == 0 {
			t.Error("it does not do what it is for")
		}
	}()
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp(t.TempDir(), "")
		if err != nil {
			rt.Fatal(err)
		}
		o := coldOptions()
		clock := &handClock{now: Stamp{Boot: 1, Up: time.Minute, Wall: time.UnixMilli(1e12).UTC()}}
		o.Clock, o.reached = clock, func(branch string) {
			if branch == "leftovers merge" {
				merged++
			}
		}
		var db *DB
		reopen := func() {
			if db, err = Open(dir, o); err != nil {
				rt.Fatal(err)
			}
			db.mover.stop() // it works when it is told to
			db.Queue("r").SetPolicy(Policy{MaxBytes: 100_000, Evict: true})
		}
		reopen()
		defer func() { _ = db.Close() }()
		m := &model{next: map[string]Position{}, records: map[string][]rec{}, keys: map[string]string{}, ends: map[Outcome]int{},
			senders: map[string]map[string]bool{"p": {}, "q": {}, "r": {}}}
		wait := func(do func(done func(error))) {
			ch := make(chan error, 1)
			do(func(err error) { ch <- err })
			if err := <-ch; err != nil {
				rt.Fatal(err)
			}
		}
		queue := rapid.SampledFrom([]string{"p", "q"})
		any := rapid.SampledFrom([]string{"p", "q", "r"})
		sender := rapid.SampledFrom([]string{"a", "b", "c"})
		pick := func(q string) (int, bool) {
			n := len(m.records[q])
			if n == 0 {
				return 0, false
			}
			return rapid.IntRange(0, n-1).Draw(rt, "which"), true
		}
		rt.Repeat(map[string]func(*rapid.T){
			"append": func(*rapid.T) {
				s, n := sender.Draw(rt, "sender"), 0
				qs := rapid.SampledFrom([][]string{{"p"}, {"q"}, {"r"}, {"p", "q"}, {"q", "r"}}).Draw(rt, "to")
				big := rapid.SampledFrom([]int{1, 1, 10_000, 25_000}).Draw(rt, "size")
				body := fmt.Sprintf("%06d%s", m.accept, strings.Repeat("x", big))
				ttl := rapid.SampledFrom([]time.Duration{0, 0, time.Hour}).Draw(rt, "ttl")
				r := Record{Sender: s, Stamp: clock.Now(), Body: []byte(body), With: []Change{{Map: "m", Key: s, Value: []byte(body[:6])}}}
				for _, q := range qs {
					m.next[q]++
					m.records[q] = append(m.records[q], rec{pos: m.next[q], sender: s, body: body, stamp: r.Stamp, ttl: ttl})
					r.To = append(r.To, Dest{Queue: q, TTL: ttl})
					n++
				}
				m.accept += n
				m.keys[s] = body[:6]
				wait(func(done func(error)) { db.Append(context.Background(), r, done) })
			},
			"settle": func(*rapid.T) {
				q := any.Draw(rt, "queue")
				i, ok := pick(q)
				if !ok {
					return
				}
				out := rapid.SampledFrom([]Outcome{Delivered, Delivered, Expired, Evicted, Discarded}).Draw(rt, "outcome")
				p := m.records[q][i].pos
				m.records[q] = slices.Delete(m.records[q], i, i+1)
				m.ends[out]++
				if rapid.Bool().Draw(rt, "wait") {
					wait(func(done func(error)) { db.Queue(q).Settle([]Position{p}, out, done) })
				} else {
					db.Queue(q).Settle([]Position{p}, out, nil)
				}
			},
			"park": func(*rapid.T) {
				q, s := queue.Draw(rt, "queue"), sender.Draw(rt, "sender")
				m.senders[q][s] = !m.senders[q][s]
				if m.senders[q][s] {
					wait(func(done func(error)) { db.Queue(q).Park(s, "why", done) })
				} else {
					wait(func(done func(error)) { db.Queue(q).Unpark(s, done) })
				}
			},
			"park one": func(*rapid.T) {
				q := queue.Draw(rt, "queue")
				i, ok := pick(q)
				if !ok {
					return
				}
				r := &m.records[q][i]
				if r.parked = !r.parked; r.parked {
					db.Queue(q).ParkRecord(r.pos, "why")
				} else {
					db.Queue(q).UnparkRecord(r.pos)
				}
				wait(func(done func(error)) { db.Append(context.Background(), Record{}, done) })
			},
			"settle most": func(*rapid.T) { // so that leftovers merge
				q := any.Draw(rt, "queue")
				var ps []Position
				m.records[q] = slices.DeleteFunc(m.records[q], func(r rec) bool {
					if r.pos%7 != 0 {
						ps = append(ps, r.pos)
					}
					return r.pos%7 != 0
				})
				m.ends[Delivered] += len(ps)
				wait(func(done func(error)) { db.Queue(q).Settle(ps, Delivered, done) })
			},
			"move": func(*rapid.T) {
				for more := true; more; {
					if more, err = db.tidy(context.Background()); err != nil {
						rt.Fatal(err)
					}
				}
				left, err := every(db.Queue("r"))
				moved += int(db.Stats().Moved)
				if err == nil {
					err = m.evicted("r", left)
				}
				if err != nil {
					rt.Fatal(err)
				}
			},
			"time passes": func(*rapid.T) { clock.pass(20*time.Minute, false, func(word) {}) },
			"reboot":      func(*rapid.T) { clock.pass(time.Minute, true, func(word) {}) },
			"remove key": func(*rapid.T) {
				s := sender.Draw(rt, "sender")
				delete(m.keys, s)
				if err := db.Map("m").Set(context.Background(), map[string][]byte{s: nil}); err != nil {
					rt.Fatal(err)
				}
			},
			"reopen": func(*rapid.T) {
				if err := db.Close(); err != nil {
					rt.Fatal(err)
				}
				reopen()
			},
			"": func(*rapid.T) {
				for _, q := range []string{"p", "q", "r"} {
					var got []string
					m.expire(q, clock)
					for after := Position(0); after < db.Queue(q).Stats().Last; {
						items, next, err := db.Queue(q).Read(after, Limit{Records: 10_000}, nil)
						if err != nil {
							rt.Fatal(err)
						}
						for _, it := range items {
							got = append(got, fmt.Sprintf("%d:%s", it.Position, it.Body[:min(8, len(it.Body))]))
						}
						after = next
					}
					if want := m.readable(q); !slices.Equal(got, want) {
						rt.Fatalf("queue %s gives %v, want %v", q, got, want)
					}
				}
				for _, k := range []string{"a", "b", "c"} {
					if v, _ := db.Map("m").Get(k); string(v) != m.keys[k] {
						rt.Fatalf("map has %s = %q, want %q", k, v, m.keys[k])
					}
				}
				if err := db.Verify(); err != nil {
					rt.Fatal(err)
				}
			},
		})
		wait(func(done func(error)) { db.Append(context.Background(), Record{}, done) })
		expired, evicted = expired+m.ends[Expired], evicted+m.ends[Evicted]
		var sum Row
		for _, r := range db.Ledger() {
			sum.Accepted += r.Accepted
			sum.Delivered += r.Delivered
			sum.Expired += r.Expired
			sum.Evicted += r.Evicted
			sum.Discarded += r.Discarded
		}
		if int(sum.Accepted) != m.accept || int(sum.Delivered) != m.ends[Delivered] || int(sum.Expired) != m.ends[Expired] ||
			int(sum.Evicted) != m.ends[Evicted] || int(sum.Discarded) != m.ends[Discarded] {
			rt.Fatalf("ledger %+v, want %d accepted and %v", sum, m.accept, m.ends)
		}
	})
}
