package hub

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"holdfast.dev/holdfast/storage"
)

// bubble is the clock of a test that makes its own time.
type bubble struct{ boot uint64 }

var dawn = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC) // of every such test

func (b bubble) Now() storage.Stamp {
	return storage.Stamp{Boot: b.boot, Up: time.Since(dawn), Wall: time.Now(), Grade: storage.GradeNTP}
}

func (b bubble) Age(s storage.Stamp) (least, most time.Duration) {
	if s.Boot != b.boot {
		return 0, -1
	}
	d := b.Now().Up - s.Up
	return d, d
}

// arrival is one message at the far end of a thin line.
type arrival struct {
	from    Identity
	n       int // its number, the body
	lane    string
	history bool
	waited  time.Duration // since it came to the gateway
}

// thin is a line that takes a message each gap, whoever's, first come, first
// served, and answers after delay.
type thin struct {
	gap, delay time.Duration
	decide     func(m Message) error // nil: it takes all
	hold       func(m Message) bool  // never answered, and in nobody's way
	line       chan func(up bool)

	mu   sync.Mutex
	got  []arrival
	cut  int                    // how often the link went or came: what was under way is lost
	lost map[Identity]time.Time // until when whatever comes of a sender is lost
	down bool
	ch   chan struct{}
}

func newThin(t *testing.T, gap, delay time.Duration) *thin {
	th := &thin{gap: gap, delay: delay, line: make(chan func(bool), 100_000), ch: make(chan struct{}), lost: map[Identity]time.Time{}}
	quit, ended := make(chan struct{}), make(chan struct{})
	t.Cleanup(func() { close(quit); <-ended })
	go func() {
		defer close(ended)
		for {
			select {
			case pass := <-th.line:
				if up := th.Up(); up {
					time.Sleep(th.gap) // it is bubble time
					pass(th.Up())
				} else {
					pass(false)
				}
			case <-quit:
				return
			}
		}
	}()
	return th
}

func (th *thin) Publish(_ context.Context, m Message, done func(error)) {
	th.mu.Lock()
	defer th.mu.Unlock()
	if th.hold != nil && th.hold(m) {
		return
	}
	handed, cut := time.Now(), th.cut
	th.line <- func(up bool) {
		err := th.take(m, handed, cut, up)
		if th.delay > 0 {
			time.AfterFunc(th.delay, func() { done(err) })
			return
		}
		done(err)
	}
}

// take takes m, or loses it, and with it all of its sender that was under way, as
// a connection does, and for a moment what follows.
func (th *thin) take(m Message, handed time.Time, cut int, up bool) error {
	th.mu.Lock()
	defer th.mu.Unlock()
	err := error(ErrOffline)
	if up && cut == th.cut && handed.After(th.lost[m.From]) {
		err = nil
		if th.decide != nil {
			err = th.decide(m)
		}
	}
	if err != nil {
		th.lost[m.From] = time.Now().Add(th.delay + time.Millisecond)
		return err
	}
	number, _, _ := strings.Cut(string(m.Body), " ")
	n, _ := strconv.Atoi(number)
	th.got = append(th.got, arrival{m.From, n, m.Topic, m.History, time.Since(dawn) - m.Arrived.Up})
	return nil
}

func (th *thin) arrived() []arrival {
	th.mu.Lock()
	defer th.mu.Unlock()
	return slices.Clone(th.got)
}

func (th *thin) count() int { th.mu.Lock(); defer th.mu.Unlock(); return len(th.got) }

func (th *thin) Up() bool                 { th.mu.Lock(); defer th.mu.Unlock(); return !th.down }
func (th *thin) Changed() <-chan struct{} { th.mu.Lock(); defer th.mu.Unlock(); return th.ch }
func (th *thin) set(up bool) {
	th.mu.Lock()
	defer th.mu.Unlock()
	th.down = !up
	th.cut++
	close(th.ch)
	th.ch = make(chan struct{})
}

