package mqtt

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	mochi "github.com/mochi-mqtt/server/v2"

	"holdfast.dev/holdfast/hub"
	"holdfast.dev/holdfast/hub/identity"
	"holdfast.dev/holdfast/hub/wire"
	"holdfast.dev/holdfast/storage"
)

// Gate is who may come in. Both proofs answer with an error that is
// hub.ErrUnauthorized when the credential is bad; any other error, as
// hub.ErrUnsure, means that it cannot be told yet and the client may try again.
// They are called by many connections at once, and may take until ctx ends: who
// hashes passwords minds how many at a time, for only the Gate knows which it need
// not hash again.
type Gate interface {
	Device(ctx context.Context, u wire.User, password string) (hub.Identity, error)
	Account(ctx context.Context, name, password string) (identity.Account, error)
	// Known is false once an identity has vanished or been disabled.
	Known(id hub.Identity) bool
	// Changed gives a channel that is closed at the next change. Take it before Known.
	Changed() <-chan struct{}
}

// Deps is what a Broker needs of the house.
type Deps struct {
	Gate    Gate
	Store   *storage.DB   // of the hub, for sessions, retained messages and wills
	Clock   storage.Clock // of the store, too
	TLS     *tls.Config   // nil: no TLS listener
	Gateway hub.Identity  // whose the messages of accounts without a device are
	Log     *slog.Logger
}

// Broker is the MQTT broker for downstream devices, a hub.Bridge.
type Broker struct {
	gate      Gate
	gateway   hub.Identity
	log       *slog.Logger
	store     *storage.DB
	clock     storage.Clock
	listeners []*listener
	server    *mochi.Server
	topics    tree // all subscriptions of ordinary clients
	lasting   tree // those of sessions and groups that have a queue
	retained  retained
	passage   passage
	fan       fanout
	clerk     clerk
	due       dueWills
	graves    graves
	stats     stats
	addresses *addresses
	strangers *strangers
	guesses   *guesses
	queued    atomic.Int64  // bytes that wait for clients in memory
	serial    atomic.Uint64 // of connections
	prefix    string        // of message ids
	messages  atomic.Uint64 // of message ids

	// Of the configuration.
	window        int
	maxClients    int
	maxSessions   int
	keepAlive     time.Duration
	sessionExpiry time.Duration
	sessionQuota  int64

	gmu    sync.Mutex
	groups map[string]*group

	mu       sync.RWMutex
	hub      hub.Hub         // nil unless running
	closing  bool            // nobody enters any more
	ctx      context.Context // of Run
	live     int             // sessions with a connection
	sessions map[string]*session
	conns    map[*conn]struct{}
	wg       sync.WaitGroup // of conns
}

// Usual values of Config.
const (
	usualClients   = 1000
	usualPublishes = 100
	usualKeepAlive = 10 * time.Minute
	usualExpiry    = 7 * 24 * time.Hour
	usualQuota     = 64 << 20
)

// New opens the listeners, so that an address that is in use is known at start.
// Nobody is answered before Run.
func New(cfg Config, d Deps) (*Broker, error) {
	b := &Broker{
		gate: d.Gate, gateway: d.Gateway, log: d.Log,
		store: d.Store, clock: d.Clock, prefix: rand.Text()[:10] + "-",
		window: cfg.Window, maxClients: cfg.MaxClients, keepAlive: cfg.KeepAlive.Or(usualKeepAlive),
		maxSessions: cfg.MaxSessions, sessionExpiry: cfg.SessionExpiry.Or(usualExpiry), sessionQuota: int64(cfg.SessionQuota),
		retained: retained{m: map[string]*message{}},
		fan:      fanout{wake: make(chan struct{}, 1)},
		clerk:    clerk{store: d.Store, wake: make(chan struct{}, 1)},
		groups:   map[string]*group{},
		stats:    stats{causes: map[string]uint64{}, said: map[string]bool{}},
		ctx:      context.Background(),
		sessions: map[string]*session{},
		conns:    map[*conn]struct{}{},
		// The door keeper's.
		strangers: newStrangers(),
		guesses:   newGuesses(),
	}
	if b.window == 0 {
		b.window = usualPublishes
	}
	if b.maxClients == 0 {
		b.maxClients = usualClients
	}
	if b.maxSessions == 0 {
		b.maxSessions = 4 * b.maxClients
	}
	if b.sessionQuota == 0 {
		b.sessionQuota = usualQuota
	}
	switch {
	case b.window < 1 || b.window > math.MaxUint16:
		return nil, fmt.Errorf("[mqtt] window = %d: want 1 to 65535", b.window)
	case b.maxClients < 1:
		return nil, fmt.Errorf("[mqtt] max_clients = %d: want 1 or more", b.maxClients)
	case b.maxSessions < 1:
		return nil, fmt.Errorf("[mqtt] max_sessions = %d: want 1 or more", b.maxSessions)
	case b.sessionExpiry < time.Second || b.sessionExpiry > math.MaxUint32*time.Second:
		return nil, fmt.Errorf("[mqtt] session_expiry = %s: want 1s to 136 years", b.sessionExpiry)
	case b.keepAlive < time.Second || b.keepAlive > math.MaxUint16*time.Second:
		return nil, fmt.Errorf("[mqtt] keep_alive = %s: want 1s to 18h", b.keepAlive)
	}
	var err error
	if b.addresses, err = newAddresses(cfg.PerAddress); err != nil {
		return nil, err
	}
	if b.server, err = newServer(&hook{}); err != nil {
		return nil, err
	}
	if err := b.recall(); err != nil {
		return nil, err
	}
	b.listeners = listenersOf(cfg, d.TLS)
	if err := b.listen(); err != nil {
		return nil, err
	}
	return b, nil
}

