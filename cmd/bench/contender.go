package main

import "sync"

// contender is a store beside others: it keeps groups of messages.
type contender interface {
	// keep returns once all of the group is on disk.
	keep(group []message) error
	// commits is how many groups were made durable, each for itself.
	commits() uint64
	close() error
}

// drainer is a contender that gives back what it keeps.
type drainer interface {
	contender
	// take gives the oldest messages, at most n, and forgets them; none if there are
	// none. A crash may bring back what was taken last.
	take(n int) ([]message, error)
}

// asker is a contender that takes single messages from many at once and groups
// them, or does not, by itself. done is called once the message is on disk.
type asker interface {
	put(m message, done func(error))
}

// rival is a contender that can be opened.
type rival struct {
	name string
	// open makes it in a new folder; it will have to hold about so many bytes of
	// messages at a time.
	open func(dir string, bytes int64) (contender, error)
}

// The contenders, us first and the reference second.
func rivals() []rival {
	return []rival{holdfastRival(), referenceRival(), badgerPackedRival(), bboltRival(), badgerEachRival()}
}

func holdfastRival() rival {
	return rival{"Holdfast storage", func(dir string, _ int64) (contender, error) { return openHoldfast(dir) }}
}

func referenceRival() rival {
	return rival{"R, a plain log", func(dir string, bytes int64) (contender, error) { return openRing(dir, bytes) }}
}

func badgerPackedRival() rival {
	return rival{"badger, a packed value a group", func(dir string, _ int64) (contender, error) { return openBadgerPacked(dir) }}
}

func bboltRival() rival {
	return rival{"bbolt, a packed value a group", func(dir string, _ int64) (contender, error) { return openBolt(dir) }}
}

func badgerEachRival() rival {
	return rival{"badger, a transaction a message", func(dir string, _ int64) (contender, error) { return openBadgerEach(dir) }}
}

// asks gives a contender's door for single messages: its own, or a grouper before it.
func asks(c contender) (asker, func()) {
	if a, ok := c.(asker); ok {
		return a, func() {}
	}
	g := newGrouper(c)
	return g, g.stop
}

// grouper makes groups for those that cannot: everything that waits when a commit
// begins is the next one.
type grouper struct {
	c     contender
	wake  chan struct{}
	ended chan struct{}

	mu      sync.Mutex
	waiting []asked
}

type asked struct {
	m    message
	done func(error)
}

// groupBytes bounds a group; Holdfast's is half a segment, which is the same.
const groupBytes = 8 << 20

func newGrouper(c contender) *grouper {
	g := &grouper{c: c, wake: make(chan struct{}, 1), ended: make(chan struct{})}
	go g.run()
	return g
}

func (g *grouper) put(m message, done func(error)) { g.putAll([]message{m}, done) }

// putAll puts messages that must not be torn apart; done is called for each.
func (g *grouper) putAll(group []message, done func(error)) {
	g.mu.Lock()
	for _, m := range group {
		g.waiting = append(g.waiting, asked{m, done})
	}
	g.mu.Unlock()
	select {
	case g.wake <- struct{}{}:
	default:
	}
}

// stop ends it when nobody waits any more.
func (g *grouper) stop() {
	close(g.wake)
	<-g.ended
}

func (g *grouper) run() {
	defer close(g.ended)
	for range g.wake {
		for group := g.grab(); len(group) > 0; group = g.grab() {
			messages := make([]message, len(group))
			for i, a := range group {
				messages[i] = a.m
			}
			err := g.c.keep(messages)
			for _, a := range group {
				a.done(err)
			}
		}
	}
}

// grab takes what waits, as much as a group may be.
func (g *grouper) grab() []asked {
	g.mu.Lock()
	defer g.mu.Unlock()
	n, size := 0, 0
	for n < len(g.waiting) && size < groupBytes {
		size += len(g.waiting[n].m.body) + topicBytes
		n++
	}
	group := g.waiting[:n:n]
	g.waiting = g.waiting[n:]
	return group
}

// batch is a group that was handed over message by message.
type batch struct {
	all sync.WaitGroup
	end uint64 // number behind its last message

	mu    sync.Mutex
	first error
}

func newBatch(n int) *batch {
	b := &batch{}
	b.all.Add(n)
	return b
}

func (b *batch) done(err error) {
	if err != nil {
		b.mu.Lock()
		if b.first == nil {
			b.first = err
		}
		b.mu.Unlock()
	}
	b.all.Done()
}

// wait gives the first error, once all have been answered.
func (b *batch) wait() error {
	b.all.Wait()
	return b.first
}

// keepAll hands a group over message by message and waits for all of it.
func keepAll(a asker, group []message) error {
	b := newBatch(len(group))
	for _, m := range group {
		a.put(m, b.done)
	}
	return b.wait()
}
