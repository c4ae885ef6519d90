package main

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"holdfast.dev/holdfast/storage"
)

// findings are what a store does not keep of a promise, in words.
type findings struct {
	Lost  []string // acknowledged and gone
	Wrong []string // everything else that must not be
	Shut  string   // the store does not open
}

func (f *findings) lost(format string, args ...any) {
	f.Lost = append(f.Lost, fmt.Sprintf(format, args...))
}
func (f *findings) wrong(format string, args ...any) {
	f.Wrong = append(f.Wrong, fmt.Sprintf(format, args...))
}

func (f findings) clean() bool { return len(f.Lost)+len(f.Wrong) == 0 && f.Shut == "" }

func (f findings) String() string {
	var all []string
	if f.Shut != "" {
		all = append(all, "shut: "+f.Shut)
	}
	all = append(all, firstFew("lost", f.Lost)...)
	return strings.Join(append(all, firstFew("wrong", f.Wrong)...), "\n")
}

// firstFew gives the first few lines, and how many there are more.
func firstFew(what string, lines []string) (out []string) {
	for i, l := range lines {
		if i == 5 {
			return append(out, fmt.Sprintf("%s: and %d more", what, len(lines)-i))
		}
		out = append(out, what+": "+l)
	}
	return out
}

// judge looks whether an opened store keeps the promise.
func (p *promise) judge(db *storage.DB) (f findings, err error) {
	for _, d := range db.Stats().Damage {
		if !d.Torn {
			f.wrong("damage: %+v", d)
		}
	}
	if err := db.Verify(); err != nil {
		f.wrong("ledger: %v", err)
	}
	present := map[string]map[storage.Position]cutBody{}
	for _, q := range db.Queues() {
		there, err := p.present(q, &f)
		if err != nil {
			return f, err
		}
		present[q.Name()] = there
	}
	for name, q := range p.queues {
		q.judge(name, db.Queue(name), present[name], &f)
	}
	p.judgeLedger(db, &f)
	p.judgeMap(db, present, &f)
	return f, nil
}

// present gives what a queue has, and looks whether it may have it: each record
// was offered, for this queue, and each sender's are in order.
func (p *promise) present(q *storage.Queue, f *findings) (map[storage.Position]cutBody, error) {
	there, newest, before := map[storage.Position]cutBody{}, map[string]int{}, storage.Position(0)
	err := lookThrough(q, func(s storage.Seen) error {
		if s.Position <= before {
			f.wrong("queue %s: position %d comes after %d", q.Name(), s.Position, before)
		}
		before = s.Position
		if s.Err != nil {
			f.wrong("queue %s: record %d is there and cannot be read: %v", q.Name(), s.Position, s.Err)
			there[s.Position] = cutBody{}
			return nil
		}
		b, err := parseCutBody(s.Body)
		switch {
		case err != nil:
			f.wrong("queue %s: record %d is invented: %v", q.Name(), s.Position, err)
		case b.n > p.offered[b.sender] || b.sender != s.Sender || !slices.Contains(b.queues, q.Name()) || string(s.Note) != q.Name():
			f.wrong("queue %s: record %d, number %d of %s, was not offered like this", q.Name(), s.Position, b.n, b.sender)
		case b.n <= newest[b.sender]:
			f.wrong("queue %s: order: number %d of %s comes behind its number %d", q.Name(), b.n, b.sender, newest[b.sender])
		}
		newest[b.sender] = b.n
		there[s.Position] = b
		return nil
	})
	return there, err
}

