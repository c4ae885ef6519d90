package mqtt

import (
	"bytes"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"holdfast.dev/holdfast/hub"
)

const (
	keepSession      = 7 * 24 * time.Hour // longest a session outlives its connection
	maxSubscriptions = 1000               // of one session
	maxFilters       = 128 << 10          // bytes of their filters: one may have 64 KiB
	maxClientID      = 1024               // bytes
)

// session is what the broker knows of a client beyond its connection: what it
// subscribes to and what is on its way to it. It is in memory only.
type session struct {
	b      *Broker
	key    string       // its name in the table and in the topic index
	owner  string       // the account; "" for an IoT Hub identity
	device hub.Identity // "" for an ordinary client

	mu     sync.Mutex
	conn   *conn // nil while the client is away
	expiry time.Duration
	until  time.Time // when it ends, while the client is away
	will   *will     // delayed, goes out at willAt
	willAt time.Time
	subs   map[string]subscription
	length int // of all filters in subs
	box    outbox
	gone   func() // ends the hub's Attach
	calls  map[string]chan hub.Reply
	rid    uint64
}

type subscription struct {
	qos      byte
	id       int // subscription identifier, 0: none
	noLocal  bool
	retained bool // retain as published
}

// errOwned is the answer to a client id that is another account's.
var errOwned = errors.New("client id belongs to another account's session")

// attach makes c the one connection of the session named key, which is made if
// there is none, or if clean says so. present says that an old one is continued.
func (b *Broker) attach(c *conn, key, owner string, clean bool, expiry time.Duration) (present bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.sessions[key]
	if s != nil && s.owner != owner {
		return false, errOwned
	}
	if live := s != nil && s.live(); !live && b.live >= b.maxClients {
		return false, errFull
	} else if !live {
		b.live++
	}
	if s != nil && clean {
		s.drop()
		s = nil
	}
	present = s != nil
	if s == nil {
		b.makeRoom()
		s = &session{b: b, key: key, owner: owner, device: c.device, subs: map[string]subscription{}, calls: map[string]chan hub.Reply{}}
		s.box.queued = &b.queued
		b.sessions[key] = s
	}
	s.mu.Lock()
	old := s.conn
	s.conn, s.expiry, s.will = c, expiry, nil
	if s.device != "" {
		s.box.clear() // see detach: it may not have come to that yet
	}
	s.box.rewind(c.window)
	s.mu.Unlock()
	c.session = s
	if old != nil {
		old.hangUp(cause{"taken over", codeTakenOver, errors.New("a newer connection has the same client id")})
	}
	return present, nil
}

// makeRoom ends the session that has been away for longest when there are too
// many: a client that takes a new id each time must not eat the memory.
func (b *Broker) makeRoom() {
	if len(b.sessions) < 4*b.maxClients {
		return
	}
	var oldest *session
	var until time.Time
	for _, s := range b.sessions {
		s.mu.Lock()
		if s.conn == nil && (oldest == nil || s.until.Before(until)) {
			oldest, until = s, s.until
		}
		s.mu.Unlock()
	}
	if oldest != nil {
		oldest.drop()
		delete(b.sessions, oldest.key)
	}
}

func (s *session) live() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conn != nil
}

// drop ends the session. The caller holds the broker's mu and takes it from the
// table. A connection that it still has is hung up as taken over.
func (s *session) drop() {
	s.mu.Lock()
	old := s.conn
	s.conn = nil
	for f := range s.subs {
		s.unindex(f)
	}
	s.subs, s.length = nil, 0
	if s.will != nil {
		s.b.due.add(s.will)
		s.will = nil
	}
	s.b.stats.dropped.Add(uint64(s.box.clear()))
	gone := s.gone
	s.gone = nil
	s.mu.Unlock()
	if gone != nil {
		gone()
	}
	if old != nil {
		old.hangUp(cause{"taken over", codeTakenOver, errors.New("a newer connection has the same client id")})
	}
}

// detach ends c's part in its session, and the session where it does not outlive
// its connection.
func (b *Broker) detach(c *conn) {
	s := c.session
	b.mu.Lock()
	s.mu.Lock()
	mine := s.conn == c
	var gone func()
	end := false
	if mine {
		b.live--
		s.conn = nil
		gone, s.gone = s.gone, nil
		if s.device != "" {
			s.box.clear() // the cloud keeps its messages and sends them again
		}
		s.until = time.Now().Add(s.expiry)
		end = s.expiry == 0
	}
	now := s.keepWill(c, mine && !end)
	s.mu.Unlock()
	if end {
		// Under b.mu: a new session of that name must not come between, or it
		// would lose its subscriptions in the index.
		delete(b.sessions, s.key)
		s.drop()
	}
	b.mu.Unlock()
	if gone != nil {
		gone()
	}
	if now != nil {
		b.sendWill(now)
	}
}

// setExpiry is what an MQTT 5 client may say once more when it leaves.
func (s *session) setExpiry(c *conn, seconds uint32) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn != c {
		return nil
	}
	if s.expiry == 0 && seconds > 0 {
		return protocol("DISCONNECT: session expiry was 0 at CONNECT and cannot be raised")
	}
	s.expiry = min(time.Duration(seconds)*time.Second, keepSession)
	return nil
}

// acked is a PUBACK of the client.
func (s *session) acked(c *conn, id uint16) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn != c {
		return nil
	}
	if d := s.box.acked(id); d != nil {
		s.b.stats.delivered.Add(1)
		if d.m.acked != nil {
			d.m.acked()
		}
		c.poke() // the window has room
	}
	return nil
}

// next writes deliveries into buf, as many as window and batch allow, and says
// whether there are more that could go.
func (s *session) next(c *conn, buf *bytes.Buffer) (more bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn != c {
		return false
	}
	return s.box.next(c, buf)
}

// index puts filter into mochi's topic index. The index misses that "+/#" is for
// the level above too, so such a filter stands there twice, the second time under
// a name of its own; deliver looks at the filters themselves anyway.
func (s *session) index(filter string) {
	s.b.topics.Subscribe(s.key, packets.Subscription{Filter: filter})
	if f, ok := aboveHash(filter); ok {
		s.b.topics.Subscribe(s.key+above, packets.Subscription{Filter: f})
	}
}

func (s *session) unindex(filter string) {
	s.b.topics.Unsubscribe(filter, s.key)
	if f, ok := aboveHash(filter); ok {
		s.b.topics.Unsubscribe(f, s.key+above)
	}
}

const above = "\x00above"

func aboveHash(filter string) (string, bool) {
	f, ok := strings.CutSuffix(filter, "/#")
	return f, ok && (f == "+" || strings.HasSuffix(f, "/+"))
}

// deliver queues m for the client, once, with the best of the subscriptions that
// match.
func (s *session) deliver(m *message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := delivery{m: m}
	found := false
	for f, sub := range s.subs {
		if !matches(f, m.topic) || sub.noLocal && m.from == s.key {
			continue
		}
		found = true
		d.qos = max(d.qos, min(sub.qos, m.qos))
		d.retain = d.retain || sub.retained && m.retain
		if sub.id != 0 {
			d.ids = append(d.ids, sub.id)
		}
	}
	if found {
		s.put(&d)
	}
}
