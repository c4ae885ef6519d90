package hub

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"holdfast.dev/holdfast/storage"
)

// Window bounds what a Forwarder has under way. The zero value works.
type Window struct {
	Messages  int // in all: 2000 if zero
	Bytes     int // of bodies, in all: 8 MiB if zero
	PerSender int // messages of one sender: 100 if zero
}

// Forwarder moves the messages of one place, all its lanes, to the next custodian.
// It reads behind what it has read already, hands over, and settles what has been
// taken. Order is kept for each sender in each lane, and one sender that is slow,
// refused or failing holds up nobody else.
//
// A sender in a lane is a flow:
//
//	state     event                        next       what is done
//	level     window full                  behind     what the lane reads on is left for later
//	behind    window has room              behind     its own records are read from where it stopped
//	behind    caught up with the lane      level
//	any       done(ErrOffline, ErrFull)    failing    nothing more is sent
//	failing   all under way have answered  waiting    it goes back to the first that failed; back-off
//	any       done(ErrRefused)             parked     the store keeps it parked, with the reason
//	waiting   time, or the link changes    behind
//	parked    ParkRetry                    behind     unparked: one more trial
type Forwarder struct {
	From      []*storage.Queue // lanes, the most urgent first
	To        Publisher        // may be a Link: then nothing is sent while it is down
	Window    Window
	ParkRetry time.Duration  // when a refused sender is tried again: 10 min if zero
	Refused   func(Identity) // told of each sender that is parked; may be nil, must not block
	Clock     storage.Clock
	Log       *slog.Logger

	lanes  []*lane
	count  int // under way
	bytes  int
	swept  time.Time // last sweep
	wakeup chan struct{}

	mu     sync.Mutex
	events []event
}

// event is an answer of Publish.
type event struct {
	f     *flow
	pos   storage.Position
	bytes int
	err   error
}

const (
	minBackoff = 200 * time.Millisecond
	maxBackoff = 30 * time.Second
	firstTrial = 5 * time.Second // of senders that an earlier process parked
	chunk      = 64              // records of one read
	sweepPause = 15 * time.Second
)

// Run forwards until ctx ends.
func (f *Forwarder) Run(ctx context.Context) error {
	f.start(ctx)
	link, _ := f.To.(Link)
	for ctx.Err() == nil {
		var changed <-chan struct{}
		if link != nil {
			changed = link.Changed() // before Up is asked
		}
		f.take()
		var wait time.Duration
		if link == nil || link.Up() {
			wait = f.move(ctx)
		} else {
			wait = f.sweep()
		}
		f.settle()
		if wait <= 0 {
			continue
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-f.wakeup:
		case <-timer.C:
		case <-changed:
			f.retryNow()
		}
		timer.Stop()
	}
	f.take()
	f.settle()
	return nil
}

func (f *Forwarder) start(ctx context.Context) {
	if f.Window.Messages <= 0 {
		f.Window.Messages = 2000
	}
	if f.Window.Bytes <= 0 {
		f.Window.Bytes = 8 << 20
	}
	if f.Window.PerSender <= 0 {
		f.Window.PerSender = 100
	}
	if f.ParkRetry <= 0 {
		f.ParkRetry = 10 * time.Minute
	}
	f.wakeup = make(chan struct{}, 1)
	f.lanes, f.events, f.count, f.bytes = nil, nil, 0, 0
	for _, q := range f.From {
		l := &lane{q: q, scan: q.Checkpoint(), flows: map[string]*flow{}, ended: map[storage.Outcome][]storage.Position{}}
		for sender := range q.Parked() {
			fl := l.flow(sender)
			fl.parked, fl.retry = true, time.Now().Add(jitter(firstTrial))
		}
		for _, r := range q.ParkedRecords() {
			l.flow(r.Sender) // to be there when they are unparked
		}
		f.lanes = append(f.lanes, l)
		go f.watch(ctx, q, q.Changed()) // taken before the first read
	}
}