// judge looks for what was acknowledged and is not there, for what had ended and
// is there again, and at who is parked.
func (q *promisedQueue) judge(name string, got *storage.Queue, there map[storage.Position]cutBody, f *findings) {
	if last := got.Stats().Last; last < q.last {
		f.lost("queue %s: its newest position is %d, %d was given", name, last, q.last)
	}
	for _, pos := range q.positions() {
		is, ok := there[pos]
		want := q.kept[pos]
		switch {
		case !ok && !q.mayBeGone(pos):
			f.lost("queue %s: record %d, number %d of %s", name, pos, want.n, want.sender)
		case ok && q.ended[pos]:
			f.wrong("queue %s: record %d, number %d of %s, is back after its end was acknowledged", name, pos, want.n, want.sender)
		case ok && (is.sender != want.sender || is.n != want.n):
			f.lost("queue %s: position %d was number %d of %s and is number %d of %s", name, pos, want.n, want.sender, is.n, is.sender)
		}
	}
	parked := got.Parked()
	for _, s := range cutSenders {
		if _, is := parked[s]; is != q.parked[s] && !q.parking[s] {
			f.wrong("queue %s: sender %s is parked: %v, which was acknowledged to be %v", name, s, is, q.parked[s])
		}
	}
	for _, r := range got.ParkedRecords() {
		if !q.aside[r.Position] {
			f.wrong("queue %s: record %d is parked and nobody asked for that", name, r.Position)
		}
	}
}

// judgeLedger looks whether the ledger's sums can be those of what was asked for
// and acknowledged.
func (p *promise) judgeLedger(db *storage.DB, f *findings) {
	sums := map[string]storage.Row{}
	for _, r := range db.Ledger() {
		if r.Balance() != 0 {
			f.wrong("ledger: %+v is off by %d", r, r.Balance())
		}
		s := sums[r.Queue]
		s.Accepted += r.Accepted
		s.Delivered, s.Expired, s.Evicted = s.Delivered+r.Delivered, s.Expired+r.Expired, s.Evicted+r.Evicted
		s.Discarded, s.Damaged = s.Discarded+r.Discarded, s.Damaged+r.Damaged
		sums[r.Queue] = s
	}
	for name, q := range p.queues {
		s, last := sums[name], db.Queue(name).Stats().Last
		if s.Accepted != uint64(last) {
			f.wrong("ledger: queue %s has accepted %d, its newest position is %d", name, s.Accepted, last)
		}
		if s.Damaged > 0 {
			f.wrong("ledger: queue %s has %d damaged", name, s.Damaged)
		}
		for o, n := range map[storage.Outcome]uint64{storage.Delivered: s.Delivered, storage.Expired: s.Expired,
			storage.Evicted: s.Evicted, storage.Discarded: s.Discarded} {
			if int(n) < q.told[o] || int(n) > q.mostEnds(o) {
				f.wrong("ledger: queue %s has %d ends with outcome %d, %d were acknowledged and %d are possible", name, n, o, q.told[o], q.mostEnds(o))
			}
		}
	}
}

// judgeMap looks whether each key has a value that it may have, and whether a value
// that came with a record came with it.
func (p *promise) judgeMap(db *storage.DB, present map[string]map[storage.Position]cutBody, f *findings) {
	m := db.Map("cut")
	for _, k := range m.Keys() {
		if p.keys[k] == nil {
			f.wrong("map: key %s was never set", k)
		}
	}
	for k, may := range p.keys {
		v, ok := m.Get(k)
		is := "-"
		if ok {
			token, _, _ := bytes.Cut(v, []byte(" "))
			is = string(token)
		}
		switch {
		case !slices.Contains(may, is):
			f.lost("map: %s is %q, may be %q", k, is, may)
		case ok && !bytes.Equal(v, tokenValue(is)):
			f.wrong("map: the value of %s, %q, is not what was set", k, is)
		case is != may[0] && strings.Contains(is, ":") && !p.somewhere(is, present):
			f.wrong("map: %s is %q, and the record that it came with is not there", k, is)
		}
	}
}

// somewhere says whether the record that a token names was kept or is there.
func (p *promise) somewhere(token string, present map[string]map[storage.Position]cutBody) bool {
	is := func(sender string, n int) bool { return fmt.Sprintf("%s:%d", sender, n) == token }
	for _, there := range present {
		for _, b := range there {
			if is(b.sender, b.n) {
				return true
			}
		}
	}
	for _, q := range p.queues {
		for _, k := range q.kept {
			if is(k.sender, k.n) {
				return true
			}
		}
	}
	return false
}
