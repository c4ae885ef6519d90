package mqtt

import (
	"context"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// visitor is a connection that only knows whether it was closed.
type visitor struct {
	net.Conn
	closed chan struct{}
}

func newVisitor() *visitor { return &visitor{closed: make(chan struct{})} }

func (v *visitor) Close() error {
	close(v.closed)
	return nil
}

func (v *visitor) gone() bool {
	select {
	case <-v.closed:
		return true
	default:
		return false
	}
}

// come takes a place, and says how long that took.
func come(t *testing.T, s *strangers) (p *place, v *visitor, took time.Duration) {
	t.Helper()
	began := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if p = s.enter(ctx); p == nil {
		return nil, nil, time.Since(began)
	}
	v = newVisitor()
	p.begin(v)
	synctest.Wait() // who makes room is closed in the background
	return p, v, time.Since(began)
}

// crowd takes all places, the first of them a tenth of a second before the last.
func crowd(t *testing.T, s *strangers) (places []*place, visitors []*visitor) {
	t.Helper()
	for i := range maxStrangers {
		if i == maxStrangers-1 {
			time.Sleep(100 * time.Millisecond)
		}
		p, v, took := come(t, s)
		if p == nil || took > 100*time.Millisecond {
			t.Fatalf("place %d took %v", i, took)
		}
		places, visitors = append(places, p), append(visitors, v)
	}
	return places, visitors
}

func TestStrangersMakeRoom(t *testing.T) {
	for _, tt := range []struct {
		name string
		then func(places []*place, visitors []*visitor)
		took time.Duration
		out  int // who makes room; -1: nobody
	}{
		{"all are silent: the oldest", func([]*place, []*visitor) {}, minStay - 100*time.Millisecond, 0},
		{"the oldest is being judged", func(p []*place, _ []*visitor) { p[0].speaks() }, minStay - 100*time.Millisecond, 1},
		{"one only waits for his no", func(p []*place, v []*visitor) { p[5].speaks(); p[5].lingers(v[5]) }, 0, 5},
		{"one has proven who he is", func(p []*place, _ []*visitor) { p[7].speaks(); p[7].leave() }, 0, -1},
		{"one has gone", func(p []*place, _ []*visitor) { p[7].leave(); p[7].leave() }, 0, -1},
		{"one has not begun", func(p []*place, _ []*visitor) { p[0].nc = nil }, minStay - 100*time.Millisecond, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStrangers()
				places, visitors := crowd(t, s)
				tt.then(places, visitors)
				p, _, took := come(t, s)
				if p == nil || took != tt.took {
					t.Errorf("a place was there after %v, want %v", took, tt.took)
				}
				for i, v := range visitors {
					if v.gone() != (i == tt.out) {
						t.Errorf("stranger %d was sent away: %v", i, v.gone())
					}
				}
				if n := len(s.list); n > maxStrangers {
					t.Errorf("%d strangers", n)
				}
			})
		})
	}
}

// Who is being judged is never sent away: newcomers wait until one is done.
func TestStrangersWaitForTheJudged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStrangers()
		places, visitors := crowd(t, s)
		for _, p := range places {
			p.speaks()
		}
		if p, _, took := come(t, s); p != nil || took != time.Minute {
			t.Errorf("a place was there after %v", took)
		}
		go func() {
			time.Sleep(time.Second)
			places[3].leave()
		}()
		if p, _, took := come(t, s); p == nil || took != time.Second {
			t.Errorf("a place was there after %v, want a second", took)
		}
		for i, v := range visitors {
			if v.gone() {
				t.Errorf("stranger %d was sent away", i)
			}
		}
	})
}

// Many who wait at once all get in, and each place is given once.
func TestStrangersInLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStrangers()
		const n = 5 * maxStrangers
		began := time.Now()
		in := make(chan *place, n)
		for range n {
			go func() {
				p := s.enter(t.Context())
				p.begin(newVisitor())
				in <- p
			}()
		}
		synctest.Wait()
		if len(in) != maxStrangers {
			t.Errorf("%d are in at once, want %d", len(in), maxStrangers)
		}
		for range n {
			<-in
		}
		if d := time.Since(began); d > n/maxStrangers*minStay {
			t.Errorf("the last was in after %v", d)
		}
		if len(s.list) != maxStrangers {
			t.Errorf("%d strangers at the end", len(s.list))
		}
	})
}

func TestNoPlace(t *testing.T) {
	var p *place // of a connection that came by no listener
	p.begin(nil)
	p.speaks()
	p.lingers(nil)
	p.leave()
}
