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
	PerSender int // messages of one sender in one lane: 100 if zero
}

// Live says where fresh messages go beside a backlog instead of behind it. The
// zero value is nowhere.
type Live struct {
	Lanes   []*storage.Queue // some of a Forwarder's From
	Share   int              // percent of such a lane, in bytes, for what is fresh while both have something: 50 if zero, 1 to 99
	Backlog int              // from so many messages on, the first of them 10 s old, what waits is history: 1000 if zero
}

// Forwarder moves the messages of one place, all its lanes, to the next custodian.
// It reads behind what it has read already, hands over, and settles what has been
// taken.
//
// Order is kept for each sender in each lane, and one sender that is slow, refused
// or failing holds up nobody else. A lane that is live and has a backlog is read at
// two places (see lane): the order of a sender is kept in each of the two. How the
// lanes, and the two places, take turns is told in turns.go.
//
// A sender at one place that is read is a flow:
//
//	state    event                           next     what is done
//	level    its window is full              behind   what the reader comes to is left for later
//	level    its sender waits or is parked   behind   likewise
//	behind   its window has room             behind   its records are read on where it stopped, see reader
//	behind   has caught up with the reader   level
//	any      done(ErrOffline, ErrFull,       failing  nothing more is sent
//	         ErrRefused)
//	failing  all under way have answered     behind   it goes back to the first that failed
//	any      its sender is unparked          failing  it goes back to the first that there is
//	any      its lane is split               gone     who reads next finds what was not taken; none of the
//	                                                  sender before all under way have answered
//
// What is true of a sender is true of all its flows in a lane:
//
//	state    event                           next     what is done
//	free     a flow of it went back          waiting  back-off, 200 ms doubling to 30 s
//	waiting  time, or the link changes       free
//	free     done(ErrRefused)                parked   the store keeps it parked, with the reason
//	parked   ParkRetry                       parked   the store is told to unpark it: one more trial
//	parked   unparked, by whomever           free
type Forwarder struct {
	From      []*storage.Queue // lanes, the most urgent first
	To        Publisher        // may be a Link: then nothing is sent while it is down
	Window    Window
	Live      Live
	ParkRetry time.Duration  // when a refused sender is tried again: 10 min if zero
	Refused   func(Identity) // told of each sender that is parked; may be nil, must not block
	Clock     storage.Clock  // of the store, too
	Log       *slog.Logger

	lanes   []*lane
	count   int       // under way
	bytes   int       // of bodies
	moved   time.Time // last answer
	pace    pace      // while a lane is split
	stalled int       // of those under way, which the pace does not count
	swept   time.Time // last sweep
	wakeup  chan struct{}

	mu     sync.Mutex
	events []event
}

// event is an answer of Publish.
type event struct {
	f     *flow
	pos   storage.Position
	bytes int
	sent  time.Time
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
		f.settle() // before more is read: what has ended must not be found again
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
	or := func(n *int, def int) {
		if *n <= 0 {
			*n = def
		}
	}
	or(&f.Window.Messages, 2000)
	or(&f.Window.Bytes, 8<<20)
	or(&f.Window.PerSender, 100)
	or(&f.Live.Share, 50)
	or(&f.Live.Backlog, 1000)
	f.Live.Share = min(f.Live.Share, 99)
	if f.ParkRetry <= 0 {
		f.ParkRetry = 10 * time.Minute
	}
	f.wakeup = make(chan struct{}, 1)
	f.lanes, f.events, f.count, f.bytes, f.stalled = nil, nil, 0, 0, 0
	for _, q := range f.From {
		l := newLane(q, slices.Contains(f.Live.Lanes, q))
		f.lanes = append(f.lanes, l)
		go f.watch(ctx, l, q.Changed()) // taken before the first read
	}
}

