package identity

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"holdfast.dev/holdfast/hub"
)

// Asking for one identity is something that anybody who can reach the listener
// can bring about, so it is bounded in every direction.
const (
	askTimeout = 10 * time.Second // of one question, the wait for its turn included
	askAgain   = 30 * time.Second // how long an answer, or none, holds
	askAtOnce  = 4                // questions under way
	askKept    = 4096             // answers held
)

var errBusy = errors.New("too many identities have been asked for")

// asked holds the answers of the last askAgain.
type asked struct {
	turn chan struct{} // one for each question under way

	mu      sync.Mutex
	answers map[hub.Identity]answer
}

func newAsked() *asked {
	return &asked{turn: make(chan struct{}, askAtOnce), answers: map[hub.Identity]answer{}}
}

type answer struct {
	at  time.Time
	err error
}

func (a *asked) recent(id hub.Identity) (err error, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	x, ok := a.answers[id]
	if !ok || time.Since(x.at) >= askAgain {
		return nil, false
	}
	return x.err, true
}

// begin waits for a turn. A client that waits is better off than one that is sent
// away: some SDKs do not retry what fails at their first attempt.
func (a *asked) begin(ctx context.Context) error {
	if !a.room() {
		return errBusy
	}
	select {
	case a.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (a *asked) room() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.answers) >= askKept {
		maps.DeleteFunc(a.answers, func(_ hub.Identity, x answer) bool { return time.Since(x.at) >= askAgain })
	}
	return len(a.answers) < askKept
}

func (a *asked) end(id hub.Identity, err error) {
	<-a.turn
	a.mu.Lock()
	defer a.mu.Unlock()
	a.answers[id] = answer{time.Now(), err}
}

// ask learns id from the cloud: one question for all who want to know at once,
// and not again for a while. It is nil when there is an entry to look at now,
// hub.ErrUnknown when the cloud says no, else the cloud could not be asked.
func (d *Directory) ask(ctx context.Context, id hub.Identity) error {
	if err, ok := d.asked.recent(id); ok {
		return err
	}
	// The question outlives the caller who happened to come first: others wait
	// for the same answer.
	done := d.flights.DoChan(string(id), func() (any, error) {
		if err, ok := d.asked.recent(id); ok {
			return nil, err // the flight before this one has just landed
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), askTimeout)
		defer cancel()
		if err := d.asked.begin(ctx); err != nil {
			return nil, err
		}
		err := d.learn(ctx, id)
		d.asked.end(id, err)
		return nil, err
	})
	select {
	case r := <-done:
		return r.Err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// learn asks the Source for id and takes what it gives. What the cloud does not
// give stays as it is: only a full refresh removes.
func (d *Directory) learn(ctx context.Context, id hub.Identity) error {
	e, err := d.source.One(ctx, id)
	if err != nil {
		return err
	}
	if e.ID != id {
		return fmt.Errorf("cloud was asked for %s and answered for %s", id, e.ID)
	}
	d.writing.Lock()
	defer d.writing.Unlock()
	if err := d.safe.keepOne(ctx, e); err != nil {
		// Known all the same: the device can be served now, and the next full
		// refresh keeps it.
		d.log.Warn("identity is not kept", "identity", id, "error", err)
		d.fail(err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	was := d.scope[id]
	d.learned++
	d.scope[id] = learned{Entry: e, at: d.learned}
	if _, isFixed := d.fixed[id]; was.Enabled != e.Enabled && !isFixed {
		d.announce()
	}
	return nil
}

func (d *Directory) fail(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lastErr = err
}

// announce tells those who wait on Changed. The caller holds mu.
func (d *Directory) announce() {
	close(d.changed)
	d.changed = make(chan struct{})
}
