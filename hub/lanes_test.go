package hub

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"
)

func TestLowlyLanesHaveTheirShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		th := newThin(t, time.Millisecond, 10*time.Millisecond)
		s.say(0, 1500, "urgent", "urgent too")
		s.say(5, 400, "usual")
		s.say(9, 400, "lowly")
		s.run(&Forwarder{From: s.lanes(), To: th, Window: Window{Messages: 100}})
		s.until("2000 have gone", time.Minute, func() bool { return th.count() >= 2000 })
		n := map[string]int{}
		for _, a := range th.arrived()[:2000] {
			n[a.lane]++
		}
		// One byte for 24: of 26 parts the two lower lanes have one each, and the
		// lowest a little more, for what the middle one sends.
		if n["5"] < 70 || n["5"] > 85 || n["9"] < 70 || n["9"] > 90 {
			t.Errorf("of 2000 messages %v went by lane, want 77 or so of lanes 5 and 9", n)
		}
		s.until("drained", time.Minute, func() bool { return s.pending() == 0 })
		if r := s.judge(th.arrived()); r > 0 {
			t.Errorf("%d repeats", r)
		}
	})
}

// A share is of bytes: a few big messages must not take the link of many small ones.
func TestLowlyLanesShareIsInBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		th := newThin(t, time.Millisecond, 10*time.Millisecond)
		s.say(0, 3000, "urgent", "urgent too")
		s.body = make([]byte, 16<<10)
		s.say(9, 50, "lowly")
		s.run(&Forwarder{From: s.lanes(), To: th, Window: Window{Messages: 100}})
		s.until("5000 have gone", time.Minute, func() bool { return th.count() >= 5000 })
		n := 0
		for _, a := range th.arrived()[:5000] {
			if a.lane == "9" {
				n++
			}
		}
		// 5000 of some 300 bytes, one byte in 24 of that: 4 of some 16 KiB.
		if n < 2 || n > 7 {
			t.Errorf("%d big messages went beside 5000 small ones, want 4 or so", n)
		}
	})
}

func TestLowlyMessageIsSeenBesideAFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		th := newThin(t, time.Millisecond, 0)
		s.say(0, 5000, "flood")
		s.run(&Forwarder{From: s.lanes(), To: th, Window: Window{Messages: 50}})
		s.until("the flood runs", time.Minute, func() bool { return th.count() >= 100 })
		s.say(9, 1, "lowly")
		s.until("it has gone", 300*time.Millisecond, func() bool {
			return slices.ContainsFunc(th.arrived(), func(a arrival) bool { return a.from == "lowly" })
		})
	})
}

func TestUrgentFindsRoomBesideSlow(t *testing.T) {
	for _, tt := range []struct{ slow, other int }{{9, 0}, {0, 9}} {
		t.Run(fmt.Sprintf("%d beside %d", tt.other, tt.slow), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t)
				th := newThin(t, time.Millisecond, 0)
				th.hold = func(m Message) bool { return m.Topic == strconv.Itoa(tt.slow) }
				s.say(tt.slow, 10, senders(100)...)
				f := &Forwarder{From: s.lanes(), To: th, Window: Window{Messages: 200}}
				stop := s.run(f)
				time.Sleep(time.Second)
				s.say(tt.other, 100, "other")
				s.until("it has gone", time.Second, func() bool { return th.count() == 100 })
				stop()
				if f.count < 140 || f.count > 150 {
					t.Errorf("%d slow ones under way, want three quarters of 200", f.count)
				}
			})
		})
	}
}

func percentile(ds []time.Duration, p int) time.Duration {
	slices.Sort(ds)
	return ds[min(len(ds)-1, len(ds)*p/100)]
}

