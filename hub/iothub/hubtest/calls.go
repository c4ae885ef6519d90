package hubtest

import (
	"strconv"
	"sync"
)

// calls are the direct methods that wait for an answer, by request id.
type calls struct {
	mu      sync.Mutex
	last    uint64
	waiting map[string]call
}

// open makes a request id for a call to id, and the place where its answer comes.
func (c *calls) open(id string) (rid string, answer <-chan reply) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.waiting == nil {
		c.waiting = map[string]call{}
	}
	c.last++
	rid = strconv.FormatUint(c.last, 16)
	w := call{id, make(chan reply, 1)}
	c.waiting[rid] = w
	return rid, w.reply
}

func (c *calls) close(rid string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.waiting, rid)
}

// answer hands r to the caller, if the call was to id.
func (c *calls) answer(id, rid string, r reply) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if w, ok := c.waiting[rid]; ok && w.id == id {
		delete(c.waiting, rid)
		w.reply <- r
	}
}