// site is a gateway in a bubble. A message's topic is its priority.
type site struct {
	t    *testing.T
	dir  string
	boot uint64
	db   *storage.DB
	core *Core
	body []byte // goes behind a message's number
	next map[Identity]int
}

func newSite(t *testing.T) *site {
	s := &site{t: t, dir: memory(t), next: map[Identity]int{}}
	s.open()
	t.Cleanup(func() { s.close() })
	return s
}

// memory is a folder in memory, where there is one: no disk is tested here, and
// time stands still while one is written.
func memory(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "holdfast-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func (s *site) open() {
	s.boot++
	clock := bubble{s.boot}
	// No linger: it looks on until time has gone by, and in a bubble none does.
	db, err := storage.Open(s.dir, storage.Options{Clock: clock, SegmentBytes: 2 << 20, Linger: -1})
	if err != nil {
		s.t.Fatal(err)
	}
	s.db = db
	s.core = NewCore(db, clock, func(m *Message) []Dest {
		return []Dest{{Queue: "up", Priority: int(m.Topic[0] - '0')}}
	})
}

func (s *site) close() {
	if err := s.db.Verify(); err != nil {
		s.t.Errorf("Verify: %v", err)
	}
	if err := s.db.Close(); err != nil {
		s.t.Errorf("Close: %v", err)
	}
}

// say publishes n messages of each, in turn, and waits until they are kept.
func (s *site) say(priority, n int, ids ...Identity) {
	s.t.Helper()
	var wg sync.WaitGroup
	for range n {
		for _, id := range ids {
			wg.Add(1)
			m := Message{From: id, Topic: strconv.Itoa(priority), Body: fmt.Appendf(nil, "%d %s", s.next[id], s.body)}
			s.next[id]++
			s.core.Publish(s.t.Context(), m, func(err error) {
				if err != nil {
					s.t.Errorf("Publish: %v", err)
				}
				wg.Done()
			})
		}
	}
	wg.Wait()
}

func (s *site) lanes() (qs []*storage.Queue) {
	for p := range 10 {
		qs = append(qs, s.db.Queue(Lane("up", p)))
	}
	return qs
}

// run runs a Forwarder until stop is called.
func (s *site) run(f *Forwarder) (stop func()) {
	f.Clock, f.Log = bubble{s.boot}, slog.New(slog.DiscardHandler)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := f.Run(ctx); err != nil {
			s.t.Errorf("Run: %v", err)
		}
	}()
	stop = sync.OnceFunc(func() { cancel(); <-ended })
	s.t.Cleanup(stop)
	return stop
}

func (s *site) pending() (n uint64) {
	for _, q := range s.lanes() {
		n += q.Stats().Pending + q.Stats().Parked
	}
	return n
}

// until waits in bubble time.
func (s *site) until(what string, most time.Duration, ok func() bool) {
	s.t.Helper()
	for end := time.Now().Add(most); !ok(); {
		if time.Now().After(end) {
			s.t.Fatalf("not within %v: %s", most, what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func senders(n int) (ids []Identity) {
	for i := range n {
		ids = append(ids, Identity(fmt.Sprintf("s%03d", i)))
	}
	return ids
}

// judge holds what has arrived against what was said: all of it, each sender's
// history in order and the rest in order. It gives the repeats.
func (s *site) judge(got []arrival) (repeats int) {
	s.t.Helper()
	seen := map[string]bool{}
	last := map[string]int{}
	for _, a := range got {
		key := fmt.Sprintf("%s %d", a.from, a.n)
		if seen[key] {
			repeats++
			continue
		}
		seen[key] = true
		stream := fmt.Sprintf("%s, lane %s, history %v", a.from, a.lane, a.history)
		if before, ok := last[stream]; ok && a.n < before {
			s.t.Errorf("%s: number %d came after %d", stream, a.n, before)
			return repeats
		}
		last[stream] = a.n
	}
	for id, n := range s.next {
		for i := range n {
			if !seen[fmt.Sprintf("%s %d", id, i)] {
				s.t.Errorf("%s: number %d of %d never arrived", id, i, n)
				break
			}
		}
	}
	return repeats
}
