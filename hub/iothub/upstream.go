package iothub

import (
	"context"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"holdfast.dev/holdfast/hub"
	"holdfast.dev/holdfast/hub/wire"
	"holdfast.dev/holdfast/storage"
)

// Deps are what an Upstream is given. The zero value works.
type Deps struct {
	Clock   storage.Clock    // for the age of messages and the end of tokens; storage.SystemClock if nil
	Log     *slog.Logger     // discarded if nil
	TLSTime func() time.Time // judges certificates; time.Now if nil
}

// Upstream is the way to Azure IoT Hub. It is a hub.Upstream and an
// identity.Source.
type Upstream struct {
	set    *settings
	deps   Deps
	window *window
	opens  *rate.Limiter
	link   *link
	web    *http.Client
	wake   signal
	near   atomic.Bool    // the hub can be reached, whatever it then says
	missed atomic.Int64   // when the last probe began that got no answer, Unix nanoseconds
	doubt  signal         // near has become false
	back   chan time.Time // when the probe began that says that the way has come back
	tried  time.Time      // last attempt at the gateway's own connection; its session's
	told   atomic.Bool    // that the link is down was logged once
	counts counts
	wg     sync.WaitGroup

	mu       sync.Mutex
	ctx      context.Context // of Run; nil while it does not run
	hub      hub.Hub
	sessions map[hub.Identity]*session
}

// New makes an Upstream of a configuration. An error names the key that is wrong
// and never quotes a secret.
func New(cfg Config, d Deps) (*Upstream, error) {
	if d.Clock == nil {
		d.Clock = storage.SystemClock()
	}
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	set, err := newSettings(cfg, d.TLSTime)
	if err != nil {
		return nil, err
	}
	return &Upstream{
		set: set, deps: d, window: newWindow(set), opens: rate.NewLimiter(set.opens, 1),
		link: newLink(), web: newWeb(set), wake: newSignal(), doubt: newSignal(),
		back: make(chan time.Time, 1), sessions: map[hub.Identity]*session{},
	}, nil
}

// Gateway is the identity that the gateway itself connects as: {device}/$edgeHub.
func (u *Upstream) Gateway() hub.Identity { return hub.Identity(wire.JoinID(u.set.device, edgeHub)) }

// Host is the hub's name, as it stands in user names and tokens.
func (u *Upstream) Host() string { return u.set.host }

// Run keeps the connections until ctx ends, and returns when all are closed and
// every message has been answered for. Commands go to h.
func (u *Upstream) Run(ctx context.Context, h hub.Hub) error {
	u.mu.Lock()
	u.ctx, u.hub = ctx, h
	u.mu.Unlock()
	u.session(u.Gateway())
	u.wg.Go(func() { u.scout(ctx) })
	u.watch(ctx, h)
	u.mu.Lock()
	u.ctx, u.hub = nil, nil
	u.mu.Unlock()
	u.wg.Wait()
	u.mu.Lock()
	clear(u.sessions)
	u.mu.Unlock()
	u.web.CloseIdleConnections()
	if u.link.set(false) {
		u.deps.Log.Info("cloud is disconnected", "host", u.set.host)
	}
	return nil
}

// watch opens sessions for those who listen, until ctx ends.
func (u *Upstream) watch(ctx context.Context, h hub.Presence) {
	for {
		changed := h.Changed()
		want := map[hub.Identity]kinds{}
		for _, p := range h.List() {
			if k := kindsOf(p); k != 0 {
				want[p.ID] = k
			}
		}
		for _, s := range u.all() {
			if _, ok := want[s.id]; !ok {
				s.setListens(0)
			}
		}
		for id, k := range want {
			for s := u.session(id); s != nil && !s.setListens(k); s = u.session(id) {
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// setListens is false if the session has ended meanwhile.
func (s *session) setListens(k kinds) bool {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return false
	}
	changed := s.listens != k
	s.listens = k
	s.mu.Unlock()
	if changed {
		s.hear.send()
		s.poke.send()
	}
	return true
}

// Publish hands m over; see hub.Publisher. Messages go out in the order of
// Publish for each sender, many at a time, on the sender's own connection, which
// is opened if need be.
//
// done gets hub.ErrRefused when the cloud refuses the sender, after one attempt:
// a later Publish is another one. It gets hub.ErrOffline when the connection was
// lost or could not be opened. After such an answer everything that this sender
// publishes within the next 0.1 s is answered the same way, so that nothing gets
// ahead of what is to be repeated: a caller that repeats should pause for longer.
func (u *Upstream) Publish(ctx context.Context, m hub.Message, done func(error)) {
	e := &entry{done: done, body: m.Body}
	e.topic, e.err = encode(&m, u.deps.Clock)
	e.settled, e.size = e.err != nil, packetSize(e.topic, e.body)
	for {
		s := u.session(m.From)
		if s == nil {
			done(hub.ErrOffline)
			return
		}
		if s.push(ctx, e) {
			return
		}
	}
}

// session is the session of id, a new one if need be; nil while Run does not run.
func (u *Upstream) session(id hub.Identity) *session {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.ctx == nil || u.ctx.Err() != nil {
		return nil
	}
	s := u.sessions[id]
	if s == nil {
		s = newSession(u, id)
		u.sessions[id] = s
		ctx := u.ctx
		u.wg.Go(func() { s.run(ctx) })
	}
	return s
}

// forget drops an idle session, unless something has come for it.
func (u *Upstream) forget(s *session) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !s.close() {
		return false
	}
	delete(u.sessions, s.id)
	return true
}

func (u *Upstream) all() []*session {
	u.mu.Lock()
	defer u.mu.Unlock()
	list := make([]*session, 0, len(u.sessions))
	for _, s := range u.sessions {
		list = append(list, s)
	}
	return list
}

// do gives a command to the hub.
func (u *Upstream) do(ctx context.Context, c hub.Command) (hub.Reply, error) {
	u.mu.Lock()
	h := u.hub
	u.mu.Unlock()
	if h == nil {
		return hub.Reply{}, hub.ErrUnknown
	}
	u.counts.commands.Add(1)
	return h.Do(ctx, c)
}

// Up says whether the gateway's own connection is there.
func (u *Upstream) Up() bool { up, _, _ := u.link.state(); return up }

// Changed gives a channel that is closed when Up changes. Take it before Up.
func (u *Upstream) Changed() <-chan struct{} { _, _, c := u.link.state(); return c }

// Wake says that a link came up: the way is tried now, or, if it seems to be
// there, is asked for a sign of life. Many at once count as one.
func (u *Upstream) Wake() { u.wake.send() }