// watch wakes the loop at every change of a queue. The next channel is taken
// before the loop is woken, so that no change falls between.
func (f *Forwarder) watch(ctx context.Context, q *storage.Queue, ch <-chan struct{}) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-ch:
			ch = q.Changed()
			f.wake()
		}
	}
}

func (f *Forwarder) wake() {
	select {
	case f.wakeup <- struct{}{}:
	default:
	}
}

func (f *Forwarder) answer(e event) {
	f.mu.Lock()
	f.events = append(f.events, e)
	f.mu.Unlock()
	f.wake()
}

// take works off the answers that have come.
func (f *Forwarder) take() {
	f.mu.Lock()
	events := f.events
	f.events = nil
	f.mu.Unlock()
	for _, e := range events {
		if !slices.Contains(f.lanes, e.f.lane) {
			continue // of an earlier Run, which a panic has ended
		}
		f.count--
		f.bytes -= e.bytes
		e.f.inflight--
		f.judge(e)
		if e.f.failing && e.f.inflight == 0 {
			e.f.goBack()
		}
	}
	for _, l := range f.lanes {
		l.revive()
	}
}

func (f *Forwarder) judge(e event) {
	fl := e.f
	switch {
	case e.err == nil:
		fl.lane.end(e.pos, storage.Delivered)
		fl.backoff = 0
	case errors.Is(e.err, ErrBad):
		f.Log.Warn("message is refused for good and parked", "sender", fl.sender, "queue", fl.lane.q.Name(), "position", e.pos, "error", e.err)
		fl.lane.q.ParkRecord(e.pos, e.err.Error())
	case errors.Is(e.err, ErrRefused):
		fl.fail(e.pos)
		if !fl.parked {
			f.park(fl, e.err)
		}
	default:
		fl.fail(e.pos)
	}
}

func (f *Forwarder) park(fl *flow, err error) {
	f.Log.Warn("sender is refused and parked", "sender", fl.sender, "queue", fl.lane.q.Name(), "error", err, "retry", f.ParkRetry)
	fl.parked, fl.retry = true, time.Now().Add(f.ParkRetry+jitter(f.ParkRetry/10))
	fl.lane.q.Park(fl.sender, err.Error(), nil)
	if f.Refused != nil {
		f.Refused(Identity(fl.sender))
	}
}

// move sends what may be sent and says how long to wait for more: zero if there
// is more to do at once.
func (f *Forwarder) move(ctx context.Context) time.Duration {
	wait, now := time.Hour, time.Now()
	for _, l := range f.lanes {
		for _, fl := range l.flows {
			if d := fl.retry.Sub(now); d > 0 {
				wait = min(wait, d)
				continue
			}
			if fl.parked && !fl.retry.IsZero() {
				fl.retry = time.Time{}
				fl.lane.q.Unpark(fl.sender, nil) // revive sees it
			}
			if fl.behind && f.ready(fl, now) && f.catchUp(ctx, fl) {
				wait = 0
			}
		}
		if f.readOn(ctx, l, now) {
			wait = 0
		}
		if wait == 0 || f.full() {
			break // a lane waits for the more urgent ones
		}
	}
	return wait
}

func (f *Forwarder) full() bool {
	return f.count >= f.Window.Messages || f.bytes >= f.Window.Bytes
}

// ready says whether a flow that is behind should be read for: not for every
// single record that its window has room for, that would read the index through
// again and again.
func (f *Forwarder) ready(fl *flow, now time.Time) bool {
	free := f.Window.PerSender - fl.inflight
	return !fl.failing && !fl.parked && !now.Before(fl.retry) && !f.full() && free >= max(1, f.Window.PerSender/4)
}

// open says whether a record that the lane comes to may be sent at once.
func (f *Forwarder) open(fl *flow, now time.Time) bool {
	return !fl.behind && !fl.failing && !fl.parked && !now.Before(fl.retry) && fl.inflight < f.Window.PerSender
}

