package mqtt

import (
	"strings"
	"sync"
)

// tree finds who subscribes to a topic. It is our own because all of a message's way
// hangs on it: mochi's index makes a map of all who match for each message, knows no
// subscriptions but its own kind, and misses that "+/#" is for the level above too.
type tree struct {
	mu   sync.RWMutex
	root node
}

// node is one level of the filters that begin alike.
type node struct {
	below map[string]*node
	subs  map[subscriber]subscription // whose filter ends here
}

// subscriber is a *session or a *group.
type subscriber any

// hit is one subscription that matches.
type hit struct {
	who subscriber
	sub subscription
}

// put adds a subscription, or changes its terms.
func (t *tree) put(filter string, who subscriber, sub subscription) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := &t.root
	for level := range strings.SplitSeq(filter, "/") {
		next := n.below[level]
		if next == nil {
			if n.below == nil {
				n.below = map[string]*node{}
			}
			next = &node{}
			n.below[strings.Clone(level)] = next
		}
		n = next
	}
	if n.subs == nil {
		n.subs = map[subscriber]subscription{}
	}
	n.subs[who] = sub
}

// take removes a subscription, and the levels that are for nobody then.
func (t *tree) take(filter string, who subscriber) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.root.take(filter, who)
}

func (n *node) take(filter string, who subscriber) {
	level, rest, more := strings.Cut(filter, "/")
	next := n.below[level]
	switch {
	case next == nil:
		return
	case more:
		next.take(rest, who)
	default:
		delete(next.subs, who)
	}
	if len(next.subs) == 0 && len(next.below) == 0 {
		delete(n.below, level)
	}
}

// match appends all subscriptions that match topic to hits. mixed says that they are
// of several filters, so that somebody may be among them more than once.
func (t *tree) match(topic string, hits []hit) (all []hit, mixed bool) {
	s := search{hits: hits}
	t.mu.RLock()
	defer t.mu.RUnlock()
	s.walk(&t.root, topic, strings.HasPrefix(topic, "$"))
	return s.hits, s.nodes > 1
}

type search struct {
	hits  []hit
	nodes int
}

// walk goes down from n. own says that the topic is the server's own, which wildcards
// at the beginning do not see [MQTT-4.7.2-1].
func (s *search) walk(n *node, topic string, own bool) {
	level, rest, more := strings.Cut(topic, "/")
	if !own {
		s.add(n.below["#"])
		s.down(n.below["+"], rest, more)
	}
	s.down(n.below[level], rest, more)
}

func (s *search) down(n *node, rest string, more bool) {
	switch {
	case n == nil:
	case more:
		s.walk(n, rest, false)
	default:
		s.add(n)
		s.add(n.below["#"]) // "a/#" is for "a" too
	}
}

func (s *search) add(n *node) {
	if n == nil || len(n.subs) == 0 {
		return
	}
	s.nodes++
	for who, sub := range n.subs {
		s.hits = append(s.hits, hit{who, sub})
	}
}

// grant is how a message goes to one subscriber: once, with the best of the
// subscriptions that match, and the identifiers of all of them.
type grant struct {
	who subscriber
	note
}

// grants makes one of all hits of each subscriber.
func grants(hits []hit, mixed bool, from string, qos byte, retain bool) []grant {
	out := make([]grant, 0, len(hits))
	var at map[subscriber]int // in out
	if mixed {
		at = make(map[subscriber]int, len(hits))
	}
	for _, h := range hits {
		if s, ok := h.who.(*session); ok && h.sub.noLocal && s.key == from {
			continue
		}
		i, again := at[h.who]
		if !again {
			i = len(out)
			out = append(out, grant{who: h.who})
			if mixed {
				at[h.who] = i
			}
		}
		g := &out[i]
		g.qos = max(g.qos, min(h.sub.qos, qos))
		g.retain = g.retain || h.sub.retained && retain
		if h.sub.id != 0 {
			g.ids = append(g.ids, h.sub.id)
		}
	}
	return out
}

// index puts a subscription into the trees: of all who want messages now, and of those
// for whom they are kept.
func (s *session) index(filter string, sub subscription) {
	s.b.topics.put(filter, s, sub)
	if s.feed.q != nil {
		s.b.lasting.put(filter, s, sub)
	}
}

func (s *session) unindex(filter string) {
	if _, _, shared := cutShare(filter); shared || s.device != "" {
		return
	}
	s.b.topics.take(filter, s)
	if s.feed.q != nil {
		s.b.lasting.take(filter, s)
	}
}

// deliver puts m on its way to the client, unless the session's queue has it.
func (s *session) deliver(m *message, n note) {
	if s.feed.q != nil && n.qos > 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.subs == nil {
		return // it has just ended
	}
	s.put(&delivery{m: m, qos: n.qos, retain: n.retain, ids: n.ids})
}
