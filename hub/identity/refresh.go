package identity

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"holdfast.dev/holdfast/hub"
)

// When the whole scope is fetched.
const (
	refreshEvery   = time.Hour        // edgeHub's rate too
	refreshGap     = 10 * time.Second // at least, after a good one: a link may flap
	doubtGap       = 30 * time.Second // likewise, when there is reason to doubt it
	refreshTimeout = 2 * time.Minute  // of one fetch, all its pages
	backOffFirst   = 5 * time.Second
	backOffLast    = time.Minute
)

// Run keeps the scope fresh until ctx ends: it fetches it at the start, whenever
// the link comes up, and each hour; after a failure again in 5 s to a minute, longer
// each time and never at a round number, since a thousand gateways may have failed
// together. Nothing is fetched while the link is down: an
// attempt then would only cost a metered line its minutes. The last good scope
// stays in force however old it is. It returns nil.
func (d *Directory) Run(ctx context.Context) error {
	if d.source == nil {
		<-ctx.Done()
		return nil
	}
	due, wasUp, backOff := time.Now(), false, backOffFirst
	for ctx.Err() == nil {
		changed, up := d.link() // changed is taken first, so that no change slips between
		if up && !wasUp {
			due, backOff = d.soonest(), backOffFirst
		}
		wasUp = up
		wait := time.Until(due)
		if !up {
			wait = refreshEvery
		}
		if wait > 0 {
			timer := time.NewTimer(wait)
			select {
			case <-timer.C:
			case <-changed:
				wasUp = false // even if it is up again: it was away
			case <-d.doubted:
				if soon := d.lastFetch().Add(doubtGap); soon.Before(due) {
					due = soon
				}
			case <-ctx.Done():
			}
			timer.Stop()
			continue
		}
		switch lost, err := d.refresh(ctx); {
		case err == nil:
			due, backOff = time.Now().Add(refreshEvery), backOffFirst
		case lost:
			wasUp = false
		case ctx.Err() == nil:
			backOff = longer(backOff)
			due = time.Now().Add(backOff)
			d.log.Warn("scope is not refreshed", "error", err, "again", backOff)
		}
	}
	return nil
}

// Doubt says that the scope may be out of date, because the cloud has refused
// somebody who is in it. It is fetched within half a minute. Doubt does not block.
func (d *Directory) Doubt() {
	select {
	case d.doubted <- struct{}{}:
	default:
	}
}

// lastFetch is when the scope was last fetched by this process.
func (d *Directory) lastFetch() time.Time {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.lastGood
}

// longer is the next wait after one of t: anywhere from the first to three times t.
func longer(t time.Duration) time.Duration {
	return backOffFirst + rand.N(min(3*t, backOffLast)-backOffFirst)
}

// soonest is when a refresh may be made because the link came up.
func (d *Directory) soonest() time.Time {
	last := d.lastFetch()
	if last.IsZero() {
		return time.Now()
	}
	return last.Add(refreshGap)
}

func (d *Directory) up() bool { return d.online == nil || d.online.Up() }

func (d *Directory) link() (changed <-chan struct{}, up bool) {
	if d.online == nil {
		return nil, true
	}
	changed = d.online.Changed()
	return changed, d.online.Up()
}

// refresh fetches the whole scope once; lost says that it did not because the
// link went down meanwhile.
func (d *Directory) refresh(ctx context.Context) (lost bool, err error) {
	began := d.count()
	fetch, cancel := context.WithTimeout(ctx, refreshTimeout)
	defer d.cancelWhenDown(fetch, cancel)()
	list, err := d.source.Scope(fetch)
	if err != nil {
		err = fmt.Errorf("fetch scope: %w", err)
		d.fail(err)
		return ctx.Err() == nil && !d.up(), err
	}
	// Kept under ctx, not fetch: what has been fetched is worth keeping even if the
	// link is gone again.
	return false, d.take(ctx, list, began)
}

// cancelWhenDown spares the wait for a time-out that the link already knows of.
func (d *Directory) cancelWhenDown(ctx context.Context, cancel func()) (stop func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			changed, up := d.link()
			if !up {
				cancel()
				return
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	}()
	return func() { cancel(); <-done }
}

func (d *Directory) count() uint64 {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.learned
}

// take makes list the scope. Who is not in it has vanished, except those who were
// learned singly after the fetch began: list may be older than them.
func (d *Directory) take(ctx context.Context, list []Entry, began uint64) error {
	d.writing.Lock()
	defer d.writing.Unlock()
	scope := make(map[hub.Identity]learned, len(list))
	keep := make(map[hub.Identity]Entry, len(list))
	for _, e := range list {
		scope[e.ID], keep[e.ID] = learned{Entry: e}, e
	}
	d.mu.RLock()
	for id, e := range d.scope {
		if e.at > began {
			scope[id], keep[id] = e, e.Entry
		}
	}
	d.mu.RUnlock()
	now := d.clock.Now()
	err := d.safe.keepAll(ctx, keep, now)

	d.mu.Lock()
	defer d.mu.Unlock()
	gone, come := d.differ(d.scope, scope), d.differ(scope, d.scope)
	d.scope, d.synced, d.complete, d.lastGood, d.lastErr = scope, now, true, time.Now(), err
	if gone+come > 0 {
		d.announce()
		d.log.Info("scope has changed", "identities", len(scope), "new", come, "gone", gone)
	}
	return err
}

// differ counts those who are known by a and not by b.
func (d *Directory) differ(a, b map[hub.Identity]learned) (n int) {
	for id, e := range a {
		if _, isFixed := d.fixed[id]; e.Enabled && !b[id].Enabled && !isFixed {
			n++
		}
	}
	return n
}
