package hub

import (
	"time"

	"holdfast.dev/holdfast/storage"
)

// lane is one queue and how far it was read.
type lane struct {
	q     *storage.Queue
	scan  storage.Position // all up to here has been sent, or its flow is behind
	flows map[string]*flow
	ended map[storage.Outcome][]storage.Position // to be settled
	freed uint64                                 // the queue's count of unparkings, when it was looked at last
}

// flow is one sender in one lane.
type flow struct {
	lane     *lane
	sender   string
	inflight int
	behind   bool
	cursor   storage.Position // nothing up to here is to be sent; behind: read on after it
	failing  bool
	failed   storage.Position // failing: the first that was not taken
	parked   bool
	freed    uint64        // the queue's count of its unparkings, likewise
	retry    time.Time     // not before
	backoff  time.Duration // of the last failure
}

func (l *lane) flow(sender string) *flow {
	fl := l.flows[sender]
	if fl == nil {
		fl = &flow{lane: l, sender: sender}
		l.flows[sender] = fl
	}
	return fl
}

func (l *lane) end(p storage.Position, o storage.Outcome) { l.ended[o] = append(l.ended[o], p) }

// fallBehind leaves what comes after p for later.
func (fl *flow) fallBehind(p storage.Position) {
	if !fl.behind {
		fl.behind, fl.cursor = true, max(fl.cursor, p)
	}
}

func (fl *flow) fail(p storage.Position) {
	if !fl.failing || p < fl.failed {
		fl.failing, fl.failed = true, p
	}
}

// revive looks for what has been unparked, by this Forwarder for one more trial or
// by a person. Flows that it concerns go back to the checkpoint, once what they have under way
// is answered; what is settled there or on its way is not read again.
func (l *lane) revive() {
	n := l.q.Unparked()
	if n == l.freed {
		return
	}
	l.freed = n
	for _, fl := range l.flows {
		n := l.q.UnparkedOf(fl.sender)
		if n == fl.freed {
			continue
		}
		fl.freed, fl.parked = n, false
		fl.fail(l.q.Checkpoint() + 1)
		if fl.inflight == 0 {
			fl.goBack()
			fl.retry = time.Time{}
		}
	}
}

// goBack continues before the first that failed, after a while.
func (fl *flow) goBack() {
	if !fl.behind || fl.failed <= fl.cursor {
		fl.behind, fl.cursor = true, fl.failed-1
	}
	fl.failing = false
	if !fl.parked {
		fl.backoff = min(max(2*fl.backoff, minBackoff), maxBackoff)
		fl.retry = time.Now().Add(jitter(fl.backoff))
	}
}
