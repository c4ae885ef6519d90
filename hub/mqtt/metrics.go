package mqtt

import (
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// stats are the broker's counters since its start.
type stats struct {
	publishes   atomic.Uint64 // PUBLISH taken in, kept or not
	acked       atomic.Uint64 // PUBACK sent with success
	held        atomic.Uint64 // PUBLISH that had to wait for room in the store
	delivered   atomic.Uint64 // to subscribers: written at QoS 0, acknowledged at QoS 1
	dropped     atomic.Uint64 // deliveries of QoS 1 that were evicted or ended with their session
	droppedQoS0 atomic.Uint64 // deliveries of QoS 0 that nobody could take
	expired     atomic.Uint64 // deliveries whose time was over
	slow        atomic.Uint64 // clients hung up for being slow
	panics      atomic.Uint64 // faults of ours that ended a connection, or less
	in, out     traffic

	mu     sync.Mutex
	causes map[string]uint64 // refusals by reason
	said   map[string]bool   // what the log has, by client and reason
	since  time.Time         // when said began
}

// What the log gets of refusals: maxSaid lines in saidTime, then anew. Somebody who
// comes under a new name each time must not wear out the card that the log is on.
const (
	maxSaid  = 200
	saidTime = time.Hour
)

// refused counts what was refused and logs it.
func (b *Broker) refused(who, reason string, detail error) {
	b.count(reason)
	b.warn(who, reason, detail)
}

// count counts what was refused. It may be called with any lock held.
func (b *Broker) count(reason string) {
	b.stats.mu.Lock()
	b.stats.causes[reason]++
	b.stats.mu.Unlock()
}

// warn logs at Warn the first time in an hour for a client and reason, else at
// Debug: a device that tries again each second must not fill the log. It blocks as the log
// may: never call it from the committer or with a lock held.
func (b *Broker) warn(who, reason string, detail error) {
	who = short(who)
	key := who + "\x00" + reason
	b.stats.mu.Lock()
	if now := time.Now(); now.Sub(b.stats.since) >= saidTime {
		clear(b.stats.said)
		b.stats.since = now
	}
	again := b.stats.said[key] || len(b.stats.said) >= maxSaid
	if !again {
		b.stats.said[key] = true
	}
	b.stats.mu.Unlock()
	log := b.log.Warn
	if again {
		log = b.log.Debug
	}
	if detail == nil {
		log("client refused", "client", who, "reason", reason)
		return
	}
	log("client refused", "client", who, "reason", reason, "error", short(detail.Error()))
}

// short is s for a line of the log: a client may choose 64 KiB of id or topic.
func short(s string) string {
	const most = 200
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}

// Metrics gives the broker's figures. Labels are names and values in turn.
func (b *Broker) Metrics(emit func(name string, value float64, labels ...string)) {
	b.mu.RLock()
	live, kept := b.live, len(b.sessions)
	b.mu.RUnlock()
	emit("mqtt_clients", float64(live))
	emit("mqtt_sessions", float64(kept))
	emit("mqtt_retained", float64(b.retained.len()))
	emit("mqtt_queued_bytes", float64(b.queued.Load()))
	for _, c := range []struct {
		name string
		n    *atomic.Uint64
	}{
		{"mqtt_publishes_total", &b.stats.publishes},
		{"mqtt_acked_total", &b.stats.acked},
		{"mqtt_held_total", &b.stats.held},
		{"mqtt_delivered_total", &b.stats.delivered},
		{"mqtt_dropped_total", &b.stats.dropped},
		{"mqtt_dropped_qos0_total", &b.stats.droppedQoS0},
		{"mqtt_expired_total", &b.stats.expired},
		{"mqtt_slow_total", &b.stats.slow},
		{"mqtt_panics_total", &b.stats.panics},
	} {
		emit(c.name, float64(c.n.Load()))
	}
	for way, t := range map[string]*traffic{"in": &b.stats.in, "out": &b.stats.out} {
		emit("mqtt_packets_total", float64(t.packets.Load()), "direction", way)
		emit("mqtt_publish_packets_total", float64(t.publishes.Load()), "direction", way)
		emit("mqtt_bytes_total", float64(t.bytes.Load()), "direction", way)
	}
	b.stats.mu.Lock()
	causes := maps.Clone(b.stats.causes) // emit may block, and the committer counts here
	b.stats.mu.Unlock()
	for reason, n := range causes {
		emit("mqtt_refused_total", float64(n), "reason", reason)
	}
}