// TestLiveBesideBacklog drains 100,000 messages over a line of 500 a second, to
// which 50 senders add one each second.
func TestLiveBesideBacklog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const backlog = 100_000
		s, ids := newSite(t), senders(50)
		th := newThin(t, 2*time.Millisecond, 40*time.Millisecond)
		th.set(false)
		f := &Forwarder{From: s.lanes(), To: th, Live: Live{Lanes: s.lanes()[5:6]}}
		s.run(f)
		s.say(5, backlog/len(ids), ids...)
		time.Sleep(time.Minute)
		th.set(true)
		time.Sleep(time.Millisecond) // it has seen what there is
		began, fresh := time.Now(), 0
		for s.db.Queue("up.5").Stats().Pending > 200 {
			for some := range slices.Chunk(ids, 10) {
				s.say(5, 1, some...)
				fresh += len(some)
				time.Sleep(200 * time.Millisecond)
			}
		}
		took := time.Since(began)
		s.until("drained", time.Minute, func() bool { return s.pending() == 0 })
		got := th.arrived()
		if r := s.judge(got); r > 0 {
			t.Errorf("%d repeats", r)
		}
		var waited []time.Duration
		for _, a := range got {
			if a.history != (a.n < backlog/len(ids)) {
				t.Fatalf("%s: number %d is marked %v", a.from, a.n, a.history)
			}
			if !a.history {
				waited = append(waited, a.waited)
			}
		}
		p50, p99, worst := percentile(waited, 50), percentile(waited, 99), waited[len(waited)-1]
		t.Logf("%d of history and %d fresh in %v; fresh ones waited p50 %v, p99 %v, at most %v", backlog, fresh, took, p50, p99, worst)
		if p99 >= 2*time.Second {
			t.Errorf("p99 of fresh messages is %v, want less than 2s", p99)
		}
		if ideal := time.Duration(len(got)) * th.gap; took > ideal*11/10 {
			t.Errorf("it took %v, the line alone takes %v", took, ideal)
		}
	})
}

// What is fresh may be more than its share: then history has its own.
func TestLiveLeavesHistoryItsShare(t *testing.T) {
	for _, share := range []int{0, 20, 80} {
		t.Run(strconv.Itoa(share), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, ids := newSite(t), senders(10)
				th := newThin(t, 5*time.Millisecond, 0)
				s.say(5, 2000, ids...)
				time.Sleep(time.Minute)
				s.run(&Forwarder{From: s.lanes(), To: th, Live: Live{Lanes: s.lanes(), Share: share, Backlog: 15000}})
				time.Sleep(time.Second)
				s.say(5, 1000, ids...) // below what would be made history, too
				from := th.count() + 200
				s.until("2000 have gone", time.Minute, func() bool { return th.count() >= from+2000 })
				fresh := 0
				for _, a := range th.arrived()[from : from+2000] {
					if !a.history {
						fresh++
					}
				}
				if share == 0 {
					share = 50
				}
				if got := 100 * fresh / 2000; got < share-3 || got > share+3 {
					t.Errorf("%d percent were fresh, want %d", got, share)
				}
			})
		})
	}
}

// After a split lane has become whole again it is like any other.
func TestLiveJoinsHistory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		th := newThin(t, time.Millisecond, 0)
		s.say(5, 500, senders(4)...)
		time.Sleep(time.Minute)
		f := &Forwarder{From: s.lanes(), To: th, Live: Live{Lanes: s.lanes()}}
		stop := s.run(f)
		time.Sleep(time.Millisecond) // it has seen what there is
		s.say(5, 10, senders(4)...)
		s.until("drained", time.Minute, func() bool { return s.pending() == 0 })
		s.say(5, 2000, senders(4)...) // as many as a backlog, but not old
		s.until("drained again", time.Minute, func() bool { return s.pending() == 0 })
		stop()
		for _, l := range f.lanes {
			if l.history != nil || len(l.retired) > 0 || f.pace.on || f.count != 0 || len(l.front.behind) > 0 {
				t.Errorf("%s: still split: %+v", l.q.Name(), l)
			}
		}
		if r := s.judge(th.arrived()); r > 0 {
			t.Errorf("%d repeats", r)
		}
		for _, a := range th.arrived() {
			if a.history != (a.n < 500) {
				t.Fatalf("%s: number %d is marked %v", a.from, a.n, a.history)
			}
		}
	})
}

