package mqtt

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"time"

	"holdfast.dev/holdfast/hub"
	"holdfast.dev/holdfast/storage"
)

// recall brings back from the disk what sessions there are, what they subscribe to,
// what is under way in them, the groups, what is retained, and the wills of those who
// were connected when the gateway went. What cannot be read is named in the log and
// left out; nothing is taken off the disk for it.
func (b *Broker) recall() error {
	if err := b.loadRetained(); err != nil {
		return err
	}
	for key, v := range b.all(mapSessions) {
		b.recallSession(key, v)
	}
	for key, v := range b.all(mapGroups) {
		var r rememberedGroup
		name, filter, ok := cutKey(key, 0)
		if err := json.Unmarshal(v, &r); err != nil || !ok || r.Born == "" {
			b.unreadable(mapGroups, key)
			continue
		}
		b.openGroup(name, filter, r.Born)
	}
	for key, v := range b.all(mapSubscriptions) {
		b.recallSubscription(key, v)
	}
	for key := range b.all(mapInbound) {
		session, id, ok := cutKey(key, 2)
		s := b.sessions[session]
		if !ok || s == nil {
			b.leftover(mapInbound, key, session, ok)
			continue
		}
		if s.in.ids == nil {
			s.in.ids = map[uint16]*intake{}
		}
		s.in.ids[binary.BigEndian.Uint16([]byte(id))] = &intake{state: kept}
	}
	for key := range b.all(mapOutbound) {
		session, pos, ok := cutKey(key, 8)
		s := b.sessions[session]
		if !ok || s == nil || s.feed.q == nil {
			b.leftover(mapOutbound, key, session, ok)
			continue
		}
		p := storage.Position(binary.BigEndian.Uint64([]byte(pos)))
		s.out.add(packetID(p), &release{pos: p, noted: true})
	}
	b.closeEmptyGroups()
	return b.recallWills()
}

// all gives what is in a map of the store.
func (b *Broker) all(name string) map[string][]byte {
	m := b.store.Map(name)
	out := map[string][]byte{}
	for _, k := range m.Keys() {
		if v, ok := m.Get(k); ok {
			out[k] = v
		}
	}
	return out
}

func (b *Broker) unreadable(m, key string) {
	b.log.Error("what is remembered of a session cannot be read and is left out", "map", m, "key", key)
}

// leftover is a packet id without its session. One that was on its way to the disk when
// its session ended is taken off it now; where the session is there and cannot be read,
// what belongs to it stays.
func (b *Broker) leftover(m, key, session string, whole bool) {
	if _, kept := b.store.Map(mapSessions).Get(session); whole && !kept {
		b.clerk.note(nil, storage.Change{Map: m, Key: key})
		return
	}
	b.unreadable(m, key)
}

func (b *Broker) recallSession(key string, v []byte) {
	var r remembered
	if err := json.Unmarshal(v, &r); err != nil || r.Born == "" {
		b.unreadable(mapSessions, key)
		return
	}
	s := b.newSession(key, r.Owner, hub.Identity(r.Device), true)
	s.born, s.since, s.expiry, s.away = r.Born, r.Since, time.Duration(r.Expiry)*time.Second, r.Away
	s.open()
	s.feed.high = r.Sent
	if s.away == nil {
		// The power went while it was connected: from now on it is away, and all that
		// waits may have been sent. DUP says "might be" (MQTT 5, 3.3.1.1).
		now := b.clock.Now()
		s.away = &now
		if s.feed.q != nil {
			s.feed.high = max(s.feed.high, s.feed.q.Stats().Last)
		}
		s.remember(nil)
	}
	age, _ := b.clock.Age(*s.away)
	s.until = time.Now().Add(s.expiry - age)
	b.sessions[key] = s
}

func (b *Broker) recallSubscription(key string, v []byte) {
	session, filter, ok := cutKey(key, 0)
	s := b.sessions[session]
	sub, whole := parseSubscription(v)
	if !ok || !whole || s == nil {
		b.unreadable(mapSubscriptions, key)
		return
	}
	s.subs[filter] = sub
	s.length += len(filter)
	switch name, own, shared := cutShare(filter); {
	case shared:
		s.groups[filter] = b.join(s, name, own, sub)
	case s.device == "":
		s.index(filter, sub)
	}
}

// closeEmptyGroups ends groups that had none but members whose sessions ended with
// their connections.
func (b *Broker) closeEmptyGroups() {
	for _, g := range b.groups {
		if len(g.members) == 0 {
			g.leave(nil)
		}
	}
}

func (b *Broker) recallWills() error {
	for key, v := range b.all(mapWills) {
		var r rememberedWill
		session, _, ok := cutKey(key, 0)
		if err := json.Unmarshal(v, &r); err != nil || !ok {
			b.unreadable(mapWills, key)
			continue
		}
		w := &will{
			m:     hub.Message{From: r.From, Topic: r.Topic, QoS: r.QoS, Props: r.Props, Extra: string(r.Extra), Body: r.Body},
			delay: time.Duration(r.Delay) * time.Second, key: key,
		}
		if r.Topic != "" {
			w.m.ID = b.newID()
			local, err := letter(&w.m)
			if err != nil {
				return fmt.Errorf("read will of %q: %w", session, err)
			}
			w.local = local
		}
		if s := b.sessions[session]; s != nil && w.delay > 0 {
			s.will, s.willAt = w, time.Now().Add(min(w.delay, s.expiry))
			continue
		}
		b.due.add(w)
	}
	return nil
}
