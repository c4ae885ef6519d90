package conform

import (
	"sync"
	"time"
)

// sideBySide is how many rows of one target run at once: most of a row's time is
// waiting to see that nothing comes.
const sideBySide = 8

// Column is what came of all rows on one target.
type Column struct {
	Name     string
	Verdicts [][]Verdict // by suite, then by row
	Took     time.Duration
}

// Run runs the rows of all suites. A target that dies is started again; the rows
// that failed around that time are run once more, one by one, so that the death is
// held against the row that brings it about and no other. The error is of a target
// that cannot be started again.
func Run(target *Target, suites []Suite) (Column, error) {
	start := time.Now()
	r := &run{target: target, suites: suites, col: Column{Name: target.Name}}
	for _, s := range suites {
		r.col.Verdicts = append(r.col.Verdicts, make([]Verdict, len(s.Rows)))
	}
	work := make(chan cell)
	var wg sync.WaitGroup
	for range sideBySide {
		wg.Go(func() {
			for c := range work {
				r.first(c)
			}
		})
	}
	for i, s := range suites {
		for j := range s.Rows {
			work <- cell{i, j}
		}
	}
	close(work)
	wg.Wait()
	for _, c := range r.again {
		r.alone(c)
	}
	r.col.Took = time.Since(start)
	return r.col, r.err
}

type run struct {
	target *Target
	suites []Suite
	col    Column

	mu    sync.Mutex
	again []cell // they failed while the target died
	err   error
}

// cell is a row, by its place in suites.
type cell struct{ suite, row int }

func (r *run) attempt(c cell) Verdict {
	s := r.suites[c.suite]
	return attempt(r.target, s.Version, s.Rows[c.row].Run)
}

// first runs a row beside others.
func (r *run) first(c cell) {
	life := r.target.life()
	v := r.attempt(c)
	r.col.Verdicts[c.suite][c.row] = v
	if v.Outcome != Fail {
		return
	}
	if err := r.target.revive(); err != nil {
		r.note(err)
	}
	if r.target.life() != life {
		r.mu.Lock()
		r.again = append(r.again, c)
		r.mu.Unlock()
	}
}

// alone runs a row with nothing beside it.
func (r *run) alone(c cell) {
	life := r.target.life()
	v := r.attempt(c)
	if err := r.target.revive(); err != nil {
		r.note(err)
	}
	if r.target.life() != life {
		v = Verdict{Fail, "the server died"}
	}
	r.col.Verdicts[c.suite][c.row] = v
}

func (r *run) note(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err == nil {
		r.err = err
	}
}
