package main

import (
	"context"
	"fmt"
	"slices"

	"holdfast.dev/holdfast/storage"
)

// step does one thing, by lot, mostly appending.
func (c *cutWorker) step(ctx context.Context) {
	switch n := c.lot.IntN(100); {
	case n < 68:
		c.append(ctx)
	case n < 76:
		c.set(ctx)
	case n < 81:
		c.parkOrNot()
	case n < 86:
		c.parkRecord()
	default:
		c.settle(c.cutQueue(), c.lot.IntN(4))
	}
}

// drainStep does one thing, by lot, mostly ending what is there.
func (c *cutWorker) drainStep(ctx context.Context) {
	switch n := c.lot.IntN(100); {
	case n < 5:
		c.append(ctx)
	case n < 8:
		c.set(ctx)
	case n < 20:
		for _, name := range cutQueues()[:3] {
			for sender := range c.db.Queue(name).Parked() {
				c.park(c.db.Queue(name), sender)
			}
		}
	case n < 25:
		c.parkRecord()
	case n < 40:
		c.settle(c.cutQueue(), c.lot.IntN(4))
	default:
		var fullest *storage.Queue
		most := uint64(0)
		for _, q := range c.db.Queues() {
			if n := q.Stats().Pending; n > most {
				fullest, most = q, n
			}
		}
		if fullest != nil {
			c.settle(fullest, 0)
		}
	}
}

// cutQueue is one of the queues, by lot, the first more often.
func (c *cutWorker) cutQueue() *storage.Queue {
	queues := cutQueues()
	if c.lot.IntN(2) == 0 {
		return c.db.Queue(queues[0])
	}
	return c.db.Queue(queues[c.lot.IntN(len(queues))])
}

// append offers some records at once, of several senders, for several queues, and
// now and then waits for their acknowledgement.
func (c *cutWorker) append(ctx context.Context) {
	queues := cutQueues()
	for range 1 + c.lot.IntN(24) {
		b := cutBody{sender: cutSenders[c.lot.IntN(len(cutSenders))], queues: queues[:1], size: 40 + c.lot.IntN(400)}
		switch c.lot.IntN(10) {
		case 0:
			b.queues = []string{queues[0], queues[2]}
		case 1:
			b.queues = []string{queues[1]}
		case 2:
			b.queues = []string{queues[0], queues[4+c.lot.IntN(12)], queues[4]}
			slices.Sort(b.queues)
			b.queues = slices.Compact(b.queues)
		case 3:
			b.queues = []string{evictingQueue}
		}
		if c.lot.IntN(12) == 0 {
			b.size = 2000 + c.lot.IntN(60000)
		}
		if c.lot.IntN(10) == 0 {
			b.ttl = livesShort + cutTTL(c.lot.IntN(2))
		}
		c.offer(ctx, b)
	}
	if c.lot.IntN(3) == 0 {
		c.rest()
	}
}

// offer appends one record, sometimes with a change of a map that is true exactly
// when the record is kept.
func (c *cutWorker) offer(ctx context.Context, b cutBody) {
	c.n[b.sender]++
	b.n = c.n[b.sender]
	r := storage.Record{Sender: b.sender, Stamp: storage.SystemClock().Now(), Body: b.bytes()}
	for _, q := range b.queues {
		r.To = append(r.To, storage.Dest{Queue: q, TTL: b.ttl.duration(), Note: []byte(q)})
	}
	c.say.say("offer %s %d", b.sender, b.n)
	key, token := fmt.Sprint("k", c.lot.IntN(8)), fmt.Sprintf("%s:%d", b.sender, b.n)
	with := c.lot.IntN(20) == 0
	if with {
		c.rest() // two changes of one key must not be under way
		r.With = []storage.Change{{Map: "cut", Key: key, Value: tokenValue(token)}}
		c.say.say("setting %s %s", key, token)
	}
	c.asking.Add(1)
	c.db.Append(ctx, r, func(err error) {
		defer c.asking.Done()
		if !c.answer(err) {
			return
		}
		text := ""
		c.mu.Lock()
		for _, q := range b.queues {
			c.last[q]++
			text += fmt.Sprintf("kept %s %d %s %d %d\n", q, c.last[q], b.sender, b.n, b.ttl)
		}
		c.mu.Unlock()
		if with {
			text += fmt.Sprintf("set %s %s\n", key, token)
		}
		c.say.line(text)
	})
	if with {
		c.rest()
	}
}