// catchUp sends records of one flow from where it stopped.
func (f *Forwarder) catchUp(ctx context.Context, fl *flow) (moved bool) {
	limit := storage.Limit{Records: min(f.Window.PerSender-fl.inflight, chunk), Bytes: f.Window.Bytes}
	items, next, err := fl.lane.q.Read(fl.cursor, limit, func(s string) bool { return s != fl.sender })
	if err != nil {
		f.Log.Error("queue cannot be read", "queue", fl.lane.q.Name(), "error", err)
		return false
	}
	for _, it := range items {
		f.send(ctx, fl, it)
	}
	fl.cursor = next
	fl.behind = next < fl.lane.scan || len(items) == limit.Records
	return len(items) > 0
}

// readOn reads the lane where nobody has read yet.
func (f *Forwarder) readOn(ctx context.Context, l *lane, now time.Time) (moved bool) {
	if f.full() {
		return false
	}
	from := l.scan
	items, next, err := l.q.Read(from, storage.Limit{Records: chunk, Bytes: f.Window.Bytes}, func(s string) bool {
		fl := l.flow(s)
		if f.open(fl, now) {
			return false
		}
		fl.fallBehind(from)
		return true
	})
	if err != nil {
		f.Log.Error("queue cannot be read", "queue", l.q.Name(), "error", err)
		return false
	}
	l.scan = next
	for _, it := range items {
		fl := l.flow(it.Sender)
		switch {
		case it.Position <= fl.cursor: // it was ahead of the lane, catching up
		case f.open(fl, now):
			f.send(ctx, fl, it)
		default:
			fl.fallBehind(it.Position - 1)
		}
	}
	return next > from
}

// send hands one record over, unless its time is over.
func (f *Forwarder) send(ctx context.Context, fl *flow, it storage.Item) {
	if f.expired(it) {
		fl.lane.end(it.Position, storage.Expired)
		return
	}
	m, err := Decode(&it)
	if err != nil {
		f.Log.Error("record cannot be read and is parked", "queue", fl.lane.q.Name(), "position", it.Position, "error", err)
		fl.lane.q.ParkRecord(it.Position, err.Error())
		return
	}
	pos, size := it.Position, len(it.Body)
	fl.inflight++
	f.count++
	f.bytes += size
	f.To.Publish(ctx, m, func(err error) { f.answer(event{fl, pos, size, err}) })
}

// sweep ends what is at the head of the lanes and has outlived its time while
// there is no way to send it, so that its space comes back. It stops at the first
// that has not: what stands behind is younger, and is judged when it is sent.
func (f *Forwarder) sweep() time.Duration {
	if wait := sweepPause - time.Since(f.swept); wait > 0 || f.count > 0 {
		return max(wait, time.Second) // what is under way may have arrived
	}
	f.swept = time.Now()
	for _, l := range f.lanes {
		for after, more := l.q.Checkpoint(), true; more; {
			items, next, err := l.q.Read(after, storage.Limit{Records: chunk, Bytes: f.Window.Bytes}, nil)
			if err != nil {
				f.Log.Error("queue cannot be read", "queue", l.q.Name(), "error", err)
				return sweepPause
			}
			more = next > after
			after = next
			for _, it := range items {
				if more = f.expired(it); !more {
					break
				}
				l.end(it.Position, storage.Expired)
			}
		}
	}
	return sweepPause
}

func (f *Forwarder) expired(it storage.Item) bool {
	least, _ := f.Clock.Age(it.Stamp)
	return it.TTL > 0 && least >= it.TTL
}

// settle tells the store what has ended.
func (f *Forwarder) settle() {
	for _, l := range f.lanes {
		for o, ps := range l.ended {
			if len(ps) > 0 {
				l.q.Settle(ps, o, nil)
				l.ended[o] = nil
			}
		}
	}
}

// retryNow lets those that wait try at once: the link has changed.
func (f *Forwarder) retryNow() {
	for _, l := range f.lanes {
		for _, fl := range l.flows {
			if !fl.parked {
				fl.retry, fl.backoff = time.Time{}, 0
			}
		}
	}
}

// jitter is a random time between half of d and d, so that many who failed
// together do not come back together.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d/2+1) }
