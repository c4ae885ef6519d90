package hub

import (
	"context"
	"time"

	"holdfast.dev/holdfast/storage"
)

// reader is one place at which a lane is read, and its flows.
//
// It reads on where nobody has read yet, for all flows that are level. Those that
// are behind are read for in passes: a pass goes upward through the queue, takes
// along every flow that it comes to and that has room, and leaps over stretches
// that none of them needs. Then it turns back to the lowest. Reading for each flow
// alone would go through the queue once for each sender, and that many times
// through what is packed.
type reader struct {
	lane  *lane
	start storage.Position // what is up to here is not its business
	scan  storage.Position // all up to here has been sent, or its flow is behind
	end   storage.Position // nothing behind it is read
	flows map[string]*flow

	behind []*flow          // in no order
	at     storage.Position // how far the pass has come
	passed int              // records that the pass has sent
	steps  int              // positions that it went over
	wanted time.Time        // since when somebody wants it to turn back; zero: nobody
	ahead  bool             // the next read was of the pass, if both wanted one

	inflight int
	walked   int  // positions that reads went over: what it costs
	dry      bool // nothing can be sent before something changes
	credit   int  // history: bytes that may go before the front's
}

func (r *reader) flow(name string) *flow {
	fl := r.flows[name]
	if fl == nil {
		fl = &flow{reader: r, sender: r.lane.sender(name)}
		r.flows[name] = fl
	}
	return fl
}

// done says whether all up to the end is settled or parked.
func (r *reader) done() bool {
	if r.scan < r.end || r.inflight > 0 {
		return false
	}
	for _, fl := range r.behind {
		if !fl.sender.parked {
			return false
		}
	}
	return true
}

// allowance is what one read may send.
type allowance struct {
	records, bytes int
}

// serve reads once and sends. The cost is in bytes of the link. more says that
// something was read, even if nothing of it could be sent.
func (r *reader) serve(ctx context.Context, f *Forwarder, a allowance, now time.Time) (cost int, more bool) {
	r.ahead = !r.ahead
	if r.ahead {
		if cost, more = r.catchUp(ctx, f, a, now); !more {
			cost, more = r.readOn(ctx, f, a, now)
		}
		return cost, more
	}
	if cost, more = r.readOn(ctx, f, a, now); !more {
		cost, more = r.catchUp(ctx, f, a, now)
	}
	return cost, more
}

// readOn reads where nobody has read yet.
func (r *reader) readOn(ctx context.Context, f *Forwarder, a allowance, now time.Time) (cost int, more bool) {
	from := r.scan
	if from >= r.end {
		return 0, false
	}
	items, next, err := r.lane.q.Read(from, storage.Limit{Records: a.records, Bytes: a.bytes}, func(name string) bool {
		fl := r.flow(name)
		if f.open(fl, now) {
			return false
		}
		fl.fallBehind(from)
		return true
	})
	if err != nil {
		f.Log.Error("queue cannot be read", "queue", r.lane.q.Name(), "error", err)
		return 0, false
	}
	if f.splits(r, items, now) {
		return 0, true
	}
	for _, it := range items {
		if it.Position > r.end {
			break
		}
		fl := r.flow(it.Sender)
		switch {
		case it.Position <= fl.cursor: // it was ahead of the reader, catching up
		case f.open(fl, now):
			cost += f.send(ctx, fl, it, now)
		default:
			fl.fallBehind(it.Position - 1)
		}
	}
	r.walked += int(next - from)
	r.scan = min(next, r.end)
	return cost, r.scan > from
}

