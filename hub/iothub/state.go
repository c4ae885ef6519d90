package iothub

import (
	"cmp"
	"slices"
	"sync/atomic"
	"time"

	"holdfast.dev/holdfast/hub"
)

// counts are kept since the program started.
type counts struct {
	sent     atomic.Uint64 // messages handed to a connection, repeats included
	acked    atomic.Uint64
	failed   atomic.Uint64 // answered with ErrOffline or ErrBad
	refused  atomic.Uint64 // answered with ErrRefused
	strays   atomic.Uint64 // acknowledgements and messages that belong to nothing
	lost     atomic.Uint64 // connections that ended badly or did not come about
	probes   atomic.Uint64
	attempts atomic.Uint64 // connections tried
	commands atomic.Uint64
}

// State is what there is to show of the way up. It holds no secret.
type State struct {
	Up          bool
	Since       time.Time     // when Up last changed
	LastError   string        // why the gateway's own connection is not there, or "connecting to …" during the first attempt; "" while it is up
	Hint        string        // what is odd about the gateway's own connection, also while it is up; "" if nothing is
	Silent      time.Duration // the longest Silent of all connections: a hub and a way that are well answer within a second or two
	Attempts    uint64        // connections tried since the start
	Strays      uint64        // acknowledgements that belonged to nothing
	Connections []Connection  // by identity, the gateway's own among them
}

// Connection is one identity's part in a State.
type Connection struct {
	ID        hub.Identity
	State     string // "waiting", "opening", "connected", "refused" or "closed"
	Since     time.Time
	InFlight  int           // messages sent and not yet acknowledged
	Waiting   int           // messages that wait to be sent
	Silent    time.Duration // for how long what it waits for (CONNACK, the next acknowledgement in order, the answer to a ping) has not come; 0 if it waits for nothing
	Oldest    time.Duration // age of the oldest message under way since it was sent on this connection; 0 if none is
	Hint      string        // that the hub closes it again and again, soon after it was opened; "" if it does not
	LastError string        // what ended the last one, or kept it from being opened; "" if nothing did, and while connected
}

// State is the present state.
func (u *Upstream) State() State {
	up, since, _ := u.link.state()
	st := State{Up: up, Since: since, Attempts: u.counts.attempts.Load(), Strays: u.counts.strays.Load()}
	now := time.Now()
	for _, s := range u.all() {
		c := s.state(now)
		st.Silent = max(st.Silent, c.Silent)
		if s.own {
			st.Hint = c.Hint
		}
		if s.own && !up {
			st.LastError = cmp.Or(c.LastError, "connecting to "+u.set.mqtt)
		}
		st.Connections = append(st.Connections, c)
	}
	slices.SortFunc(st.Connections, func(a, b Connection) int { return cmp.Compare(a.ID, b.ID) })
	return st
}

func (s *session) state(now time.Time) Connection {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := Connection{
		ID: s.id, State: s.phase, Since: s.since, InFlight: s.underway(), Waiting: len(s.queue) - min(s.next, len(s.queue)),
		Silent: s.silent(now), LastError: s.lastErr,
	}
	if s.thrown >= thrownOften && (s.conn == nil || now.Sub(s.conn.born) < thrownAfter) {
		c.Hint = rivals
	}
	if e := s.front(); e != nil && c.State == "connected" {
		c.Oldest = now.Sub(e.sent)
	}
	return c
}

// silent is the longest of: how long an attempt at the connection has been under
// way; how long the acknowledgement that is next in order has been outstanding
// since the last one came; how long a PINGREQ has had no answer at all. Called with
// mu held.
func (s *session) silent(now time.Time) (d time.Duration) {
	if s.phase == "opening" {
		return now.Sub(s.since)
	}
	if s.conn == nil {
		return 0
	}
	if e := s.front(); e != nil {
		d = min(now.Sub(e.sent), now.Sub(s.moved))
	}
	if ping := s.conn.tap.pinged.Load(); ping > s.conn.line.heard.Load() {
		d = max(d, now.Sub(time.Unix(0, ping)))
	}
	return d
}

// Metrics gives the figures. Those that end in _total only grow.
func (u *Upstream) Metrics(emit func(name string, value float64, labels ...string)) {
	st := u.State()
	connected, inFlight, up := 0, 0, 0.0
	for _, c := range st.Connections {
		inFlight += c.InFlight
		if c.State == "connected" {
			connected++
		}
	}
	if st.Up {
		up = 1
	}
	emit("iothub_up", up)
	emit("iothub_connections", float64(connected))
	emit("iothub_in_flight", float64(inFlight))
	emit("iothub_silent_seconds", st.Silent.Seconds())
	for _, c := range []struct {
		name string
		n    *atomic.Uint64
	}{
		{"iothub_sent_total", &u.counts.sent},
		{"iothub_acknowledged_total", &u.counts.acked},
		{"iothub_failed_total", &u.counts.failed},
		{"iothub_refused_total", &u.counts.refused},
		{"iothub_strays_total", &u.counts.strays},
		{"iothub_connections_lost_total", &u.counts.lost},
		{"iothub_attempts_total", &u.counts.attempts},
		{"iothub_probes_total", &u.counts.probes},
		{"iothub_commands_total", &u.counts.commands},
	} {
		emit(c.name, float64(c.n.Load()))
	}
}
