package mqtt

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"time"

	"holdfast.dev/holdfast/storage"
)

// What is on disk of sessions beside their queues: maps of the store.
//
//	map                  key                         value
//	mqtt.sessions        session                     JSON, see remembered
//	mqtt.subscriptions   session NUL filter          flags, subscription identifier
//	mqtt.inbound         session NUL packet id       1: a publish of quality 2 that is kept and was not released yet
//	mqtt.outbound        session NUL position        1: PUBREC has come for it and PUBCOMP has not
//	mqtt.wills           session NUL serial          JSON, see rememberedWill
//	mqtt.groups          group NUL filter            JSON, see rememberedGroup
const (
	mapSessions      = "mqtt.sessions"
	mapSubscriptions = "mqtt.subscriptions"
	mapInbound       = "mqtt.inbound"
	mapOutbound      = "mqtt.outbound"
	mapWills         = "mqtt.wills"
	mapGroups        = "mqtt.groups"
)

// remembered is a session that outlives its connection, as it is on disk.
type remembered struct {
	Owner  string           `json:"owner,omitempty"`  // the account; none for an IoT Hub identity
	Device string           `json:"device,omitempty"` // the identity; none for an ordinary client
	Born   string           `json:"born"`             // part of its queue's name
	Expiry int64            `json:"expiry"`           // seconds
	Since  storage.Stamp    `json:"since"`            // of its first connection
	Away   *storage.Stamp   `json:"away,omitempty"`   // since when there is no connection; none: there is one, or was when the power went
	Sent   storage.Position `json:"sent"`             // what is up to here in its queue was sent at least once
}

// clerk writes down what changes of sessions, in the order in which it was told, on
// a goroutine of its own: it is told with locks held, and a store without room lets
// callers wait.
type clerk struct {
	store *storage.DB
	wake  chan struct{}

	mu   sync.Mutex
	list []entry
}

type entry struct {
	changes []storage.Change
	done    func(error) // may be nil; must not block
}

// note has changes written down. It never blocks; done is called when they are on
// disk, or cannot be.
func (k *clerk) note(done func(error), changes ...storage.Change) {
	k.mu.Lock()
	k.list = append(k.list, entry{changes, done})
	k.mu.Unlock()
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// must is note for who has to wait.
func (k *clerk) must(ctx context.Context, changes ...storage.Change) error {
	kept := make(chan error, 1)
	k.note(func(err error) { kept <- err }, changes...)
	select {
	case err := <-kept:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (k *clerk) run(ctx context.Context) {
	for {
		select {
		case <-k.wake:
			k.work()
		case <-ctx.Done():
			return
		}
	}
}

// work hands over all that there is to write. The store always comes to an answer, so
// nothing is cut short where the gateway stops.
func (k *clerk) work() {
	k.mu.Lock()
	list := k.list
	k.list = nil
	k.mu.Unlock()
	for _, e := range list {
		done := e.done
		if done == nil {
			done = func(error) {}
		}
		k.store.Append(context.Background(), storage.Record{With: e.changes}, done)
	}
}

// finish writes what is left when all connections have ended.
func (k *clerk) finish() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	last := make(chan error, 1)
	k.note(func(err error) { last <- err })
	k.work()
	select {
	case <-last:
	case <-ctx.Done():
	}
}

func jsonChange(m, key string, v any) storage.Change {
	b, err := json.Marshal(v)
	if err != nil { // these structs have no way to fail
		panic(fmt.Sprintf("encode %s: %v", m, err))
	}
	return storage.Change{Map: m, Key: key, Value: b}
}

func idKey(session string, id uint16) string {
	return session + "\x00" + string(binary.BigEndian.AppendUint16(nil, id))
}

func positionKey(session string, p storage.Position) string {
	return session + "\x00" + string(binary.BigEndian.AppendUint64(nil, uint64(p)))
}

// cutKey takes the part behind the last NUL that is n bytes before the end off, or
// behind the last NUL at all for n = 0. A session's key has a NUL of its own, and an
// id may have some.
func cutKey(key string, n int) (session, rest string, ok bool) {
	at := len(key) - n - 1
	if n == 0 {
		at = strings.LastIndexByte(key, 0)
	}
	if at < 0 || key[at] != 0 {
		return "", "", false
	}
	return key[:at], key[at+1:], true
}

// The value of a subscription: flags, then the identifier.
//
//	QoS (2 bits) | no local 4 | retain as published 8 | identifier, uvarint
func (s subscription) encode() []byte {
	flags := s.qos & 3
	if s.noLocal {
		flags |= 4
	}
	if s.retained {
		flags |= 8
	}
	return binary.AppendUvarint([]byte{flags}, uint64(s.id))
}

func parseSubscription(b []byte) (s subscription, ok bool) {
	if len(b) < 2 {
		return s, false
	}
	id, k := binary.Uvarint(b[1:])
	return subscription{qos: b[0] & 3, noLocal: b[0]&4 != 0, retained: b[0]&8 != 0, id: int(id)}, k > 0
}
