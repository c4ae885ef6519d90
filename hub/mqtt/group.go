package mqtt

import (
	"cmp"
	"crypto/rand"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"

	"holdfast.dev/holdfast/hub"
	"holdfast.dev/holdfast/storage"
)

// group is one shared subscription (MQTT 5, section 4.8.2): a filter whose messages
// go each to one of its members. It has a queue of its own, and connected members
// take from it what their windows have room for: so who is fast gets more, who is
// away gets nothing, and what a member had not acknowledged when it went is taken by
// the next. While nobody is connected it waits. A share is granted quality 1 at
// most: two members cannot have "exactly once" between them.
//
// The group goes when its last subscription does; one of a session that is away
// counts. Its lock comes after a session's and is not held while the store commits.
type group struct {
	b            *Broker
	name, filter string
	born         string
	q            *storage.Queue

	mu      sync.Mutex
	members map[*session]subscription
	line    []*session // members, in turn for what is of quality 0
	scan    storage.Position
	ahead   []storage.Item // read and not taken; what was given back is among it
}

// rememberedGroup is a group, as it is on disk.
type rememberedGroup struct {
	Born string `json:"born"` // part of its queue's name
}

const (
	sharePrefix = "share/"
	shareChunk  = 16 // records that a member takes at once, so that there is some for the others
)

// cutShare splits a filter of the form "$share/NAME/FILTER".
func cutShare(f string) (name, filter string, shared bool) {
	first, rest, _ := strings.Cut(f, "/")
	if !strings.EqualFold(first, "$share") {
		return "", "", false
	}
	name, filter, _ = strings.Cut(rest, "/")
	return name, filter, true
}

// checkShare says what is wrong with a shared subscription [MQTT-4.8.2-1, -2].
func checkShare(f string) error {
	name, filter, _ := cutShare(f)
	switch {
	case !strings.HasPrefix(f, "$share/"):
		return errors.New("filter " + f + ": $share is written in small letters")
	case name == "" || filter == "":
		return errors.New("filter " + f + ": want $share/NAME/FILTER")
	case strings.ContainsAny(name, "+#"):
		return errors.New("filter " + f + ": the name of a share has no wildcards")
	}
	return nil
}

func groupKey(name, filter string) string { return name + "\x00" + filter }

// group gives the group of that name and filter, which is made if there is none.
func (b *Broker) group(name, filter string) *group {
	b.gmu.Lock()
	defer b.gmu.Unlock()
	key := groupKey(name, filter)
	g := b.groups[key]
	if g == nil {
		g = b.openGroup(name, filter, rand.Text()[:8])
		b.clerk.note(nil, jsonChange(mapGroups, key, rememberedGroup{Born: g.born}))
	}
	return g
}

// openGroup makes a group; the caller holds gmu, or is alone.
func (b *Broker) openGroup(name, filter, born string) *group {
	g := &group{b: b, name: name, filter: filter, born: born, members: map[*session]subscription{}}
	g.q = b.store.Queue(hub.Lane(g.queue(), usualPriority))
	g.q.SetPolicy(storage.Policy{MaxBytes: b.sessionQuota, Evict: true, Priority: 9})
	g.scan = g.q.Checkpoint()
	b.groups[groupKey(name, filter)] = g
	b.topics.put(filter, g, subscription{qos: 1})
	b.lasting.put(filter, g, subscription{qos: 1})
	return g
}

// queue is the destination that messages are routed to. A filter may be long, and
// the name is for people.
func (g *group) queue() string {
	return sharePrefix + g.name + "/" + short(g.filter) + "/" + g.born
}

// join makes s a member, or changes the terms of one.
func (b *Broker) join(s *session, name, filter string, sub subscription) *group {
	for {
		g := b.group(name, filter)
		g.mu.Lock()
		if g.members == nil { // it went in this moment
			g.mu.Unlock()
			continue
		}
		if _, ok := g.members[s]; !ok {
			g.line = append(g.line, s)
		}
		g.members[s] = sub
		g.mu.Unlock()
		return g
	}
}

// leave takes a member out, and ends the group when it was the last.
func (g *group) leave(s *session) {
	b := g.b
	b.gmu.Lock()
	defer b.gmu.Unlock()
	g.mu.Lock()
	delete(g.members, s)
	g.line = slices.DeleteFunc(g.line, func(x *session) bool { return x == s })
	last := len(g.members) == 0 && g.members != nil
	if last {
		g.members, g.ahead = nil, nil
	}
	g.mu.Unlock()
	if !last {
		return
	}
	key := groupKey(g.name, g.filter)
	delete(b.groups, key)
	b.topics.take(g.filter, g)
	b.lasting.take(g.filter, g)
	b.clerk.note(nil, storage.Change{Map: mapGroups, Key: key})
	b.graves.add(g.q)
}

