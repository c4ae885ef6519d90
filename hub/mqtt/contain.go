package mqtt

import (
	"fmt"
	"runtime/debug"
)

// contain is deferred where a fault of ours, or of mochi's, must not end the
// process: it counts the panic, logs where it was, and calls then, which ends the
// connection, or whatever was the work of the goroutine.
//
// Code under it must not hold a lock that it does not defer to give back: whoever
// cleans up would wait for it for ever.
func (b *Broker) contain(p any, who string, then func(error)) {
	if p != nil {
		then(b.panicked(who, p, debug.Stack()))
	}
}

func (b *Broker) panicked(who string, p any, stack []byte) error {
	b.stats.panics.Add(1)
	b.log.Error("connection panicked", "client", short(who), "panic", short(fmt.Sprint(p)), "stack", string(stack))
	return fmt.Errorf("serve %s: panic: %v", short(who), p)
}

// fell ends a connection in which something panicked.
func (c *conn) fell(error) { go c.Close() }

// containDone is contain for what the hub calls back: that is on the goroutine that
// commits for all, which must not wait for the log.
func (c *conn) containDone(p any) {
	if p != nil {
		stack := debug.Stack()
		go c.b.panicked(c.who, p, stack)
		c.fell(nil)
	}
}
