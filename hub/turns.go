package hub

import (
	"context"
	"time"

	"holdfast.dev/holdfast/storage"
)

// How the lanes share the link, all in bytes (of a message's record, and overhead
// for what goes around it):
//
//   - The most urgent lane that has something goes first.
//   - Every lane that waits behind it is given one byte for each 24 that are sent by
//     more urgent ones, and goes before them as far as that reaches. So the last
//     one has a part in 25 of the link, whatever goes before it; the first has
//     24 in 25 beside one other, and more than two thirds with all ten full.
//   - A lane takes at most three quarters of what the others leave of the window, so
//     however slow it is, an urgent message finds room. While a more urgent one
//     has something but no room left, a lane takes a part in 25 of that, and only
//     if it has not had more than it was given: what is under way is what has the
//     link. If those above have no answer for a second that does not count: one that
//     hangs must not stop those below either.
//   - In a lane that is split the front goes first, and history is given what Share
//     leaves of each byte, in the same way.
//   - While a lane is split there is no more under way than is answered within half
//     a second or so (see pace), or what is fresh would stand behind a whole window
//     of history on a slow link, whoever goes first here.
const (
	lowly     = 24       // bytes of more urgent ones for one of a lane's
	overhead  = 256      // bytes
	mostOwed  = 16 << 10 // bytes: who had no room for long must not come with a flood
	hanging   = time.Second
	staleness = 10 * time.Second
)

// turn sends one read's worth of whoever's turn it is. It is false when nobody can
// send anything before something changes.
func (f *Forwarder) turn(ctx context.Context, now time.Time) bool {
	for {
		l, a, owed := f.next(now)
		if l == nil {
			return false
		}
		r, due := l.next()
		if due {
			a.bytes = min(a.bytes, r.credit)
		}
		cost, more := r.serve(ctx, f, a, now)
		switch {
		case cost > 0:
			f.charge(l, owed, cost)
			l.charge(r, due, cost, f.Live.Share)
			return true
		case more:
			return true
		}
		r.dry, r.credit = true, min(r.credit, 0)
		if l.dry() {
			l.credit = min(l.credit, 0)
		}
	}
}

// next is the lane whose turn it is, and what it may send; owed is what it may
// although a more urgent one has something.
func (f *Forwarder) next(now time.Time) (l *lane, a allowance, owed bool) {
	behind, moved := false, time.Time{}
	for _, o := range f.lanes {
		if o.dry() {
			continue
		}
		b := f.allows(o)
		switch {
		case behind && o.credit > 0:
			b.bytes = min(b.bytes, o.credit)
			if b.records > 0 {
				return o, b, true
			}
		case behind && o.credit < 0 && now.Sub(moved) < hanging:
			o.wake(moved.Add(hanging))
			continue
		case behind:
			b.records = min(b.records, max(1, most(f.Window.Messages)/(lowly+1))-o.count)
		}
		if l == nil && b.records > 0 {
			l, a, owed = o, b, behind
		}
		behind = true
		if o.moved.After(moved) {
			moved = o.moved
		}
	}
	return l, a, owed
}

// charge settles accounts among the lanes: l has sent.
func (f *Forwarder) charge(l *lane, owed bool, cost int) {
	behind := false
	for _, o := range f.lanes {
		switch {
		case o == l:
			behind = true
			if owed {
				l.credit -= cost
			}
		case behind && !o.dry():
			o.credit = min(o.credit+(cost+lowly-1)/lowly, mostOwed)
		}
	}
}

// allows is what a lane may send at once.
func (f *Forwarder) allows(l *lane) allowance {
	a := allowance{f.Window.Messages - f.count, f.Window.Bytes - f.bytes}
	if len(f.lanes) > 1 {
		a.records = min(a.records, most(f.Window.Messages-(f.count-l.count))-l.count)
		a.bytes = min(a.bytes, most(f.Window.Bytes-(f.bytes-l.bytes))-l.bytes)
	}
	if f.pace.on && a.records > 0 {
		if left := f.pace.limit - (f.count - f.stalled); left < a.records {
			a.records, f.pace.held = left, true
		}
	}
	if a.bytes <= 0 {
		a.records = 0
	}
	a.records = min(a.records, chunk)
	return a
}

// most is three quarters, and at least one of what there is.
func most(free int) int { return free - free/4 }

// dry says whether a lane has nothing to send.
func (l *lane) dry() bool { return l.front.dry && (l.history == nil || l.history.dry) }

// next is the reader whose turn it is, and whether history goes before the front.
func (l *lane) next() (r *reader, due bool) {
	switch h := l.history; {
	case h == nil || h.dry:
		return l.front, false
	case l.front.dry:
		return h, false
	case h.credit > 0:
		return h, true
	}
	return l.front, false
}

// charge settles accounts between the two of a lane that is split: r has sent.
func (l *lane) charge(r *reader, due bool, cost, share int) {
	h := l.history
	switch {
	case h == nil || h.dry:
	case due:
		h.credit -= cost
	case r == l.front:
		h.credit = min(h.credit+max(1, cost*(100-share)/share), mostOwed)
	}
}

// splits looks at what the front of a live lane is about to send. If that is old,
// and much waits behind it, all of it is made history: so it happens when a link
// comes up after an outage, when the gateway starts on a full queue, and also
// when a link that is up has been too slow for a while.
func (f *Forwarder) splits(r *reader, items []storage.Item, now time.Time) bool {
	l := r.lane
	if !l.live || r != l.front || len(items) == 0 || now.Sub(l.counted) < time.Second || !f.stale(items[0].Stamp) {
		return false
	}
	l.counted = now
	s := l.q.Stats()
	waits := min(s.Pending, uint64(s.Last-items[0].Position)+1)
	if waits < uint64(f.Live.Backlog) {
		return false
	}
	f.Log.Info("backlog goes beside fresh messages", "queue", s.Name, "messages", waits, "until", s.Last)
	if !f.pace.on {
		f.pace.begin()
	}
	l.split()
	return true
}

// stale says whether a message is too old to be called fresh. Of one of another
// boot nobody may know how old it is, but it waited.
func (f *Forwarder) stale(s storage.Stamp) bool {
	age, _ := f.Clock.Age(s)
	return age >= staleness || s.Boot != f.Clock.Now().Boot
}