// want takes up to n records for s.
func (g *group) want(s *session, n int) (items []storage.Item, sub subscription) {
	g.mu.Lock()
	defer g.mu.Unlock()
	sub, ok := g.members[s]
	if !ok {
		return nil, sub
	}
	if len(g.ahead) == 0 {
		read, next, err := g.q.Read(g.scan, storage.Limit{Records: feedChunk, Bytes: feedBytes}, nil)
		if err != nil {
			return nil, sub // the store is closed, and all connections end
		}
		g.scan, g.ahead = next, read
	}
	n = min(n, shareChunk, len(g.ahead))
	items = slices.Clone(g.ahead[:n])
	g.ahead = g.ahead[n:]
	return items, sub
}

// ended settles a share.
func (g *group) ended(p storage.Position, tooLarge bool) {
	o := storage.Delivered
	if tooLarge {
		o = storage.Discarded
	}
	g.q.Settle([]storage.Position{p}, o, nil)
}

// giveBack lets other members have what one that went had not acknowledged.
func giveBack(shares []*delivery) {
	by := map[*group][]storage.Item{}
	for _, d := range shares {
		by[d.group] = append(by[d.group], d.item)
	}
	for g, items := range by {
		g.mu.Lock()
		if g.members != nil {
			g.ahead = append(items, g.ahead...)
			slices.SortFunc(g.ahead, func(x, y storage.Item) int { return cmp.Compare(x.Position, y.Position) })
		}
		g.mu.Unlock()
		g.poke()
	}
}

// poke wakes the members that are connected.
func (g *group) poke() {
	g.mu.Lock()
	line := slices.Clone(g.line)
	g.mu.Unlock()
	for _, s := range line {
		s.poke()
	}
}

// pokeGroups is for messages that come from elsewhere than this broker's clients.
func (b *Broker) pokeGroups() {
	b.gmu.Lock()
	groups := slices.Collect(maps.Values(b.groups))
	b.gmu.Unlock()
	for _, g := range groups {
		g.poke()
	}
}

// next is the member whose turn it is among those who are connected, or nil.
func (g *group) next() *session {
	g.mu.Lock()
	defer g.mu.Unlock()
	for i, s := range g.line {
		if s.live.Load() != nil {
			g.line = append(append(slices.Clone(g.line[:i]), g.line[i+1:]...), s)
			return s
		}
	}
	return nil
}

// spread gives a message of quality 0 to one member. Others are in the queue.
func (g *group) spread(m *message) {
	if m.qos > 0 {
		g.poke()
		return
	}
	s := g.next()
	if s == nil {
		g.b.stats.droppedQoS0.Add(1)
		return
	}
	g.mu.Lock()
	sub := g.members[s]
	g.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	d := &delivery{m: m, retain: sub.retained && m.retain}
	if sub.id != 0 {
		d.ids = []int{sub.id}
	}
	s.put(d)
}

// pull takes shares for the client and puts them into its box, and says whether it
// got any.
func (s *session) pull(c *conn) (some bool) {
	s.mu.Lock()
	room := s.room(c) - len(s.box.queue)
	groups := make([]*group, 0, len(s.groups))
	for _, g := range s.groups {
		groups = append(groups, g)
	}
	s.mu.Unlock()
	for _, g := range groups {
		if room <= 0 {
			break
		}
		items, sub := g.want(s, room)
		ds := make([]*delivery, 0, len(items))
		for i := range items {
			if d := g.unpack(&items[i], sub); d != nil {
				ds = append(ds, d)
			}
		}
		if !s.accept(c, ds) {
			giveBack(ds)
			return false
		}
		room -= len(ds)
		some = some || len(ds) > 0
	}
	return some
}

// accept puts shares into the box, unless the connection has ended.
func (s *session) accept(c *conn, ds []*delivery) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn != c {
		return false
	}
	for _, d := range ds {
		s.box.put(d)
	}
	return true
}

// unpack makes a delivery of a record. What cannot be read is parked.
func (g *group) unpack(it *storage.Item, sub subscription) *delivery {
	m, err := hub.Decode(it)
	var l *message
	if err == nil {
		l, err = letter(&m)
	}
	if err != nil {
		g.b.log.Error("record cannot be read and is parked", "queue", g.q.Name(), "position", it.Position, "error", err)
		g.q.ParkRecord(it.Position, err.Error())
		return nil
	}
	l.expires = g.b.expires(it.Stamp, it.TTL)
	d := &delivery{m: l, qos: min(m.QoS, sub.qos), retain: sub.retained && l.retain, group: g, item: *it}
	if sub.id != 0 {
		d.ids = []int{sub.id}
	}
	return d
}