// newServer makes mochi ready: it is never started, for its listeners, $SYS
// topics and sessions are not used; connections are given to it one by one.
func newServer(h mochi.Hook) (*mochi.Server, error) {
	limits := mochi.NewDefaultServerCapabilities()
	limits.MaximumClientWritesPending = 1 // nothing is sent through its queues
	limits.MaximumMessageExpiryInterval = 0
	limits.MaximumPacketSize = maxPacket + 16
	limits.TopicAliasMaximum = maxAlias
	limits.MinimumProtocolVersion = v311
	limits.Compatibilities.NoInheritedPropertiesOnAck = true
	s := mochi.New(&mochi.Options{
		Capabilities:            limits,
		ClientNetReadBufferSize: 512, // the gatehouse has the real one
		// mochi logs whole packets, payload and all; what matters we log ourselves.
		Logger: slog.New(slog.DiscardHandler),
	})
	return s, s.AddHook(h, nil)
}

// Run serves clients until ctx ends. It may be run again.
func (b *Broker) Run(ctx context.Context, h hub.Hub) error {
	if err := b.listen(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	b.mu.Lock()
	b.hub, b.ctx, b.closing = h, ctx, false
	b.mu.Unlock()
	for _, w := range b.due.take() { // of the last run, before anybody comes with another
		b.sendWill(w)
	}
	var inner sync.WaitGroup
	for _, l := range b.listeners {
		inner.Go(func() { l.accept(ctx, b) })
		b.log.Info("listening", "protocol", l.name, "address", l.addr().String())
	}
	writing, written := context.WithCancel(context.WithoutCancel(ctx)) // longer than the connections
	defer written()
	var clerk sync.WaitGroup
	clerk.Go(func() { b.clerk.run(writing) })
	inner.Go(func() { b.fan.run(ctx, b) })
	inner.Go(func() { b.buryAll(ctx) })
	inner.Go(func() { b.janitor(ctx) })
	inner.Go(func() { b.watch(ctx) })
	<-ctx.Done()
	for _, l := range b.listeners {
		l.close()
	}
	b.hangUpAll()
	b.wg.Wait()
	inner.Wait()
	written()
	clerk.Wait()
	b.clerk.finish()
	return nil
}

func (b *Broker) hangUpAll() {
	b.mu.Lock()
	b.hub, b.closing = nil, true
	open := make([]*conn, 0, len(b.conns))
	for c := range b.conns {
		open = append(open, c)
	}
	b.mu.Unlock()
	var closing sync.WaitGroup
	for _, c := range open {
		c.hangUp(cause{"shutdown", codeShutdown, nil})
		closing.Go(func() {
			select { // time for what is due and for DISCONNECT
			case <-c.ctx.Done():
			case <-time.After(time.Second):
			}
			c.Close()
		})
	}
	closing.Wait()
}

// running is the hub, or nil when the broker is not.
func (b *Broker) running() hub.Hub {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.hub
}

func (b *Broker) context() context.Context {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.ctx
}

// serve is the life of one connection, on the caller's goroutine.
func (b *Broker) serve(nc net.Conn, p *place) {
	c := newConn(b, nc, "c"+strconv.FormatUint(b.serial.Add(1), 10))
	c.place = p
	if !b.enter(c) {
		nc.Close()
		return
	}
	defer b.exit(c)
	nc.SetDeadline(time.Now().Add(connectTimeout))
	if err := b.establish(c); err != nil {
		b.log.Debug("client left", "client", c.who, "error", err)
	}
}

// establish gives the connection to mochi. A panic costs this connection alone.
// mochi leaves the client in its table then, and where CONNACK cannot be written.
func (b *Broker) establish(c *conn) (err error) {
	defer b.server.Clients.Delete(c.id)
	defer func() { b.contain(recover(), c.who, func(e error) { err = e }) }()
	return b.server.EstablishConnection("", c)
}

func (b *Broker) enter(c *conn) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closing || len(b.conns) >= b.maxClients+maxStrangers {
		return false
	}
	b.conns[c] = struct{}{}
	b.wg.Add(1)
	return true
}

func (b *Broker) exit(c *conn) {
	c.Close()
	c.mu.Lock()
	pumping := c.pumping
	c.mu.Unlock()
	if pumping {
		<-c.pumped
	}
	c.abandon()
	c.say()
	if c.session != nil {
		b.detach(c)
	}
	b.mu.Lock()
	delete(b.conns, c)
	b.mu.Unlock()
	b.wg.Done()
}

// watch hangs up on identities that are no longer known.
func (b *Broker) watch(ctx context.Context) {
	for {
		changed := b.gate.Changed()
		b.evictUnknown()
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

func (b *Broker) evictUnknown() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for key, s := range b.sessions {
		if s.device == "" || b.gate.Known(s.device) {
			continue
		}
		s.mu.Lock()
		c := s.conn
		s.expiry = 0
		s.mu.Unlock()
		if c != nil {
			c.hangUp(cause{"unknown identity", codeAdministrative, errors.New("identity is disabled or gone")})
		} else {
			delete(b.sessions, key)
			s.drop()
		}
	}
}

// end makes s go with its connection.
func (s *session) end(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn == c {
		s.expiry = 0
	}
}