// catchUp goes one read further with the pass.
func (r *reader) catchUp(ctx context.Context, f *Forwarder, a allowance, now time.Time) (cost int, more bool) {
	from, ok := r.where(f, now)
	if !ok {
		return 0, false
	}
	room := 0
	for _, fl := range r.behind {
		fl.full = false
		if fl.joined = fl.cursor >= from && f.ready(fl, now); fl.joined {
			room += f.room(fl)
		}
	}
	limit := storage.Limit{Records: min(a.records, room), Bytes: a.bytes}
	items, next, err := r.lane.q.Read(from, limit, func(name string) bool {
		fl := r.flows[name]
		return fl == nil || !fl.behind || !fl.joined
	})
	if err != nil {
		f.Log.Error("queue cannot be read", "queue", r.lane.q.Name(), "error", err)
		return 0, false
	}
	if f.splits(r, items, now) {
		return 0, true
	}
	for _, it := range items {
		fl := r.flow(it.Sender)
		switch {
		case it.Position > r.end || it.Position <= fl.cursor || fl.full:
		case f.room(fl) > 0:
			cost += f.send(ctx, fl, it, now)
			fl.cursor = it.Position
			r.passed++
		default:
			fl.full = true
		}
	}
	r.walked += int(next - from)
	r.steps += int(next - from)
	r.at = min(next, r.end)
	r.level()
	return cost, true
}

// level moves the flows of a pass that have room to where it is, and lets go of
// those that have caught up.
func (r *reader) level() {
	kept := r.behind[:0]
	for _, fl := range r.behind {
		if fl.joined && !fl.full {
			fl.cursor = max(fl.cursor, r.at)
		}
		fl.behind = fl.cursor < r.scan || !fl.joined
		if fl.joined = false; fl.behind {
			kept = append(kept, fl)
		}
	}
	clear(r.behind[len(kept):])
	r.behind = kept
}

// where says from where the pass goes on: at the next flow with room above, or,
// if there is none, at the lowest.
func (r *reader) where(f *Forwarder, now time.Time) (from storage.Position, ok bool) {
	lowest, above := forever, forever
	able, ready, urgent := 0, 0, false
	for _, fl := range r.behind {
		if !f.able(fl, now) {
			continue
		}
		able++
		if !f.ready(fl, now) {
			continue
		}
		ready++
		lowest = min(lowest, fl.cursor)
		if fl.cursor >= r.at {
			above = min(above, fl.cursor)
		} else if 2*f.room(fl) >= r.window(f) {
			urgent = true
		}
	}
	if above < forever && !(urgent && r.passed >= f.Window.Messages) { // those below wait for one window of the others
		return above, true
	}
	if ready == 0 || 2*ready < able && !(urgent && r.worthwhile(able, now)) {
		return 0, false
	}
	r.at, r.passed, r.steps, r.wanted = lowest, 0, 0, time.Time{}
	return lowest, true
}

// worthwhile says whether to turn back for a few that are about to run dry. Where
// many are behind, or records are far between, others are given a moment to want
// it, too.
func (r *reader) worthwhile(able int, now time.Time) bool {
	if able <= few && r.steps <= farBetween*max(1, r.passed) {
		return true
	}
	if r.wanted.IsZero() {
		r.wanted = now
	}
	end := r.wanted.Add(gather)
	if now.Before(end) {
		r.lane.wake(end)
		return false
	}
	return true
}

const (
	few        = 8
	farBetween = 64 // positions for each record that was sent
	gather     = 100 * time.Millisecond
)

// window is how many messages one flow may have under way.
func (r *reader) window(f *Forwarder) int {
	switch l := r.lane; {
	case l.history == nil:
		return f.Window.PerSender
	case l.history == r:
		return max(1, f.Window.PerSender*(100-f.Live.Share)/100)
	}
	return max(1, f.Window.PerSender*f.Live.Share/100)
}

// room is how many more messages of a flow may go.
func (f *Forwarder) room(fl *flow) int { return fl.reader.window(f) - fl.inflight }

// able says whether anything of a flow may go, room apart.
func (f *Forwarder) able(fl *flow, now time.Time) bool {
	l := fl.reader.lane
	return !fl.failing && fl.sender.may(now) && (fl.reader != l.history || !l.barred(fl.sender.name))
}

// open says whether a record that the reader comes to may be sent at once.
func (f *Forwarder) open(fl *flow, now time.Time) bool {
	return !fl.behind && f.room(fl) > 0 && f.able(fl, now)
}

// ready says whether a flow that is behind should be read for: not for every
// single record that its window has room for.
func (f *Forwarder) ready(fl *flow, now time.Time) bool {
	return f.room(fl) >= max(1, fl.reader.window(f)/4) && f.able(fl, now)
}
