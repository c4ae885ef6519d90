package mqtt

import (
	"bytes"
	"crypto/rand"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"holdfast.dev/holdfast/hub"
	"holdfast.dev/holdfast/storage"
)

const (
	maxSubscriptions = 10_000  // of one session
	maxFilters       = 1 << 20 // bytes of their filters: one may have 64 KiB
	maxClientID      = 1024    // bytes
)

// session is what the broker knows of a client beyond its connection: what it
// subscribes to and what is on its way to it.
//
// One that outlives its connection (lasting) is on disk, see clerk, and what waits
// for an ordinary client in it is in a queue of the store, see feed. One that ends
// with its connection is in memory only, and so is what is on the way at quality 0.
// IoT Hub identities have no queue: the cloud keeps their messages until they are
// acknowledged, and sends them again.
type session struct {
	b       *Broker
	key     string       // its name in the table and on disk
	owner   string       // the account; "" for an IoT Hub identity
	device  hub.Identity // "" for an ordinary client
	lasting bool
	born    string        // random: tells its queue from that of an earlier session of the same name
	since   storage.Stamp // of its first connection

	live atomic.Pointer[conn] // as conn, for those who must not lock
	in   inbound
	out  releases

	mu      sync.Mutex
	conn    *conn // nil while the client is away
	expiry  time.Duration
	until   time.Time // when it ends, while the client is away
	away    *storage.Stamp
	will    *will // delayed, goes out at willAt
	willAt  time.Time
	subs    map[string]subscription
	groups  map[string]*group // that it has a share in, by filter
	length  int               // of all filters in subs
	feed    feed
	evicted uint64 // from its queue, when it was looked at last
	box     outbox
	gone    func() // ends the hub's Attach
	calls   map[string]chan hub.Reply
	rid     uint64
}

type subscription struct {
	qos      byte
	id       int // subscription identifier, 0: none
	noLocal  bool
	retained bool // retain as published
}

var (
	// errOwned is the answer to a client id that is another account's.
	errOwned    = errors.New("client id belongs to another account's session")
	errSessions = errors.New("max_sessions sessions are kept")
)

// attach makes c the one connection of the session named key, which is made if
// there is none, or if clean says so. present says that an old one is continued.
func (b *Broker) attach(c *conn, key, owner string, clean bool, expiry time.Duration) (present bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.sessions[key]
	if s != nil && s.owner != owner {
		return false, errOwned
	}
	live := s != nil && s.live.Load() != nil
	switch fresh := s == nil; {
	case !live && b.live >= b.maxClients:
		return false, errFull
	case fresh && expiry > 0 && len(b.sessions) >= b.maxSessions:
		return false, errSessions
	}
	if !live {
		b.live++
	}
	if s != nil && (clean || s.ends()) {
		s.drop()
		s = nil
	}
	present = s != nil
	if s == nil {
		s = b.newSession(key, owner, c.device, expiry > 0)
		s.born, s.since = rand.Text()[:8], b.clock.Now()
		s.open()
		b.sessions[key] = s
	}
	c.session = s
	if !present && s.lasting {
		c.kept = make(chan error, 1)
	}
	s.take(c, expiry)
	c.rememberWill()
	return present, nil
}

func (b *Broker) newSession(key, owner string, device hub.Identity, lasting bool) *session {
	s := &session{
		b: b, key: key, owner: owner, device: device, lasting: lasting,
		subs: map[string]subscription{}, groups: map[string]*group{}, calls: map[string]chan hub.Reply{},
	}
	s.box.queued = &b.queued
	return s
}

// queuePrefix begins the names of the sessions' queues.
const queuePrefix = "session/"

// lane is the name of the queue. People see it in lists, so the client id is in it.
func (s *session) lane() string {
	return hub.Lane(s.queue(), usualPriority)
}

func (s *session) queue() string {
	_, id, _ := strings.Cut(s.key, "\x00")
	return queuePrefix + id + "/" + s.born
}

// open opens the queue of a session that has one.
func (s *session) open() {
	if !s.lasting || s.device != "" {
		return
	}
	s.feed.q = s.b.store.Queue(s.lane())
	s.feed.q.SetPolicy(storage.Policy{MaxBytes: s.b.sessionQuota, Evict: true, Priority: 9})
	s.evicted = s.feed.q.Evicted()
}

// ends says whether the session ends with its connection.
func (s *session) ends() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.expiry == 0
}

// take gives the session to a new connection. The broker's mu is held.
func (s *session) take(c *conn, expiry time.Duration) {
	s.mu.Lock()
	old := s.conn
	s.b.forgetWill(s.will) // its delay is not over
	s.conn, s.expiry, s.will, s.away = c, expiry, nil, nil
	s.live.Store(c)
	_, shares := s.box.clear() // see detach: it may not have come to that yet
	s.feed.rewind()
	s.out.rewind()
	s.remember(c.kept)
	s.mu.Unlock()
	giveBack(shares)
	if old != nil {
		old.hangUp(cause{"taken over", codeTakenOver, errors.New("a newer connection has the same client id")})
	}
}

