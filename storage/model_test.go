package storage

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

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
}

func (m *model) readable(q string) (out []string) {
	for _, r := range m.records[q] {
		if !r.parked && !m.senders[q][r.sender] {
			out = append(out, fmt.Sprintf("%d:%s", r.pos, r.body[:min(8, len(r.body))]))
		}
	}
	return out
}

// Any sequence of appends, ends, parkings, map changes and openings leaves the
// store as the model says, and every picture on the way as replay says.
func TestModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp(t.TempDir(), "")
		if err != nil {
			rt.Fatal(err)
		}
		o := Options{SegmentBytes: 1 << 20, MaxBytes: 64 << 20, check: true}
		db, err := Open(dir, o)
		if err != nil {
			rt.Fatal(err)
		}
		defer func() { _ = db.Close() }()
		m := &model{next: map[string]Position{}, records: map[string][]rec{}, keys: map[string]string{}, ends: map[Outcome]int{},
			senders: map[string]map[string]bool{"p": {}, "q": {}}}
		wait := func(do func(done func(error))) {
			ch := make(chan error, 1)
			do(func(err error) { ch <- err })
			if err := <-ch; err != nil {
				rt.Fatal(err)
			}
		}
		queue := rapid.SampledFrom([]string{"p", "q"})
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
				qs := rapid.SampledFrom([][]string{{"p"}, {"q"}, {"p", "q"}}).Draw(rt, "to")
				big := rapid.SampledFrom([]int{1, 1, 1, 200_000}).Draw(rt, "size")
				body := fmt.Sprintf("%06d%s", m.accept, strings.Repeat("x", big))
				r := Record{Sender: s, Body: []byte(body), With: []Change{{Map: "m", Key: s, Value: []byte(body[:6])}}}
				for _, q := range qs {
					m.next[q]++
					m.records[q] = append(m.records[q], rec{pos: m.next[q], sender: s, body: body})
					r.To = append(r.To, Dest{Queue: q})
					n++
				}
				m.accept += n
				m.keys[s] = body[:6]
				wait(func(done func(error)) { db.Append(context.Background(), r, done) })
			},
			"settle": func(*rapid.T) {
				q := queue.Draw(rt, "queue")
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
				if db, err = Open(dir, o); err != nil {
					rt.Fatal(err)
				}
			},
			"": func(*rapid.T) {
				for _, q := range []string{"p", "q"} {
					var got []string
					items, _, err := db.Queue(q).Read(0, Limit{Records: 10_000}, nil)
					if err != nil {
						rt.Fatal(err)
					}
					for _, it := range items {
						got = append(got, fmt.Sprintf("%d:%s", it.Position, it.Body[:min(8, len(it.Body))]))
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
		var sum Row
		for _, r := range db.Ledger() {
			sum.Accepted += r.Accepted
			sum.Delivered += r.Delivered
			sum.Expired += r.Expired
		}
		if int(sum.Accepted) != m.accept || int(sum.Delivered) != m.ends[Delivered] || int(sum.Expired) != m.ends[Expired] {
			rt.Fatalf("ledger %+v, want %d accepted and %v", sum, m.accept, m.ends)
		}
	})
}
