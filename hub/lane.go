package hub

import (
	"math"
	"sync/atomic"
	"time"

	"holdfast.dev/holdfast/storage"
)

// lane is one queue and how far it was read.
//
// It has one reader, or two while it is split: history reads what was there when
// it was split, the front reads what has come since. A split is nothing but a
// position, taken from the queue:
//
//	state   event                          next    what is done
//	whole   a backlog is met (see split)   split   history begins at the checkpoint and ends at the newest position; the front begins behind it
//	split   the front has a backlog, too   split   history ends at what is the newest now; the front begins behind it
//	split   history has sent all, and all  whole   the front goes on where it is; what is unparked now is looked for from
//	        that was sent has answered             the checkpoint, and is still called history
//
// The front that was before a split is retired: it reads no more, and whatever it
// had under way is answered to it. What was taken is settled, so nobody finds it
// again; what was not is found by history, which sends nothing of a sender that
// still has something under way there. So nothing is sent twice or skipped. After
// a restart it is the same: what is settled out of order is not read again.
type lane struct {
	q         *storage.Queue
	live      bool // may be split
	senders   map[string]*sender
	strangers []*sender // among them; see greet
	front     *reader
	history   *reader          // nil while the lane is whole
	retired   []*reader        // fronts of before that have something under way
	past      storage.Position // what is up to here was made history

	ended   map[storage.Outcome][]storage.Position // to be settled
	freed   uint64                                 // the queue's count of unparkings, when it was looked at last
	changed atomic.Bool                            // since the last turn
	due     time.Time                              // when there is something to do by the clock; zero: never
	counted time.Time                              // when it was asked last whether there is a backlog

	count, bytes int       // under way
	moved        time.Time // last answer
	credit       int       // bytes that may go before more urgent lanes; negative: too much went
}

const forever storage.Position = math.MaxUint64

func newLane(q *storage.Queue, live bool) *lane {
	l := &lane{q: q, live: live, senders: map[string]*sender{}, ended: map[storage.Outcome][]storage.Position{}}
	l.front = l.reader(q.Checkpoint(), 0, forever)
	for _, r := range q.ParkedRecords() {
		l.sender(r.Sender) // to be there when they are unparked
	}
	for name := range q.Parked() {
		l.sender(name)
	}
	l.greet() // before it is asked again who is parked: or an unparking in between would never be seen
	for name := range q.Parked() {
		s := l.sender(name)
		s.parked, s.retry = true, time.Now().Add(jitter(firstTrial))
		l.wake(s.retry)
	}
	return l
}

func (l *lane) reader(scan, start, end storage.Position) *reader {
	return &reader{lane: l, scan: scan, start: start, end: end, flows: map[string]*flow{}}
}

func (l *lane) sender(name string) *sender {
	s := l.senders[name]
	if s == nil {
		s = &sender{name: name}
		l.senders[name], l.strangers = s, append(l.strangers, s)
	}
	return s
}

// greet learns how often those who are new have been unparked: the store counts
// from before this Forwarder, even from before the last start.
func (l *lane) greet() {
	for _, s := range l.strangers {
		s.freed = l.q.UnparkedOf(s.name)
	}
	l.strangers = l.strangers[:0]
}

func (l *lane) end(p storage.Position, o storage.Outcome) { l.ended[o] = append(l.ended[o], p) }

// readers are those that send.
func (l *lane) readers() []*reader {
	if l.history == nil {
		return []*reader{l.front}
	}
	return []*reader{l.front, l.history}
}

// stir lets the lane be looked at again: something has changed.
func (l *lane) stir() {
	for _, r := range l.readers() {
		r.dry = false
	}
}

// wake lets the lane be looked at again at t.
func (l *lane) wake(t time.Time) {
	if !t.IsZero() && (l.due.IsZero() || t.Before(l.due)) {
		l.due = t
	}
}

// look does what is to be done by the clock: those whose time for another trial
// has come are unparked.
func (l *lane) look(now time.Time) {
	if l.due.IsZero() || now.Before(l.due) {
		return
	}
	l.due = time.Time{}
	l.stir()
	for _, s := range l.senders {
		switch {
		case s.retry.IsZero():
			continue
		case now.Before(s.retry):
			l.wake(s.retry)
			continue
		}
		s.retry = time.Time{}
		if s.parked {
			l.q.Unpark(s.name, nil) // revive sees it
		}
	}
}

// revive looks for what has been unparked, by this Forwarder for one more trial or
// by a person. Flows that it concerns go back to the first position, once what they have under way
// is answered; what is settled there or on its way is not read again.
func (l *lane) revive() {
	l.greet()
	n := l.q.Unparked()
	if n == l.freed {
		return
	}
	l.freed = n
	for _, s := range l.senders {
		n := l.q.UnparkedOf(s.name)
		if n == s.freed {
			continue
		}
		s.freed, s.parked, s.retry = n, false, time.Time{}
		for _, r := range l.readers() {
			fl := r.flow(s.name) // a parked sender's records were passed over, and left no flow
			fl.fail(max(l.q.Checkpoint(), r.start) + 1)
			if fl.inflight == 0 {
				fl.goBack()
			}
		}
	}
	l.stir()
}

// split makes history of all that is in the queue.
func (l *lane) split() {
	last := l.q.Stats().Last
	if l.front.inflight > 0 {
		l.retired = append(l.retired, l.front)
	}
	if l.history == nil {
		l.history = l.reader(l.q.Checkpoint(), 0, last)
	}
	l.history.end, l.past = last, last
	l.front = l.reader(last, last, forever)
	l.stir()
}

// join lets go of readers that have nothing left to do.
func (l *lane) join() {
	kept := l.retired[:0]
	for _, r := range l.retired {
		if r.inflight > 0 {
			kept = append(kept, r)
		}
	}
	clear(l.retired[len(kept):])
	l.retired = kept
	if h := l.history; h != nil && len(l.retired) == 0 && h.done() {
		l.history, l.front.start = nil, 0
		l.stir()
	}
}

// barred says whether history must wait with a sender: something of it that is
// under way may have to be sent again before what comes next.
func (l *lane) barred(name string) bool {
	for _, r := range l.retired {
		if fl := r.flows[name]; fl != nil && fl.inflight > 0 {
			return true
		}
	}
	return false
}
