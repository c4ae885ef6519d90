package hubtest

import (
	"bufio"
	"io"
	"sync"
)

// outbox is what is to be sent on one connection, in order. Putting never blocks,
// so that nobody who holds a lock waits for a peer that has stopped reading.
type outbox struct {
	mu      sync.Mutex
	packets [][]byte
	some    chan struct{} // has one element when there is something to send
}

// outboxLen is how many packets may wait; more means that the peer takes none.
const outboxLen = 1 << 17

func newOutbox() *outbox { return &outbox{some: make(chan struct{}, 1)} }

// put adds a packet; false when there are too many.
func (o *outbox) put(packet []byte) bool {
	o.mu.Lock()
	o.packets = append(o.packets, packet)
	ok := len(o.packets) < outboxLen
	o.mu.Unlock()
	select {
	case o.some <- struct{}{}:
	default:
	}
	return ok
}

func (o *outbox) take() [][]byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	p := o.packets
	o.packets = nil
	return p
}

// run writes to w until done, or until writing fails.
func (o *outbox) run(w io.Writer, done <-chan struct{}) error {
	buf := bufio.NewWriterSize(w, 16<<10)
	for {
		select {
		case <-o.some:
		case <-done:
			return nil
		}
		for _, p := range o.take() {
			if _, err := buf.Write(p); err != nil {
				return err
			}
		}
		if err := buf.Flush(); err != nil {
			return err
		}
	}
}
