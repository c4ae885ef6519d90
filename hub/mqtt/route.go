package mqtt

import (
	"strings"
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
	var seen map[string]bool
	for key := range b.lasting.Subscribers(m.Topic).Subscriptions {
		if k, twice := strings.CutSuffix(key, above); twice || seen[key] {
			if seen[k] {
				continue
			}
			if seen == nil {
				seen = map[string]bool{}
			}
			seen[k], key = true, k
		}
		if d, ok := b.destination(key, m, &x); ok {
			d.TTL = ttl
			to = append(to, d)
		}
	}
	return to
}

// destination is the queue that a key of the index stands for. It has none where all
// that matches is of quality 0, or is not for its own publisher.
func (b *Broker) destination(key string, m *hub.Message, x *extra) (d hub.Dest, ok bool) {
	if name, shared := strings.CutPrefix(key, shareKey); shared {
		b.gmu.Lock()
		g := b.groups[name]
		b.gmu.Unlock()
		if g == nil {
			return d, false
		}
		return hub.Dest{Queue: g.queue(), Priority: usualPriority, Note: note{qos: 1}.encode()}, true
	}
	b.mu.RLock()
	s := b.sessions[key]
	b.mu.RUnlock()
	if s == nil || s.feed.q == nil {
		return d, false
	}
	s.mu.Lock()
	n, ok := s.wants(m.Topic, x.from, m.QoS, x.retain)
	s.mu.Unlock()
	if !ok || n.qos == 0 {
		return d, false
	}
	return hub.Dest{Queue: s.queue(), Priority: usualPriority, Note: n.encode()}, true
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
