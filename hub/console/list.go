package console

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"holdfast.dev/holdfast/hub"
	"holdfast.dev/holdfast/storage"
)

// queues gives the queues that something was ever in, by name; with a name only
// that one.
func (d *Desk) queues(name ...string) ([]*storage.Queue, error) {
	if d.Queue == nil {
		return nil, fault("", "there is no store of messages here")
	}
	var names []string
	var qs []*storage.Queue
	for _, q := range d.Queue.Queues() {
		if q.Stats().Last == 0 {
			continue
		}
		names = append(names, q.Name())
		if len(name) == 0 || q.Name() == name[0] {
			qs = append(qs, q)
		}
	}
	slices.SortFunc(qs, func(a, b *storage.Queue) int { return strings.Compare(a.Name(), b.Name()) })
	if len(name) == 0 || len(qs) > 0 {
		return qs, nil
	}
	hint := "nothing was ever in any queue of this store"
	if len(names) > 0 {
		slices.Sort(names)
		hint = "there are: " + strings.Join(names, " ")
	}
	return nil, fault(hint, "no queue has the name %q", name[0])
}

// listed is a queue in list --json.
type listed struct {
	Queue      string   `json:"queue"`
	Pending    uint64   `json:"pending"`
	Parked     uint64   `json:"parked"`
	Bytes      uint64   `json:"bytes"`                      // pending and parked, as they are kept
	Oldest     *float64 `json:"oldest_age_seconds"`         // of the oldest pending one, at least; null: nothing is pending
	OldestMost *float64 `json:"oldest_age_at_most_seconds"` // null: nobody knows
	Checkpoint uint64   `json:"checkpoint"`
	Last       uint64   `json:"last"`
}

func (d *Desk) list(out io.Writer, asJSON bool) error {
	qs, err := d.queues()
	if err != nil {
		return err
	}
	if asJSON {
		w := lineWriter{out}
		for _, q := range qs {
			s := q.Stats()
			l := listed{Queue: s.Name, Pending: s.Pending, Parked: s.Parked, Bytes: s.Bytes, Checkpoint: uint64(s.Checkpoint), Last: uint64(s.Last)}
			l.Oldest, l.OldestMost = d.seconds(s.Oldest)
			if err := w.write(l); err != nil {
				return err
			}
		}
		return nil
	}
	if len(qs) == 0 {
		_, err := fmt.Fprintln(out, "nothing was ever in any queue")
		return err
	}
	t := newTable("lrrrrrr", "queue", "pending", "parked", "bytes", "oldest", "checkpoint", "last")
	for _, q := range qs {
		s := q.Stats()
		t.add(s.Name, fmt.Sprint(s.Pending), fmt.Sprint(s.Parked), size(s.Bytes), d.age(s.Oldest), fmt.Sprint(s.Checkpoint), fmt.Sprint(s.Last))
	}
	return t.write(out)
}

// seconds are the bounds of an age for JSON; nil where there is none.
func (d *Desk) seconds(s storage.Stamp) (least, most *float64) {
	if s == (storage.Stamp{}) {
		return nil, nil
	}
	a, b := d.Clock.Age(s)
	x := a.Round(time.Millisecond).Seconds()
	least = &x
	if b >= 0 {
		y := b.Round(time.Millisecond).Seconds()
		most = &y
	}
	return least, most
}

// part is which records of a queue a command looks at.
type part struct {
	from  storage.Position // the first; from the beginning if zero
	limit uint             // how many; all if zero
	pick  func(sender string, parked bool) bool
}

// What is held of a backlog at a time.
const (
	chunkRecords = 256
	chunkBytes   = 4 << 20
	pageRows     = 500 // of show
)

// each calls do for the records of q that have not ended, in order. What comes
// after it has begun is left out, so that it ends on a gateway that takes messages
// all the time.
func each(ctx context.Context, q *storage.Queue, p part, do func(storage.Seen) error) error {
	after, last := p.from, q.Stats().Last
	if after > 0 {
		after--
	}
	for n := uint(0); after < last; {
		if ctx.Err() != nil {
			return stopped{ctx.Err()}
		}
		limit := storage.Limit{Records: chunkRecords, Bytes: chunkBytes}
		if p.limit > 0 {
			limit.Records = int(min(chunkRecords, p.limit-n))
		}
		seen, next, err := q.Look(after, limit, p.pick)
		if err != nil {
			return err
		}
		for _, s := range seen {
			if s.Position > last {
				return nil
			}
			if err := do(s); err != nil {
				return err
			}
		}
		if n += uint(len(seen)); next <= after || p.limit > 0 && n >= p.limit {
			return nil
		}
		after = next
	}
	return nil
}

// show writes a line for each message that waits.
func (d *Desk) show(ctx context.Context, out io.Writer, name string, p part) error {
	qs, err := d.queues(name)
	if err != nil {
		return err
	}
	q := qs[0]
	page := func() *table {
		return newTable("rllrllrll", "position", "sender", "state", "age", "ttl", "topic", "size", "id", "body")
	}
	t, n, limit, more := page(), uint(0), p.limit, storage.Position(0)
	if p.limit > 0 {
		p.limit++ // one more, to know whether there is one
	}
	err = each(ctx, q, p, func(s storage.Seen) error {
		if limit > 0 && n == limit {
			more = s.Position
			return nil
		}
		n++
		t.add(d.row(s)...)
		if len(t.rows) <= pageRows {
			return nil
		}
		full := t
		t = page()
		return full.write(out)
	})
	switch {
	case err != nil:
		return err
	case n == 0:
		_, err := fmt.Fprintln(out, "nothing waits there")
		return err
	case len(t.rows) > 1:
		err = t.write(out)
	}
	if err != nil || more == 0 {
		return err
	}
	s := q.Stats()
	_, err = fmt.Fprintf(out, "and more, of %s in all: --from %d shows the next, --limit 0 shows all\n", messages(s.Pending+s.Parked), more)
	return err
}

// row is one message for a person.
func (d *Desk) row(s storage.Seen) []string {
	state := "pending"
	if s.Parked {
		state = "parked"
	}
	cells := []string{fmt.Sprint(s.Position), s.Sender, state}
	if s.Err != nil {
		return append(cells, "-", "-", "-", "-", "-", "cannot be read: "+s.Err.Error())
	}
	ttl := "none"
	if s.TTL > 0 {
		ttl = span(s.TTL)
		if least, _ := d.Clock.Age(s.Stamp); least >= s.TTL {
			ttl += ", over"
		}
	}
	cells = append(cells, d.age(s.Stamp), ttl)
	m, err := hub.Decode(&s.Item)
	if err != nil {
		return append(cells, "-", size(uint64(len(s.Body))), "-", err.Error())
	}
	return append(cells, preview([]byte(place(m)), 48), size(uint64(len(m.Body))), m.ID, preview(m.Body, 32))
}

// place is what a message was sent to: a topic, a module's output, or telemetry.
func place(m hub.Message) string {
	switch {
	case m.Topic != "":
		return m.Topic
	case m.Output != "":
		return "output " + m.Output
	}
	return "telemetry"
}
