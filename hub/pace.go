package hub

import "time"

// pace bounds what is under way while a lane is split, so that a fresh message
// does not stand behind more than the far side takes in half a second. Nobody says
// how fast that is. So it is measured, by how long answers take: what is above
// the shortest that was seen is time spent in a line.
//
//	after a turnover of the window   what is done
//	most answers came late           a quarter less
//	hardly any line, and it was full twice as much
//	a short line, and it was full    an eighth more
//
// What has not been answered for long does not count, as long as others are: a
// sender that hangs must not take the window.
type pace struct {
	on      bool
	limit   int           // messages
	base    time.Duration // the shortest answer
	low     time.Duration // of this turnover
	answers int           // in this turnover
	late    int           // of them, after more than standing in a line
	quick   int           // of them, after less than a quarter of that
	held    bool          // more was wanted in this turnover
	began   time.Time
	looked  time.Time
}

const (
	leastPace = 16 // messages
	standing  = 500 * time.Millisecond
	stall     = 2 * time.Second // on top of twice the shortest answer
	paceLook  = 250 * time.Millisecond
	unknown   = time.Hour
)

// begin measures anew.
func (p *pace) begin() {
	*p = pace{on: p.on, limit: leastPace, base: unknown, low: unknown, began: time.Now()}
}

// answered takes note of one answer. Those to what was sent before say nothing.
func (p *pace) answered(sent time.Time, took time.Duration, most int) {
	if !p.on || sent.Before(p.began) {
		return
	}
	p.answers++
	p.low, p.base = min(p.low, took), min(p.base, took)
	switch line := took - p.base; {
	case line > standing:
		p.late++
	case line < standing/4:
		p.quick++
	}
	if p.answers < p.limit {
		return
	}
	switch {
	case 2*p.late > p.answers:
		if p.limit == leastPace {
			p.base = p.low // so few make no line: the way has become longer
		}
		p.limit = max(leastPace, p.limit-p.limit/4)
	case p.held && 2*p.quick > p.answers:
		p.limit = min(2*p.limit, most)
	case p.held:
		p.limit = min(p.limit+p.limit/8, most)
	}
	p.answers, p.late, p.quick, p.low, p.held = 0, 0, 0, unknown, false
}

// look sets the pace going and still, and counts what is stalled.
func (f *Forwarder) look(now time.Time) {
	split := false
	for _, l := range f.lanes {
		split = split || l.history != nil
	}
	if f.pace.on = split; !split {
		f.stalled = 0
		return
	}
	if now.Sub(f.pace.looked) < paceLook {
		return
	}
	f.pace.looked, f.stalled = now, 0
	patience := stall
	if f.pace.base < unknown {
		patience += 2 * f.pace.base
	}
	if now.Sub(f.moved) > patience {
		return // all are
	}
	for _, l := range f.lanes {
		for _, r := range append(l.readers(), l.retired...) {
			f.stalled += r.stalled(now, patience)
		}
	}
}

// stalled is how many under way are of flows that hang.
func (r *reader) stalled(now time.Time, patience time.Duration) (n int) {
	if r.inflight == 0 {
		return 0
	}
	for _, fl := range r.flows {
		if fl.inflight > 0 && now.Sub(fl.moved) > patience {
			n += fl.inflight
		}
	}
	return n
}