// watch wakes the loop at every change of a queue. The next channel is taken
// before the loop is woken, so that no change falls between.
func (f *Forwarder) watch(ctx context.Context, l *lane, ch <-chan struct{}) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-ch:
			ch = l.q.Changed()
			l.changed.Store(true)
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
	now := time.Now()
	for _, e := range events {
		l := e.f.reader.lane
		if !slices.Contains(f.lanes, l) {
			continue // of an earlier Run, which a panic has ended
		}
		f.count--
		f.bytes -= e.bytes
		l.count--
		l.bytes -= e.bytes
		e.f.reader.inflight--
		e.f.inflight--
		f.moved, l.moved, e.f.moved = now, now, now
		f.judge(e)
		if e.f.failing && e.f.inflight == 0 {
			e.f.goBack()
			e.f.sender.delay(now)
			l.wake(e.f.sender.retry)
		}
		l.stir()
	}
	for _, l := range f.lanes {
		l.revive()
		l.join()
	}
}

func (f *Forwarder) judge(e event) {
	fl, l := e.f, e.f.reader.lane
	switch {
	case e.err == nil:
		l.end(e.pos, storage.Delivered)
		fl.sender.backoff = 0
		f.pace.answered(e.sent, time.Since(e.sent), f.Window.Messages)
	case errors.Is(e.err, ErrBad):
		f.Log.Warn("message is refused for good and parked", "sender", fl.sender.name, "queue", l.q.Name(), "position", e.pos, "error", e.err)
		l.q.ParkRecord(e.pos, e.err.Error())
	case errors.Is(e.err, ErrRefused):
		fl.fail(e.pos)
		if !fl.sender.parked {
			f.park(l, fl.sender, e.err)
		}
	default:
		fl.fail(e.pos)
	}
}

func (f *Forwarder) park(l *lane, s *sender, err error) {
	f.Log.Warn("sender is refused and parked", "sender", s.name, "queue", l.q.Name(), "error", err, "retry", f.ParkRetry)
	s.parked, s.retry = true, time.Now().Add(f.ParkRetry+jitter(f.ParkRetry/10))
	l.wake(s.retry)
	l.q.Park(s.name, err.Error(), nil)
	if f.Refused != nil {
		f.Refused(Identity(s.name))
	}
}

// move sends what may be sent and says how long to wait for more: zero if there
// is more to do at once.
func (f *Forwarder) move(ctx context.Context) time.Duration {
	now := time.Now()
	for _, l := range f.lanes {
		if l.changed.Swap(false) {
			l.stir()
		}
		l.look(now)
	}
	f.look(now)
	if f.turn(ctx, now) {
		return 0
	}
	wait := time.Hour
	if f.pace.on {
		wait = paceLook
	}
	for _, l := range f.lanes {
		if !l.due.IsZero() {
			wait = min(wait, max(time.Millisecond, l.due.Sub(now)))
		}
	}
	return wait
}

// send hands one record over and says what it costs of the link.
func (f *Forwarder) send(ctx context.Context, fl *flow, it storage.Item, now time.Time) (cost int) {
	l := fl.reader.lane
	m, err := Decode(&it)
	if err != nil {
		f.Log.Error("record cannot be read and is parked", "queue", l.q.Name(), "position", it.Position, "error", err)
		l.q.ParkRecord(it.Position, err.Error())
		return 0
	}
	m.History = it.Position <= l.past
	pos, size := it.Position, len(it.Body)
	if fl.inflight == 0 {
		fl.moved = now
	}
	fl.inflight++
	fl.reader.inflight++
	l.count++
	l.bytes += size
	f.count++
	f.bytes += size
	f.To.Publish(ctx, m, func(err error) { f.answer(event{fl, pos, size, now, err}) })
	return size + overhead
}

// sweep reads the heads of the lanes while there is no way to send, for the store
// ends what has outlived its time when it is read, and its space comes back. It stops
// where something has not: what stands behind is younger, and is judged in its turn.
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
			more, after = next > after && len(items) == 0, next
		}
	}
	return sweepPause
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
		for _, s := range l.senders {
			if !s.parked {
				s.retry, s.backoff = time.Time{}, 0
			}
		}
		l.counted = time.Time{} // what waits now is the backlog of an outage
		l.stir()
	}
	f.pace.begin()
}

// jitter is a random time between half of d and d, so that many who failed
// together do not come back together.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d/2+1) }
