package storage

import "sync/atomic"

// Order ties the records of one stream together, those of one connection for
// example. Once one of them has been refused with ErrFull, so are all that come
// after it, whether there is room again or not, until Resume: so the caller can
// hand the refused ones over again, before those that followed. The zero value is
// ready.
type Order struct{ stopped atomic.Bool }

// Resume lets records in again. The caller must have been answered for all that it
// handed over.
func (o *Order) Resume() { o.stopped.Store(false) }

// keepOrder refuses what comes after something that was refused.
func keepOrder(batch []*request, verdict []error) {
	for i, r := range batch {
		switch {
		case r.order == nil || verdict[i] == errLater:
		case verdict[i] != nil:
			r.order.stopped.Store(true)
		case r.order.stopped.Load():
			verdict[i] = errBehind
		}
	}
}
