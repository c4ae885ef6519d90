package web

import (
	"sync"
	"time"
)

// Rates are messages per second, over the last ten seconds or so.
type Rates struct{ In, Out float64 }

// pace makes rates of totals that it is shown now and then. All readers of the
// page share it, so it keeps samples rather than trusting that the next reader
// comes at a steady beat.
type pace struct {
	now     func() time.Time
	mu      sync.Mutex
	samples []sample // oldest first
}

type sample struct {
	at      time.Time
	in, out uint64
}

const (
	paceSpan = 10 * time.Second       // rates are over at least this, once there are samples
	paceStep = 500 * time.Millisecond // samples nearer than this are not kept
	paceMost = 64                     // samples kept
)

func newPace(now func() time.Time) *pace { return &pace{now: now} }

// add takes the totals of now and gives the rates since the newest sample that is
// at least paceSpan old, or since the oldest there is.
func (p *pace) add(c Counts) Rates {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := sample{p.now(), c.Accepted, c.Delivered}
	for len(p.samples) > 1 && s.at.Sub(p.samples[1].at) >= paceSpan {
		p.samples = p.samples[1:]
	}
	var r Rates
	if len(p.samples) > 0 {
		r = p.samples[0].until(s)
	}
	if n := len(p.samples); n == 0 || s.at.Sub(p.samples[n-1].at) >= paceStep {
		p.samples = append(p.samples, s)
	}
	if n := len(p.samples); n > paceMost {
		p.samples = p.samples[n-paceMost:]
	}
	return r
}

func (a sample) until(b sample) Rates {
	sec := b.at.Sub(a.at).Seconds()
	if sec <= 0 || b.in < a.in || b.out < a.out {
		return Rates{}
	}
	return Rates{In: float64(b.in-a.in) / sec, Out: float64(b.out-a.out) / sec}
}