// A sender that hangs, many that are slow: nobody else is held up, and fresh
// messages are still fresh.
func TestLiveBesideOneThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, ids := newSite(t), senders(10)
		th := newThin(t, 20*time.Millisecond, 20*time.Millisecond)
		th.hold = func(m Message) bool { return m.From == ids[0] }
		s.say(5, 1000, ids...)
		time.Sleep(time.Minute)
		s.run(&Forwarder{From: s.lanes(), To: th, Live: Live{Lanes: s.lanes()}})
		for range 60 {
			for _, id := range ids {
				s.say(5, 1, id)
			}
			time.Sleep(time.Second)
		}
		s.until("the others have gone", 10*time.Minute, func() bool { return th.count() == 9*1060 })
		var waited []time.Duration
		for _, a := range th.arrived() {
			if !a.history {
				waited = append(waited, a.waited)
			}
		}
		if p := percentile(waited, 99); p > 3*time.Second {
			t.Errorf("p99 of fresh messages is %v beside one that hangs", p)
		}
	})
}

// The link goes in the middle of a drain, for long enough that a second backlog
// comes together; then the gateway restarts. Twice, and once more without.
func TestLiveThroughRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, ids := newSite(t), senders(10)
		th := newThin(t, 2*time.Millisecond, 20*time.Millisecond)
		s.say(5, 3000, ids...)
		time.Sleep(time.Minute)
		outage := map[int]bool{} // numbers said in one
		steps := func(n int) {
			for range n {
				time.Sleep(time.Second)
				s.say(5, 1, ids...)
			}
		}
		for life := range 3 {
			stop := s.run(&Forwarder{From: s.lanes(), To: th, Live: Live{Lanes: s.lanes()}})
			steps(8)
			time.Sleep(time.Second)
			th.set(false)
			time.Sleep(30 * time.Second)
			for i := range 150 {
				outage[s.next[ids[0]]+i] = true
			}
			s.say(5, 150, ids...)
			time.Sleep(30 * time.Second)
			th.set(true)
			steps(8)
			time.Sleep(time.Second)
			if n := s.pending(); n < 4000 {
				t.Fatalf("this is not the middle: %d wait", n)
			}
			if life < 2 {
				stop()
				s.close()
				s.open()
			}
		}
		s.until("drained", 5*time.Minute, func() bool { return s.pending() == 0 })
		repeats, fresh, all := s.judge(th.arrived()), 0, 0
		for _, a := range th.arrived() {
			if outage[a.n] && !a.history {
				t.Fatalf("%s: number %d waited for the link and is not marked", a.from, a.n)
			}
			if a.n >= 3000 && !outage[a.n] {
				all++
				if !a.history {
					fresh++
				}
			}
		}
		t.Logf("%d of %d said with the link up went as fresh, %d repeats", fresh, all, repeats)
		if fresh < all*9/10 { // those under way at a restart, or an outage, are history afterwards
			t.Errorf("%d of %d said with the link up went as fresh", fresh, all)
		}
		for _, r := range s.db.Ledger() {
			if r.Balance() != 0 || r.Delivered != r.Accepted {
				t.Errorf("ledger %+v", r)
			}
		}
	})
}

// Senders that are far behind, one of them unparked in the middle.
func TestLiveTakesUpWhatIsUnparked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, ids := newSite(t), senders(5)
		th := newThin(t, 2*time.Millisecond, 200*time.Millisecond)
		var mended bool // guarded by th.mu
		th.decide = func(m Message) error {
			if m.From == ids[0] && !mended {
				return ErrRefused
			}
			return nil
		}
		s.say(5, 400, ids...)
		time.Sleep(time.Minute)
		s.run(&Forwarder{From: s.lanes(), To: th, Window: Window{PerSender: 6}, Live: Live{Lanes: s.lanes(), Backlog: 2000}, ParkRetry: time.Hour})
		for i := range 400 {
			time.Sleep(100 * time.Millisecond)
			s.say(5, 1, ids...)
			if i == 20 {
				th.mu.Lock()
				mended = true
				th.mu.Unlock()
				s.db.Queue("up.5").Unpark(string(ids[0]), nil)
			}
		}
		s.until("drained", 5*time.Minute, func() bool { return s.pending() == 0 })
		if r := s.judge(th.arrived()); r > 0 {
			t.Errorf("%d repeats", r)
		}
	})
}

