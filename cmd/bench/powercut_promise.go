package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"holdfast.dev/holdfast/storage"
)

// promise is what may be counted on after the words that were said so far.
type promise struct {
	queues  map[string]*promisedQueue
	keys    map[string][]string // tokens that a key may have; the first was acknowledged
	offered map[string]int      // by sender: the highest number
}

// promisedQueue is the part of a promise that is about one queue.
type promisedQueue struct {
	evicts  bool // its records may go without anybody asking
	kept    map[storage.Position]keptRecord
	last    storage.Position
	ending  map[storage.Position]bool // somebody asked for its end
	ended   map[storage.Position]bool // and it is true
	asked   map[storage.Outcome]int   // ends that were asked for
	told    map[storage.Outcome]int   // and acknowledged
	parked  map[string]bool
	parking map[string]bool // asked and not answered
	aside   map[storage.Position]bool
	has     map[storage.Position]bool // in this life, when it was opened
	short   int                       // records that may expire by themselves
}

type keptRecord struct {
	sender string
	n      int
	ttl    cutTTL
}

func newPromise() *promise {
	return &promise{queues: map[string]*promisedQueue{}, keys: map[string][]string{}, offered: map[string]int{}}
}

func (p *promise) queue(name string) *promisedQueue {
	q := p.queues[name]
	if q == nil {
		q = &promisedQueue{evicts: name == evictingQueue, kept: map[storage.Position]keptRecord{},
			ending: map[storage.Position]bool{}, ended: map[storage.Position]bool{},
			asked: map[storage.Outcome]int{}, told: map[storage.Outcome]int{},
			parked: map[string]bool{}, parking: map[string]bool{}, aside: map[storage.Position]bool{}, has: map[storage.Position]bool{}}
		p.queues[name] = q
	}
	return q
}

// hear takes what was said in one mark.
func (p *promise) hear(text string) error {
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		if err := p.word(f[0], f[1:]); err != nil {
			return fmt.Errorf("word %.60q: %w", line, err)
		}
	}
	return nil
}

func (p *promise) word(verb string, f []string) error {
	arity := map[string]int{"life": 1, "has": 5, "whole": 2, "opened": 0, "offer": 2, "kept": 5, "ending": 2, "ended": 2,
		"parking": 2, "parked": 2, "unparked": 2, "aside": 2, "setting": 2, "set": 2, "moved": 2}
	if n, ok := arity[verb]; !ok || len(f) < n {
		return fmt.Errorf("no such word, or too short")
	}
	switch verb {
	case "life":
		for _, q := range p.queues {
			clear(q.has)
		}
	case "offer":
		n, err := strconv.Atoi(f[1])
		p.offered[f[0]] = max(p.offered[f[0]], n)
		return err
	case "setting":
		if p.keys[f[0]] == nil {
			p.keys[f[0]] = []string{"-"}
		}
		p.keys[f[0]] = append(p.keys[f[0]], f[1])
	case "set":
		p.keys[f[0]] = []string{f[1]}
	case "opened", "moved":
	default:
		return p.queue(f[0]).word(verb, f[1:])
	}
	return nil
}

func (q *promisedQueue) word(verb string, f []string) error {
	switch verb {
	case "parking":
		q.parking[f[0]] = true
		return nil
	case "parked", "unparked":
		q.parked[f[0]], q.parking[f[0]] = verb == "parked", false
		return nil
	}
	n, err := strconv.ParseUint(f[0], 10, 64)
	if err != nil {
		return err
	}
	pos := storage.Position(n)
	switch verb {
	case "has", "kept":
		q.has[pos] = true
		return q.keep(pos, f[1:])
	case "whole":
		q.whole(pos)
	case "aside":
		q.aside[pos] = true
	case "ending", "ended":
		return q.end(verb == "ended", storage.Outcome(n), f[1:])
	}
	return nil
}

func (q *promisedQueue) keep(pos storage.Position, f []string) error {
	n, err := strconv.Atoi(f[1])
	if err != nil {
		return err
	}
	ttl, err := strconv.Atoi(f[2])
	if err != nil {
		return err
	}
	q.last = max(q.last, pos)
	if _, ok := q.kept[pos]; !ok && cutTTL(ttl) == livesShort {
		q.short++
	}
	q.kept[pos] = keptRecord{f[0], n, cutTTL(ttl)}
	return nil
}

// whole notes that what was there when the store was opened is all there was: what
// had gone by then, by an end that nobody was told of, must not come back, and
// positions up to last must not be given again.
func (q *promisedQueue) whole(last storage.Position) {
	q.last = max(q.last, last)
	for pos := range q.kept {
		if !q.has[pos] {
			q.ended[pos] = true
		}
	}
}

func (q *promisedQueue) end(told bool, o storage.Outcome, f []string) error {
	for _, s := range f {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			return err
		}
		pos := storage.Position(n)
		if told {
			q.ended[pos] = true
			q.told[o]++
		} else {
			q.ending[pos] = true
			q.asked[o]++
		}
	}
	return nil
}

// mayBeGone says whether a record that was kept may be missing: its end was asked
// for, or its time was over, or a rule may have ended it.
func (q *promisedQueue) mayBeGone(pos storage.Position) bool {
	return q.evicts || q.ending[pos] || q.ended[pos] || q.kept[pos].ttl == livesShort
}

// mostEnds is how many records may have ended in one way.
func (q *promisedQueue) mostEnds(o storage.Outcome) int {
	switch {
	case o == storage.Expired:
		return q.asked[o] + q.short
	case o == storage.Evicted && q.evicts:
		return int(q.last)
	}
	return q.asked[o]
}

// positions gives what was kept, in order.
func (q *promisedQueue) positions() []storage.Position {
	out := make([]storage.Position, 0, len(q.kept))
	for pos := range q.kept {
		out = append(out, pos)
	}
	slices.Sort(out)
	return out
}
