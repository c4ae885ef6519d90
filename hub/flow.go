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
