package hub

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"holdfast.dev/holdfast/storage"
)

// serial is a far side that records what it takes and answers in order, from one
// goroutine, as the contract asks.
type serial struct {
	mu     sync.Mutex
	got    []string              // "sender body" in order of arrival
	decide func(m Message) error // what it answers; nil: it takes all
	hold   func(m Message) bool  // never answer
	line   chan func()
}

func newSerial(t *testing.T) *serial {
	s := &serial{line: make(chan func(), 100_000)}
	quit := make(chan struct{})
	t.Cleanup(func() { close(quit) })
	go func() {
		for {
			select {
			case fn := <-s.line:
				fn()
			case <-quit:
				return
			}
		}
	}()
	return s
}

func (s *serial) Publish(_ context.Context, m Message, done func(error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.hold != nil && s.hold(m) {
		return
	}
	var err error
	if s.decide != nil {
		err = s.decide(m)
	}
	if err == nil {
		s.got = append(s.got, string(m.From)+" "+string(m.Body))
	}
	s.line <- func() { done(err) }
}

func (s *serial) arrived() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.got)
}

func testCore(t *testing.T, ttl time.Duration) (*Core, *storage.DB) {
	t.Helper()
	db, err := storage.Open(t.TempDir(), storage.Options{SegmentBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Verify(); err != nil {
			t.Errorf("Verify: %v", err)
		}
		if err := db.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	up := func(m *Message) []Dest {
		switch m.Topic {
		case "nowhere":
			return nil
		case "never":
			return []Dest{{Queue: "other"}, {Queue: "up", Priority: 5, Refuse: errors.New("it is too strange")}}
		}
		return []Dest{{Queue: "up", Priority: 5, TTL: ttl}}
	}
	return NewCore(db, storage.SystemClock(), up), db
}

func publish(t *testing.T, h Publisher, from Identity, first, n int) {
	t.Helper()
	var wg sync.WaitGroup
	for i := first; i < first+n; i++ {
		wg.Add(1)
		h.Publish(context.Background(), Message{From: from, Body: fmt.Append(nil, i)}, func(err error) {
			if err != nil {
				t.Errorf("Publish: %v", err)
			}
			wg.Done()
		})
	}
	wg.Wait()
}

// forward runs a Forwarder until the returned function is called.
func forward(t *testing.T, f *Forwarder) (stop func()) {
	t.Helper()
	f.Clock, f.Log = storage.SystemClock(), slog.New(slog.DiscardHandler)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := f.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	}()
	stop = func() { cancel(); <-ended }
	t.Cleanup(stop)
	return stop
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// firsts gives the order of first arrivals of one sender.
func firsts(got []string, from Identity) (order []string, repeats int) {
	seen := map[string]bool{}
	for _, g := range got {
		who, body, _ := strings.Cut(g, " ")
		if who != string(from) {
			continue
		}
		if seen[body] {
			repeats++
			continue
		}
		seen[body] = true
		order = append(order, body)
	}
	return order, repeats
}

func wantInOrder(t *testing.T, got []string, from Identity, n int) (repeats int) {
	t.Helper()
	order, repeats := firsts(got, from)
	if len(order) != n {
		t.Errorf("%s: %d of %d arrived", from, len(order), n)
	}
	for i, b := range order {
		if b != fmt.Sprint(i) {
			t.Errorf("%s: number %s arrived as the %dth", from, b, i)
			break
		}
	}
	return repeats
}

func drained(db *storage.DB) func() bool {
	return func() bool { return db.Queue("up.5").Stats().Pending == 0 }
}

func TestForwarderKeepsOrderAndSettles(t *testing.T) {
	core, db := testCore(t, 0)
	to := newSerial(t)
	forward(t, &Forwarder{From: []*storage.Queue{db.Queue("up.5")}, To: to, Window: Window{PerSender: 7, Messages: 20}})
	var wg sync.WaitGroup
	for _, id := range []Identity{"a", "b", "c"} {
		wg.Go(func() { publish(t, core, id, 0, 500) })
	}
	wg.Wait()
	eventually(t, "drained", drained(db))
	for _, id := range []Identity{"a", "b", "c"} {
		if r := wantInOrder(t, to.arrived(), id, 500); r != 0 {
			t.Errorf("%s: %d repeats though nothing failed", id, r)
		}
	}
}

func TestForwarderSurvivesAnyFailure(t *testing.T) {
	core, db := testCore(t, 0)
	to := newSerial(t)
	rnd := rand.New(rand.NewPCG(1, 2))
	failing := map[Identity]int{} // after a failure the next few of that sender fail too
	to.decide = func(m Message) error {
		if failing[m.From] > 0 {
			failing[m.From]--
			return ErrOffline
		}
		if rnd.IntN(100) == 0 {
			failing[m.From] = 4 // not more: the last message alone would need as many back-offs, each twice as long
			return ErrOffline
		}
		return nil
	}
	forward(t, &Forwarder{From: []*storage.Queue{db.Queue("up.5")}, To: to, Window: Window{PerSender: 8, Messages: 30}})
	var wg sync.WaitGroup
	ids := []Identity{"a", "b", "c", "d", "e"}
	for _, id := range ids {
		wg.Go(func() { publish(t, core, id, 0, 200) })
	}
	wg.Wait()
	eventually(t, "drained", drained(db))
	for _, id := range ids {
		order, _ := firsts(to.arrived(), id)
		if len(order) != 200 {
			t.Errorf("%s: %d of 200 arrived", id, len(order))
		}
	}
	for _, r := range db.Ledger() {
		if r.Delivered != 200 || r.Balance() != 0 {
			t.Errorf("ledger %+v", r)
		}
	}
}

func TestForwarderGoesBackToTheFirstThatFailed(t *testing.T) {
	core, db := testCore(t, 0)
	to := newSerial(t)
	var broken time.Time
	to.decide = func(m Message) error {
		if len(to.got) == 10 && broken.IsZero() {
			broken = time.Now().Add(50 * time.Millisecond)
		}
		if time.Now().Before(broken) { // all that was under way is lost with the connection
			return ErrOffline
		}
		return nil
	}
	forward(t, &Forwarder{From: []*storage.Queue{db.Queue("up.5")}, To: to, Window: Window{PerSender: 5}})
	publish(t, core, "a", 0, 50)
	eventually(t, "drained", drained(db))
	if r := wantInOrder(t, to.arrived(), "a", 50); r != 0 {
		t.Errorf("%d repeats of what had been taken", r)
	}
}

func TestForwarderParksARefusedSenderAndHoldsUpNobody(t *testing.T) {
	core, db := testCore(t, 0)
	to := newSerial(t)
	refuse := true
	to.decide = func(m Message) error {
		if m.From == "bad" && refuse {
			return fmt.Errorf("%w: disabled", ErrRefused)
		}
		return nil
	}
	to.hold = func(m Message) bool { return m.From == "stuck" }
	q := db.Queue("up.5")
	told := make(chan Identity, 10)
	stop := forward(t, &Forwarder{From: []*storage.Queue{q}, To: to, Window: Window{PerSender: 4}, ParkRetry: time.Hour,
		Refused: func(id Identity) { told <- id }})
	for _, id := range []Identity{"bad", "stuck", "good"} {
		publish(t, core, id, 0, 100)
	}
	eventually(t, "good has arrived", func() bool { o, _ := firsts(to.arrived(), "good"); return len(o) == 100 })
	eventually(t, "bad is parked", func() bool { return q.Stats().Parked == 100 })
	if why := q.Parked()["bad"]; !strings.Contains(why, "disabled") {
		t.Errorf("parked because of %q", why)
	}
	if id := <-told; id != "bad" || len(told) > 0 {
		t.Errorf("told of %s, and %d more", id, len(told))
	}
	stop()
	to.mu.Lock()
	refuse, to.hold = false, nil
	to.mu.Unlock()
	forward(t, &Forwarder{From: []*storage.Queue{q}, To: to, ParkRetry: time.Hour})
	eventually(t, "drained after a restart", func() bool { s := q.Stats(); return s.Pending+s.Parked == 0 })
	for _, id := range []Identity{"bad", "stuck", "good"} {
		wantInOrder(t, to.arrived(), id, 100)
	}
}

func TestForwarderParksABadMessageAlone(t *testing.T) {
	core, db := testCore(t, 0)
	to := newSerial(t)
	to.decide = func(m Message) error {
		if string(m.Body) == "3" {
			return ErrBad
		}
		return nil
	}
	forward(t, &Forwarder{From: []*storage.Queue{db.Queue("up.5")}, To: to})
	publish(t, core, "a", 0, 10)
	eventually(t, "the rest has gone", func() bool { s := db.Queue("up.5").Stats(); return s.Pending == 0 && s.Parked == 1 })
	if o, _ := firsts(to.arrived(), "a"); len(o) != 9 {
		t.Errorf("arrived %v", o)
	}
	to.mu.Lock()
	to.decide = nil
	to.mu.Unlock()
	q := db.Queue("up.5")
	q.UnparkRecord(q.ParkedRecords()[0].Position) // a person has mended the far side
	eventually(t, "it has gone too", func() bool { s := q.Stats(); return s.Pending+s.Parked == 0 })
	if o, repeats := firsts(to.arrived(), "a"); len(o) != 10 || repeats != 0 {
		t.Errorf("arrived %v, %d repeats", o, repeats)
	}
}

func TestForwarderTakesUpWhatAPersonUnparked(t *testing.T) {
	core, db := testCore(t, 0)
	to := newSerial(t)
	to.decide = func(m Message) error {
		if m.From == "bad" {
			return ErrRefused
		}
		return nil
	}
	q := db.Queue("up.5")
	forward(t, &Forwarder{From: []*storage.Queue{q}, To: to, ParkRetry: time.Hour})
	publish(t, core, "bad", 0, 20)
	eventually(t, "parked", func() bool { return q.Stats().Parked == 20 })
	to.mu.Lock()
	to.decide = nil
	to.mu.Unlock()
	q.Unpark("bad", nil)
	eventually(t, "drained", func() bool { s := q.Stats(); return s.Pending+s.Parked == 0 })
	if r := wantInOrder(t, to.arrived(), "bad", 20); r != 0 {
		t.Errorf("%d repeats", r)
	}
}

func TestForwarderLetsExpire(t *testing.T) {
	core, db := testCore(t, time.Millisecond)
	publish(t, core, "a", 0, 10)
	time.Sleep(5 * time.Millisecond)
	to := newSerial(t)
	forward(t, &Forwarder{From: []*storage.Queue{db.Queue("up.5")}, To: to})
	eventually(t, "expired", func() bool { r := db.Ledger()[0]; return r.Expired == 10 })
	if got := to.arrived(); len(got) != 0 {
		t.Errorf("sent %v after their time", got)
	}
}

func TestForwarderLetsExpireWhileThereIsNoWay(t *testing.T) {
	core, db := testCore(t, time.Millisecond)
	publish(t, core, "a", 0, 200)
	time.Sleep(5 * time.Millisecond)
	core = NewCore(db, storage.SystemClock(), func(*Message) []Dest { return []Dest{{Queue: "up", Priority: 5}} })
	publish(t, core, "a", 200, 1)
	to := &link{serial: newSerial(t), ch: make(chan struct{})}
	forward(t, &Forwarder{From: []*storage.Queue{db.Queue("up.5")}, To: to})
	eventually(t, "expired", func() bool { r := db.Ledger()[0]; return r.Expired == 200 && r.Pending == 1 })
	to.set(true)
	eventually(t, "the rest has gone", drained(db))
	if got := to.arrived(); fmt.Sprint(got) != "[a 200]" {
		t.Errorf("arrived %v", got)
	}
}

// link is a Publisher whose way is up or down.
type link struct {
	*serial
	lmu sync.Mutex
	up  bool
	ch  chan struct{}
}

func (l *link) Up() bool                 { l.lmu.Lock(); defer l.lmu.Unlock(); return l.up }
func (l *link) Changed() <-chan struct{} { l.lmu.Lock(); defer l.lmu.Unlock(); return l.ch }
func (l *link) set(up bool) {
	l.lmu.Lock()
	defer l.lmu.Unlock()
	l.up = up
	close(l.ch)
	l.ch = make(chan struct{})
}

func TestForwarderWaitsForTheLink(t *testing.T) {
	core, db := testCore(t, 0)
	to := &link{serial: newSerial(t), ch: make(chan struct{})}
	to.decide = func(Message) error {
		if !to.Up() {
			t.Error("sent while the link is down")
		}
		return nil
	}
	forward(t, &Forwarder{From: []*storage.Queue{db.Queue("up.5")}, To: to})
	publish(t, core, "a", 0, 10)
	to.set(true)
	eventually(t, "drained", drained(db))
	wantInOrder(t, to.arrived(), "a", 10)
}

func TestCoreAnswersInOrderAndCountsTheUnrouted(t *testing.T) {
	core, db := testCore(t, 0)
	var mu sync.Mutex
	var order []int
	var wg sync.WaitGroup
	for i := range 40 {
		m := Message{From: "a", Body: []byte("x")}
		var want error
		switch i % 4 {
		case 3:
			m.Topic, want = "never", ErrBad
		case 1:
			m.Body, want = make([]byte, 300<<10), ErrBad
		case 2:
			m.Topic = "nowhere"
		}
		wg.Add(1)
		core.Publish(context.Background(), m, func(err error) {
			defer wg.Done()
			if !errors.Is(err, want) || (want == nil) != (err == nil) {
				t.Errorf("message %d: %v, want %v", i, err, want)
			}
			mu.Lock()
			order = append(order, i)
			mu.Unlock()
		})
	}
	wg.Wait()
	if !slices.IsSorted(order) {
		t.Errorf("answers came in the order %v", order)
	}
	eventually(t, "unrouted counted", func() bool {
		var kept, nowhere uint64
		for _, r := range db.Ledger() {
			kept, nowhere = kept+r.Accepted, nowhere+r.Unrouted
		}
		return kept == 10 && nowhere == 10
	})
}

// doer answers with a fixed reply.
type doer string

func (d doer) Do(context.Context, Command) (Reply, error) {
	return Reply{Status: 200, Body: []byte(d)}, nil
}

func TestCoreFindsWhoIsAttached(t *testing.T) {
	core, _ := testCore(t, 0)
	ctx := context.Background()
	call := func() string {
		r, err := core.Do(ctx, Command{Kind: Method, To: "a", Name: "x"})
		if err != nil {
			return err.Error()
		}
		return string(r.Body)
	}
	if _, err := core.Do(ctx, Command{Kind: Method, To: "a"}); !errors.Is(err, ErrUnknown) {
		t.Errorf("nobody attached: %v", err)
	}
	changed := core.Changed()
	old := core.Attach("a", doer("first"), Method)
	select {
	case <-changed:
	default:
		t.Error("no word of the change")
	}
	core.Attach("a", doer("second"), Method)
	old() // must not take the newer one away
	if got := call(); got != "second" {
		t.Errorf("answered by %q", got)
	}
	if _, err := core.Do(ctx, Command{Kind: CloudToDevice, To: "a"}); !errors.Is(err, ErrUnknown) {
		t.Errorf("kind that it does not listen for: %v", err)
	}
}

func TestHealthNamesTheFirstFailure(t *testing.T) {
	ok := func() error { return nil }
	h := Health{
		{Name: "disk", Test: ok},
		{Name: "link", Hint: "look at the cable", Test: func() error { return errors.New("no carrier") }},
		{Name: "cloud", Test: func() error { t.Error("asked though the link is down"); return nil }},
	}
	r := h.Report()
	if len(r) != 3 || !r[0].OK || r[2].OK {
		t.Fatalf("report %+v", r)
	}
	if f := r[1]; f.OK || f.Name != "link" || f.Reason != "no carrier" || f.Hint == "" {
		t.Errorf("first finding %+v", f)
	}
}