// remember writes down what is to be known of the session after a restart, and tells
// kept, which has room or is nil, when it is. s.mu is held.
func (s *session) remember(kept chan<- error) {
	done := func(err error) {
		if kept != nil {
			kept <- err
		}
	}
	if s.lasting {
		s.b.clerk.note(done, jsonChange(mapSessions, s.key, remembered{
			Owner: s.owner, Device: string(s.device), Born: s.born, Expiry: int64(s.expiry / time.Second),
			Since: s.since, Away: s.away, Sent: s.feed.high,
		}))
	}
}

// poke wakes whoever writes to the client. It takes no lock.
func (s *session) poke() {
	if c := s.live.Load(); c != nil {
		c.poke()
	}
}

// room is how many more deliveries the client takes before it has acknowledged some;
// s.mu is held.
func (s *session) room(c *conn) int { return c.window - len(s.box.ids) - len(s.feed.out) }

// drop ends the session. The caller holds the broker's mu and takes it from the
// table. A connection that it still has is hung up as taken over.
func (s *session) drop() {
	s.mu.Lock()
	old := s.conn
	s.conn = nil
	s.live.Store(nil)
	s.forget()
	for f := range s.subs {
		s.unindex(f)
	}
	groups := s.groups
	s.subs, s.groups, s.length = nil, nil, 0
	if s.will != nil {
		s.b.due.add(s.will)
		s.will = nil
	}
	lost, shares := s.box.clear()
	s.b.stats.dropped.Add(uint64(lost))
	gone := s.gone
	s.gone = nil
	s.mu.Unlock()
	giveBack(shares)
	for _, g := range groups {
		g.leave(s)
	}
	if s.feed.q != nil {
		s.b.graves.add(s.feed.q)
	}
	if gone != nil {
		gone()
	}
	if old != nil {
		old.hangUp(cause{"taken over", codeTakenOver, errors.New("a newer connection has the same client id")})
	}
}

// forget takes all off the disk that is there of the session but its queue; s.mu is
// held.
func (s *session) forget() {
	if !s.lasting {
		return
	}
	changes := []storage.Change{{Map: mapSessions, Key: s.key}}
	for f := range s.subs {
		changes = append(changes, storage.Change{Map: mapSubscriptions, Key: s.key + "\x00" + f})
	}
	s.in.mu.Lock()
	for id := range s.in.ids {
		changes = append(changes, storage.Change{Map: mapInbound, Key: idKey(s.key, id)})
	}
	s.in.mu.Unlock()
	s.out.mu.Lock()
	for _, e := range s.out.ids {
		changes = append(changes, storage.Change{Map: mapOutbound, Key: positionKey(s.key, e.pos)})
	}
	s.out.mu.Unlock()
	const most = 1000 // a record has a greatest size
	for ; len(changes) > most; changes = changes[most:] {
		s.b.clerk.note(nil, changes[:most]...)
	}
	s.b.clerk.note(nil, changes...)
}

// detach ends c's part in its session, and the session where it does not outlive
// its connection.
func (b *Broker) detach(c *conn) {
	s := c.session
	b.mu.Lock()
	s.mu.Lock()
	mine := s.conn == c
	var gone func()
	var shares []*delivery
	end := false
	if mine {
		b.live--
		s.conn = nil
		s.live.Store(nil)
		gone, s.gone = s.gone, nil
		_, shares = s.box.clear() // what is of quality 1 in it is a share, or the session ends
		now := b.clock.Now()
		s.until, s.away = time.Now().Add(s.expiry), &now
		if end = s.expiry == 0; !end {
			s.feed.rewind()
			s.remember(nil)
		}
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
	giveBack(shares)
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
	s.expiry = s.b.expiryOf(seconds)
	return nil
}

// expiryOf is a session expiry interval (MQTT 5, 3.1.2.11.2) as it is granted.
func (b *Broker) expiryOf(seconds uint32) time.Duration {
	return min(time.Duration(seconds)*time.Second, b.sessionExpiry)
}

// acked is a PUBACK of the client.
func (s *session) acked(c *conn, id uint16) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn != c {
		return nil
	}
	if p := s.feed.out[id]; p != nil {
		if p.qos != 1 {
			return protocol("PUBACK: the message has quality of service 2")
		}
		delete(s.feed.out, id)
		s.feed.end(p.pos, storage.Delivered)
		s.b.stats.delivered.Add(1)
		c.poke()
		return nil
	}
	d, err := s.box.acked(id)
	switch {
	case err != nil:
		return err
	case d == nil:
		s.b.count("unknown packet id")
		return nil
	case d.group != nil:
		d.group.ended(d.item.Position, false)
	case d.m.acked != nil:
		d.m.acked()
	}
	s.b.stats.delivered.Add(1)
	c.poke() // the window has room
	return nil
}

// next writes deliveries into buf, as many as window and batch allow, and says
// whether there are more that could go.
func (s *session) next(c *conn, buf *bytes.Buffer) (more bool) {
	s.mu.Lock()
	if s.conn != c || s.feed.hush {
		s.mu.Unlock()
		return false
	}
	more = s.boxNext(c, buf)
	shares := len(s.groups) > 0
	s.mu.Unlock()
	if s.feed.q != nil {
		s.releaseNext(c, buf)
		more = s.feedNext(c, buf) || more
	}
	if shares {
		more = s.pull(c) || more
	}
	return more
}

// changed gives a channel that is closed when something has come into the queue.
func (s *session) changed() <-chan struct{} {
	if s.feed.q == nil {
		return nil
	}
	return s.feed.q.Changed()
}
