package console

import (
	"context"
	"errors"
	"fmt"
	"io"

	"holdfast.dev/holdfast/hub"
	"holdfast.dev/holdfast/storage"
)

// maxFaults is how many unreadable records are named one by one.
const maxFaults = 20

// verify proves, in three steps, that ledger and data agree: the ledger with
// itself, the index with the ledger, the data with the index.
func (d *Desk) verify(ctx context.Context, out io.Writer) error {
	qs, err := d.queues()
	if err != nil {
		return err
	}
	index := d.Queue.Verify()
	off, err := d.equations(out)
	if err != nil {
		return err
	}
	if err := d.damage(out); err != nil {
		return err
	}
	read, broken, err := readAll(ctx, out, qs)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(out, "\nread %s; %d cannot be read\n", messages(read), broken); err != nil {
		return err
	}
	var errs []error
	if off > 0 {
		errs = append(errs, fmt.Errorf("%d rows of the ledger do not add up", off))
	}
	if index != nil {
		errs = append(errs, index)
	}
	if broken > 0 {
		errs = append(errs, fmt.Errorf("%s cannot be read", messages(broken)))
	}
	if len(errs) > 0 {
		return fault("copy the folder away before anything else is done with it", "ledger and data do not agree: %w", errors.Join(errs...))
	}
	_, err = fmt.Fprintln(out, "ledger and data agree")
	return err
}

// equations prints each row of the ledger as what it claims to be.
func (d *Desk) equations(out io.Writer) (off int, err error) {
	t := newTable("llrlrlrlrlrlrlrlrl", "queue", "sender", "accepted", "=", "delivered", "+", "expired", "+", "evicted", "+",
		"discarded", "+", "damaged", "+", "parked", "+", "pending", "")
	unrouted := newTable("lr", "sender", "unrouted")
	for _, r := range d.Queue.Ledger() {
		if r.Unrouted > 0 {
			unrouted.add(nobody(r.Sender), fmt.Sprint(r.Unrouted))
		}
		if r.Queue == "" && r.Accepted == 0 {
			continue // it only counts what was unrouted
		}
		sum, equal := "adds up", "="
		if b := r.Balance(); b != 0 {
			off++
			sum, equal = fmt.Sprintf("OFF BY %d", b), "≠"
		}
		n := func(v uint64) string { return fmt.Sprint(v) }
		t.add(r.Queue, nobody(r.Sender), n(r.Accepted), equal, n(r.Delivered), "+", n(r.Expired), "+", n(r.Evicted), "+",
			n(r.Discarded), "+", n(r.Damaged), "+", n(r.Parked), "+", n(r.Pending), sum)
	}
	if len(t.rows) == 1 {
		_, err = fmt.Fprintln(out, "the ledger is empty: nothing was ever accepted")
	} else {
		err = t.write(out)
	}
	if err == nil && len(unrouted.rows) > 1 {
		_, err = fmt.Fprintln(out)
		err = errors.Join(err, unrouted.write(out))
	}
	return off, err
}

// nobody names the row of what was lost without anybody knowing whose it was.
func nobody(sender string) string {
	if sender == "" {
		return "(not known)"
	}
	return sender
}

// damage prints what was found when the store was opened. It is in the ledger
// already.
func (d *Desk) damage(out io.Writer) error {
	for _, x := range d.Queue.Stats().Damage {
		what := fmt.Sprintf("damage, %d records missing", x.Records)
		if x.Torn {
			what = "torn end, never acknowledged"
		}
		if _, err := fmt.Fprintf(out, "found at opening: %s, %d bytes at %d of %s; a copy is %s\n",
			what, x.Bytes, x.Offset, printable(x.File), printable(x.Kept)); err != nil {
			return err
		}
	}
	return nil
}

// readAll reads all that waits, and names what cannot be read.
func readAll(ctx context.Context, out io.Writer, qs []*storage.Queue) (read, broken uint64, err error) {
	for _, q := range qs {
		err := each(ctx, q, part{}, func(s storage.Seen) error {
			err := s.Err
			if err == nil {
				_, err = hub.Decode(&s.Item)
			}
			if err == nil {
				read++
				return nil
			}
			if broken++; broken > maxFaults {
				return nil
			}
			_, err = fmt.Fprintf(out, "%s position %d of %s: %s\n", printable(q.Name()), s.Position, printable(s.Sender), printable(err.Error()))
			return err
		})
		if err != nil {
			return read, broken, err
		}
	}
	return read, broken, nil
}
