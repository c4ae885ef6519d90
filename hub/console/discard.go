package console

import (
	"context"
	"fmt"
	"io"
	"time"

	"holdfast.dev/holdfast/hub/identity"
	"holdfast.dev/holdfast/storage"
)

// batch is how many records are settled in one commit.
const batch = 1000

// pick is what a selection means for a look into a queue.
func (s selection) pick(sender string, parked bool) bool {
	return (s.sender == "" || sender == s.sender) && (parked || !s.parkedOnly)
}

// part is the records that s means.
func (s selection) part() part {
	p := part{pick: s.pick}
	if s.position > 0 {
		p.from, p.limit = storage.Position(s.position), 1
	}
	return p
}

// means says whether s means this record: a look from a position gives the next
// one if that has ended.
func (s selection) means(x storage.Seen) bool {
	return s.position == 0 || uint64(x.Position) == s.position
}

// discard gives records up, or says which it would.
func (d *Desk) discard(ctx context.Context, out io.Writer, queue []string, s selection, yes bool) error {
	qs, err := d.queues(queue...)
	if err != nil {
		return err
	}
	if !yes {
		return d.wouldDiscard(ctx, out, qs, s)
	}
	d.decisions.Lock()
	defer d.decisions.Unlock()
	before := d.discarded()
	for _, q := range qs {
		if err = settleAll(ctx, q, s); err != nil {
			break
		}
	}
	t, n := newTable("llr", "queue", "sender", "discarded"), uint64(0)
	for _, r := range d.Queue.Ledger() {
		if more := r.Discarded - before[rowKey{r.Queue, r.Sender}]; more > 0 {
			t.add(r.Queue, nobody(r.Sender), fmt.Sprint(more))
			n += more
			d.log().Warn("messages discarded by a person", "queue", r.Queue, "sender", r.Sender, "count", more)
		}
	}
	if n > 0 {
		if e := t.write(out); err == nil {
			err = e
		}
	}
	if _, e := fmt.Fprintf(out, "%s discarded\n", messages(n)); err == nil {
		err = e
	}
	if err == nil && n == 0 {
		err = none(s)
	}
	return err
}

// none is the answer to a decision about nothing: for a position it is a mistake.
func none(s selection) error {
	if s.position == 0 {
		return nil
	}
	what := "waits"
	if s.parkedOnly {
		what = "is parked"
	}
	return fault("holdfast queue show lists what waits", "no message %s %s", what, s)
}

type rowKey struct{ queue, sender string }

func (d *Desk) discarded() map[rowKey]uint64 {
	m := map[rowKey]uint64{}
	for _, r := range d.Queue.Ledger() {
		m[rowKey{r.Queue, r.Sender}] = r.Discarded
	}
	return m
}

// settleAll settles what s means as discarded, a batch at a time, each on disk
// before the next.
func settleAll(ctx context.Context, q *storage.Queue, s selection) error {
	var ps []storage.Position
	flush := func() error {
		err := settle(q, ps)
		ps = ps[:0]
		return err
	}
	err := each(ctx, q, s.part(), func(x storage.Seen) error {
		if s.means(x) {
			ps = append(ps, x.Position)
		}
		if len(ps) < batch {
			return nil
		}
		return flush()
	})
	if e := flush(); err == nil {
		err = e
	}
	return err
}

// settle waits for the disk, whatever becomes of who asked: what is counted
// afterwards is to be true. Without positions it waits for all that went before.
func settle(q *storage.Queue, ps []storage.Position) error {
	done := make(chan error, 1)
	q.Settle(ps, storage.Discarded, func(err error) { done <- err })
	if err := <-done; err != nil {
		return fmt.Errorf("settle in queue %s: %w", q.Name(), err)
	}
	return nil
}

// tally is what waits of one sender in one queue.
type tally struct {
	count, bytes uint64
	oldest       storage.Stamp
}

func (d *Desk) wouldDiscard(ctx context.Context, out io.Writer, qs []*storage.Queue, s selection) error {
	t, n := newTable("llrrr", "queue", "sender", "messages", "bytes", "oldest"), uint64(0)
	for _, q := range qs {
		by, order := map[string]*tally{}, []string{}
		err := each(ctx, q, s.part(), func(x storage.Seen) error {
			if !s.means(x) {
				return nil
			}
			y := by[x.Sender]
			if y == nil {
				y = &tally{oldest: x.Stamp}
				by[x.Sender] = y
				order = append(order, x.Sender)
			}
			y.count++
			y.bytes += uint64(len(x.Body))
			return nil
		})
		if err != nil {
			return err
		}
		for _, sender := range order {
			y := by[sender]
			n += y.count
			t.add(q.Name(), nobody(sender), fmt.Sprint(y.count), size(y.bytes), d.age(y.oldest))
		}
	}
	if n == 0 {
		if err := none(s); err != nil {
			return err
		}
	} else if err := t.write(out); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(out, "would discard %s\n", messages(n)); err != nil {
		return err
	}
	return usage("the same command with --yes discards them; they are gone then", "nothing was discarded")
}

// forget removes the kept list of devices.
func (d *Desk) forget(ctx context.Context, out io.Writer, yes bool) error {
	if d.Scope == nil {
		return fault("stop the gateway first", "a running gateway can read its list of devices: there is nothing to forget")
	}
	n := len(d.Scope.Keys())
	if !yes {
		if _, err := fmt.Fprintf(out, "would forget the list of devices: %s\n", counted(uint64(n), "value")); err != nil {
			return err
		}
		return usage("bring seal.key back if you can; the same command with --yes forgets the list, and it is fetched anew when the cloud is there",
			"nothing was forgotten")
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := identity.Forget(ctx, d.Scope); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "%s forgotten; the list is fetched anew when the cloud is there\n", counted(uint64(n), "value"))
	return err
}
