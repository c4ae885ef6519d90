package mqtt

import (
	"sync"
	"time"

	"holdfast.dev/holdfast/hub"
)

// retainedQueue keeps what is retained, so that it is there after a restart.
const retainedQueue = "retained"

// Route is the hub.Router of what is kept for ordinary clients: one destination for
// each session that outlives its connection and asks for the message at quality 1 or
// 2, connected or not; one for each shared subscription; one if it is retained.
func (b *Broker) Route(m *hub.Message) []hub.Dest {
	if m.Topic == "" {
		return nil // IoT Hub's
	}
	x, err := parseExtra(m.Extra)
	if err != nil {
		return []hub.Dest{{Queue: retainedQueue, Refuse: err}}
	}
	ttl := time.Duration(x.lifetime) * time.Second
	var to []hub.Dest
	if x.retain {
		to = append(to, hub.Dest{Queue: retainedQueue, Priority: usualPriority, TTL: ttl})
	}
	if m.QoS == 0 {
		return to
	}
	hits, mixed := b.lasting.match(m.Topic, nil)
	for _, g := range grants(hits, mixed, x.from, m.QoS, x.retain) {
		switch who := g.who.(type) {
		case *group:
			to = append(to, hub.Dest{Queue: who.queue(), Priority: usualPriority, TTL: ttl, Note: g.encode()})
		case *session:
			if g.qos > 0 {
				to = append(to, hub.Dest{Queue: who.queue(), Priority: usualPriority, TTL: ttl, Note: g.encode()})
			}
		}
	}
	return to
}

// passage tells when all publishes that were on their way into the store at some
// moment are in its line: who subscribes then sees in the retained messages, or
// gets, whatever was published since.
type passage struct {
	mu    sync.Mutex
	turn  int
	under [2]int
	idle  chan struct{} // closed when nobody of the earlier turn is under way
}

// enter is called before a message is handed to the hub, and leave when that returns.
func (p *passage) enter() (leave func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	turn := p.turn
	p.under[turn]++
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.under[turn]--; p.under[turn] == 0 && turn != p.turn && p.idle != nil {
			close(p.idle)
			p.idle = nil
		}
	}
}

// cross waits until those that are under way now have left.
func (p *passage) cross(ended <-chan struct{}) {
	for {
		p.mu.Lock()
		if p.idle == nil {
			break
		}
		idle := p.idle // of somebody else who crosses
		p.mu.Unlock()
		select {
		case <-idle:
		case <-ended:
			return
		}
	}
	earlier := p.turn
	p.turn = 1 - p.turn
	if p.under[earlier] == 0 {
		p.mu.Unlock()
		return
	}
	idle := make(chan struct{})
	p.idle = idle
	p.mu.Unlock()
	select {
	case <-idle:
	case <-ended:
	}
}