// tokenValue is the value of a key that has a token: the token, and something that
// follows from it.
func tokenValue(token string) []byte {
	if token == "-" {
		return nil
	}
	b := []byte(token + " ")
	return cutBody{sender: token, size: 20 + 37*len(token)*len(token)%1500}.fill(b)
}

func (c *cutWorker) set(ctx context.Context) {
	c.rest()
	c.key++
	key, token := fmt.Sprint("k", c.lot.IntN(8)), fmt.Sprint(c.key)
	if c.lot.IntN(4) == 0 {
		token = "-"
	}
	c.say.say("setting %s %s", key, token)
	if c.answer(c.db.Map("cut").Set(ctx, map[string][]byte{key: tokenValue(token)})) {
		c.say.say("set %s %s", key, token)
	}
}

// settle ends what a reader is given of a queue: all of it, one sender's, some by
// lot, or the oldest.
func (c *cutWorker) settle(q *storage.Queue, which int) {
	c.rest()
	items, _, err := q.Read(q.Checkpoint(), storage.Limit{Records: 1 + c.lot.IntN(2000)}, nil)
	if !c.answer(err) || len(items) == 0 {
		return
	}
	ends := map[storage.Outcome][]storage.Position{}
	sender := items[c.lot.IntN(len(items))].Sender
	for i, it := range items {
		if which == 1 && it.Sender != sender || which == 2 && c.lot.IntN(2) == 0 || which == 3 && i > 20 {
			continue
		}
		o := storage.Delivered
		switch {
		case it.TTL > 0 && it.TTL < livesLong.duration():
			o = storage.Expired
		case which == 3:
			o = storage.Evicted
		case c.lot.IntN(200) == 0:
			o = storage.Discarded
		}
		ends[o] = append(ends[o], it.Position)
	}
	for o := storage.Delivered; o <= storage.Discarded; o++ { // in order, so that one seed means one thing
		c.end(q, o, ends[o])
	}
}

// end settles positions, in any order, and sometimes does not ask when it is true.
func (c *cutWorker) end(q *storage.Queue, o storage.Outcome, ps []storage.Position) {
	if len(ps) == 0 {
		return
	}
	word := positions(ps)
	c.say.say("ending %s %d%s", q.Name(), o, word)
	c.lot.Shuffle(len(ps), func(i, j int) { ps[i], ps[j] = ps[j], ps[i] })
	if c.lot.IntN(3) == 0 {
		q.Settle(ps, o, nil)
		return
	}
	c.asking.Add(1)
	q.Settle(ps, o, func(err error) {
		defer c.asking.Done()
		if c.answer(err) {
			c.say.say("ended %s %d%s", q.Name(), o, word)
		}
	})
}

// parkOrNot parks a sender, or unparks it.
func (c *cutWorker) parkOrNot() {
	c.park(c.db.Queue(cutQueues()[c.lot.IntN(3)]), cutSenders[c.lot.IntN(len(cutSenders))])
}

// park parks a sender, or unparks it unless it is the one that stays. One at a time:
// in a full store the answer takes until something was drained.
func (c *cutWorker) park(q *storage.Queue, sender string) {
	c.rest()
	_, is := q.Parked()[sender]
	if is && sender == c.sleeper || !c.parking.CompareAndSwap(false, true) {
		return
	}
	word := "parked"
	if is {
		word = "unparked"
	}
	c.say.say("parking %s %s", q.Name(), sender)
	done := func(err error) {
		defer c.parking.Store(false)
		if c.answer(err) {
			c.say.say("%s %s %s", word, q.Name(), sender)
		}
	}
	if is {
		q.Unpark(sender, done)
	} else {
		q.Park(sender, "refused", done)
	}
}

// parkRecord parks one record or unparks the oldest one; nobody is told when that
// is true.
func (c *cutWorker) parkRecord() {
	c.rest()
	q := c.db.Queue(cutQueues()[c.lot.IntN(3)])
	if parked := q.ParkedRecords(); len(parked) > 3 {
		p := parked[0].Position
		c.say.say("aside %s %d", q.Name(), p)
		q.UnparkRecord(p)
		return
	}
	items, _, err := q.Read(q.Checkpoint(), storage.Limit{Records: 50}, nil)
	if !c.answer(err) || len(items) == 0 {
		return
	}
	p := items[c.lot.IntN(len(items))].Position
	c.say.say("aside %s %d", q.Name(), p)
	q.ParkRecord(p, "strange")
}