// A link that is up and too slow: what is under way when its lane is split is not
// sent again.
func TestLiveSplitsWhatIsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, ids := newSite(t), senders(10)
		th := newThin(t, 10*time.Millisecond, 20*time.Millisecond)
		s.run(&Forwarder{From: s.lanes(), To: th, Live: Live{Lanes: s.lanes()}})
		s.say(5, 500, ids...)
		s.until("drained", 2*time.Minute, func() bool { return s.pending() == 0 })
		if r := s.judge(th.arrived()); r > 0 {
			t.Errorf("%d repeats", r)
		}
		if got := th.arrived(); got[0].history || !got[len(got)-1].history {
			t.Error("no history was made of what waited too long")
		}
	})
}

// Anything may fail at any time, in lanes that split again and again.
func TestLiveSurvivesAnyFailure(t *testing.T) {
	for range 4 {
		synctest.Test(t, func(t *testing.T) { liveUnderFire(t, rand.Uint64()) })
	}
}

func liveUnderFire(t *testing.T, seed uint64) {
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	s, ids := newSite(t), senders(8)
	th := newThin(t, 15*time.Millisecond, 30*time.Millisecond)
	fate := rand.New(rand.NewPCG(seed, 2)) // of the line's own
	calm, refused := false, ids[1]
	th.decide = func(m Message) error {
		switch {
		case calm:
			return nil
		case m.From == refused:
			return ErrRefused
		case fate.IntN(200) == 0:
			return ErrOffline
		}
		return nil
	}
	f := &Forwarder{From: s.lanes(), To: th, Window: Window{PerSender: 20, Messages: 100}, ParkRetry: 40 * time.Second,
		Live: Live{Lanes: s.lanes()[4:6], Backlog: 50}}
	s.say(5, 20, ids...)
	time.Sleep(time.Minute)
	stop := s.run(f)
	splits := 0
	for range 40 {
		s.say(4+rnd.IntN(3), 1+rnd.IntN(20), ids[:1+rnd.IntN(len(ids))]...)
		time.Sleep(time.Duration(rnd.IntN(15_000)) * time.Millisecond)
		th.mu.Lock()
		refused = ids[rnd.IntN(3*len(ids))%len(ids)]
		th.mu.Unlock()
		if rnd.IntN(4) == 0 {
			th.set(rnd.IntN(2) == 0)
		}
		if rnd.IntN(8) == 0 {
			th.set(true)
			time.Sleep(time.Duration(rnd.IntN(1000)) * time.Millisecond)
			stop()
			for _, l := range f.lanes {
				if l.history != nil {
					splits++
				}
			}
			s.close()
			s.open()
			f = &Forwarder{From: s.lanes(), To: th, Window: f.Window, ParkRetry: f.ParkRetry, Live: Live{Lanes: s.lanes()[4:6], Backlog: 50}}
			stop = s.run(f)
		}
	}
	th.mu.Lock()
	calm = true
	th.mu.Unlock()
	th.set(true)
	s.until("drained", 10*time.Minute, func() bool { return s.pending() == 0 })
	marked := 0
	for _, a := range th.arrived() {
		if a.history {
			marked++
		}
	}
	t.Logf("%d arrived, %d of them history; %d repeats; %d times the gateway stopped while it was split", th.count(), marked, s.judge(th.arrived()), splits)
	if marked == 0 {
		t.Error("nothing was made history")
	}
	for _, r := range s.db.Ledger() {
		if r.Balance() != 0 || r.Delivered != r.Accepted {
			t.Errorf("ledger %+v", r)
		}
	}
}

// Many slow senders far behind: the queue is gone through a few times, not once
// for each of them.
func TestCatchUpIsNearLinear(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, ids := newSite(t), senders(200)
		th := newThin(t, 0, 0)
		th.delay = time.Second
		s.say(5, 100, ids...)
		f := &Forwarder{From: s.lanes(), To: th, Window: Window{PerSender: 8, Messages: 5000}}
		stop := s.run(f)
		s.until("drained", 5*time.Minute, func() bool { return s.pending() == 0 })
		stop()
		s.judge(th.arrived())
		n := 100 * len(ids)
		walked := f.lanes[5].front.walked
		t.Logf("%d messages, %d positions gone over", n, walked)
		if walked > 20*n { // 200 times, if each were read for alone
			t.Errorf("%d positions gone over for %d messages of %d senders", walked, n, len(ids))
		}
	})
}
