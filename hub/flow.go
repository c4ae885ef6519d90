package hub

import (
	"time"

	"holdfast.dev/holdfast/storage"
)

// sender is what a lane knows of one sender, wherever it is read.
type sender struct {
	name    string
	parked  bool
	retry   time.Time     // not before; parked: when it is tried again, zero if that is being done
	backoff time.Duration // of the last failure
	freed   uint64        // the queue's count of its unparkings, when it was looked at last
}

// delay lets a sender wait after a failure. Two flows that fail together are one
// failure.
func (s *sender) delay(now time.Time) {
	if s.parked || now.Before(s.retry) {
		return
	}
	s.backoff = min(max(2*s.backoff, minBackoff), maxBackoff)
	s.retry = now.Add(jitter(s.backoff))
}

// may says whether anything of s may be sent.
func (s *sender) may(now time.Time) bool { return !s.parked && !now.Before(s.retry) }

// flow is one sender at one place that is read.
type flow struct {
	reader   *reader
	sender   *sender
	inflight int
	moved    time.Time // when the oldest under way was sent, or the last answer came
	behind   bool
	cursor   storage.Position // nothing up to here is to be sent; behind: read on after it
	failing  bool
	failed   storage.Position // failing: the first that was not taken

	joined, full bool // of one read, see reader.catchUp
}

// fallBehind leaves what comes after p for later.
func (fl *flow) fallBehind(p storage.Position) {
	if !fl.behind {
		fl.behind, fl.cursor = true, max(fl.cursor, p)
		fl.reader.behind = append(fl.reader.behind, fl)
	}
}

func (fl *flow) fail(p storage.Position) {
	if !fl.failing || p < fl.failed {
		fl.failing, fl.failed = true, p
	}
}

// goBack continues before the first that failed.
func (fl *flow) goBack() {
	if !fl.behind {
		fl.cursor = 0
		fl.fallBehind(fl.failed - 1)
	}
	fl.cursor = min(fl.cursor, fl.failed-1)
	fl.failing = false
}
