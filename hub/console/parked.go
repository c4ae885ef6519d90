package console

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"

	"holdfast.dev/holdfast/storage"
)

// reasons are why things in one queue are parked.
type reasons struct {
	senders map[string]string
	records map[storage.Position]string
}

func reasonsOf(q *storage.Queue) reasons {
	r := reasons{q.Parked(), map[storage.Position]string{}}
	for _, p := range q.ParkedRecords() {
		r.records[p.Position] = p.Reason
	}
	return r
}

// of is why s is parked: its own reason, for it outlives its sender's.
func (r reasons) of(s storage.Seen) string {
	if why, ok := r.records[s.Position]; ok {
		return why
	}
	return r.senders[s.Sender]
}

// parkedLine is one row of parked list --json.
type parkedLine struct {
	Queue      string   `json:"queue"`
	Kind       string   `json:"kind"` // sender or message
	Sender     string   `json:"sender"`
	Position   uint64   `json:"position,omitempty"` // of a message
	Count      uint64   `json:"count"`              // of a sender: all that is parked of it
	Oldest     *float64 `json:"oldest_age_seconds"`
	OldestMost *float64 `json:"oldest_age_at_most_seconds"`
	Reason     string   `json:"reason"`

	stamp storage.Stamp
}

func (d *Desk) parkedList(out io.Writer, asJSON bool) error {
	qs, err := d.queues()
	if err != nil {
		return err
	}
	var all []parkedLine
	for _, q := range qs {
		lines, err := d.parkedOf(q)
		if err != nil {
			return err
		}
		all = append(all, lines...)
	}
	if asJSON {
		w := lineWriter{out}
		for _, l := range all {
			if err := w.write(l); err != nil {
				return err
			}
		}
		return nil
	}
	if len(all) == 0 {
		_, err := fmt.Fprintln(out, "nothing is parked")
		return err
	}
	t := newTable("lllrrl", "queue", "sender", "parked", "messages", "oldest", "reason")
	for _, l := range all {
		what := "whole sender"
		if l.Kind == "message" {
			what = fmt.Sprintf("position %d", l.Position)
		}
		t.add(l.Queue, nobody(l.Sender), what, fmt.Sprint(l.Count), d.age(l.stamp), l.Reason)
	}
	return t.write(out)
}

// parkedOf gives what is parked in q: senders, then messages parked by themselves.
func (d *Desk) parkedOf(q *storage.Queue) ([]parkedLine, error) {
	var lines []parkedLine
	senders := q.Parked()
	for _, sender := range slices.Sorted(maps.Keys(senders)) {
		l := parkedLine{Queue: q.Name(), Kind: "sender", Sender: sender, Count: d.parkedCount(q, sender), Reason: senders[sender]}
		seen, _, err := q.Look(0, storage.Limit{Records: 1}, func(s string, _ bool) bool { return s == sender })
		if err != nil {
			return nil, err
		}
		lines = append(lines, d.aged(l, seen))
	}
	for _, r := range q.ParkedRecords() {
		l := parkedLine{Queue: q.Name(), Kind: "message", Sender: r.Sender, Position: uint64(r.Position), Count: 1, Reason: r.Reason}
		seen, _, err := q.Look(r.Position-1, storage.Limit{Records: 1}, nil)
		if err != nil {
			return nil, err
		}
		if len(seen) > 0 && seen[0].Position != r.Position {
			continue // it has ended meanwhile
		}
		lines = append(lines, d.aged(l, seen))
	}
	return lines, nil
}

func (d *Desk) aged(l parkedLine, seen []storage.Seen) parkedLine {
	if len(seen) > 0 {
		l.stamp = seen[0].Stamp
		l.Oldest, l.OldestMost = d.seconds(l.stamp)
	}
	return l
}

// parkedCount is how many of sender's messages are parked in q.
func (d *Desk) parkedCount(q *storage.Queue, sender string) uint64 {
	for _, r := range d.Queue.Ledger() {
		if r.Queue == q.Name() && r.Sender == sender {
			return r.Parked
		}
	}
	return 0
}

// retry lets what was parked go again.
func (d *Desk) retry(ctx context.Context, out io.Writer, queue []string, s selection) error {
	qs, err := d.queues(queue...)
	if err != nil {
		return err
	}
	d.decisions.Lock()
	defer d.decisions.Unlock()
	total, senders := uint64(0), 0
	for _, q := range qs {
		if ctx.Err() != nil {
			return stopped{ctx.Err()}
		}
		n, who, err := d.unpark(q, s)
		if err != nil {
			return err
		}
		total += n
		senders += who
		if n > 0 || who > 0 {
			d.log().Info("unparked by a person", "queue", q.Name(), "messages", n, "senders", who)
		}
	}
	if total == 0 && senders == 0 && s.position > 0 {
		return fault("holdfast queue parked list shows what is; a message of a parked sender goes with it: --sender",
			"no message is parked by itself %s", s)
	}
	_, err = fmt.Fprintf(out, "%s may go again, and %s parked as a whole\n", messages(total), counted(uint64(senders), "sender"))
	return err
}

// unpark unparks in one queue, and waits until it is true.
func (d *Desk) unpark(q *storage.Queue, s selection) (n uint64, senders int, err error) {
	parked := q.Parked()
	for _, sender := range slices.Sorted(maps.Keys(parked)) {
		if s.position > 0 || s.sender != "" && s.sender != sender {
			continue
		}
		n += d.parkedCount(q, sender)
		senders++
		q.Unpark(sender, nil)
	}
	for _, r := range q.ParkedRecords() {
		if s.sender != "" && s.sender != r.Sender || s.position > 0 && s.position != uint64(r.Position) {
			continue
		}
		if _, counted := parked[r.Sender]; !counted || s.position > 0 {
			n++
		}
		q.UnparkRecord(r.Position)
	}
	if n == 0 && senders == 0 {
		return 0, 0, nil
	}
	return n, senders, settle(q, nil)
}

// export writes what is parked as JSON Lines.
func (d *Desk) export(ctx context.Context, out io.Writer, sender string) error {
	qs, err := d.queues()
	if err != nil {
		return err
	}
	for _, q := range qs {
		err := d.lines(ctx, out, q, selection{sender: sender, parkedOnly: true}.part())
		if err != nil {
			return err
		}
	}
	return nil
}
