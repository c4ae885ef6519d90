package hub

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"holdfast.dev/holdfast/hub/wire"
	"holdfast.dev/holdfast/storage"
)

// Core is the Hub: it admits, routes and keeps messages, and finds who carries out
// a command. It has no goroutine of its own.
type Core struct {
	db      *storage.DB
	clock   storage.Clock
	routers []Router

	prefix string // of message ids, random for each start
	count  atomic.Uint64

	mu       sync.Mutex // guards the rest
	attached map[Identity]*attachment
	changed  chan struct{}
}

var _ Hub = (*Core)(nil)

// attachment is one identity that can be reached.
type attachment struct {
	Present
	doer Doer
}

// NewCore makes the hub on a queue store. The routers are asked for every message.
func NewCore(db *storage.DB, clock storage.Clock, routers ...Router) *Core {
	var b [6]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand ends the program instead
	return &Core{
		db: db, clock: clock, routers: routers, prefix: hex.EncodeToString(b[:]) + "-",
		attached: map[Identity]*attachment{}, changed: make(chan struct{}),
	}
}

// Publish keeps m in every queue that a router names, in one commit, or in none.
// A message that no router wants is counted as unrouted and done(nil). The error
// is ErrBad for a message that can never be kept, ErrFull for one that cannot be
// kept now.
func (c *Core) Publish(ctx context.Context, m Message, done func(error)) {
	if m.ID == "" {
		m.ID = c.prefix + strconv.FormatUint(c.count.Add(1), 36)
	}
	if m.Arrived == (storage.Stamp{}) {
		m.Arrived = c.clock.Now()
	}
	r := storage.Record{Sender: string(m.From), Stamp: m.Arrived, With: m.With, Order: m.Order}
	err := admit(&m)
	if err == nil {
		for _, d := range c.route(&m) {
			if d.Refuse != nil {
				err = fmt.Errorf("%w: %w", ErrBad, d.Refuse)
			}
			r.To = append(r.To, storage.Dest{Queue: Lane(d.Queue, d.Priority), TTL: d.TTL, Note: d.Note})
		}
	}
	switch {
	case err != nil:
		r = storage.Record{} // through the store all the same: done must not overtake
	case len(r.To) > 0:
		r.Body = Encode(&m)
	default:
		c.db.Unrouted(r.Sender)
	}
	c.db.Append(ctx, r, func(kept error) { done(cause(ctx, err, kept)) })
}

// maxNames bounds topic and properties together: with the largest body they fit a
// record (storage.MaxRecord).
const maxNames = 128 << 10

// admit says what can be said of a message without asking anybody.
func admit(m *Message) error {
	if m.From == "" {
		return fmt.Errorf("%w: it has no sender", ErrBad)
	}
	if n := m.Size(); n > wire.MaxMessage {
		return fmt.Errorf("%w: it has %d bytes, at most %d are allowed", ErrBad, n, wire.MaxMessage)
	}
	if len(m.Topic)+len(m.Props)+len(m.Extra) > maxNames {
		return fmt.Errorf("%w: topic and properties are over %d bytes", ErrBad, maxNames)
	}
	return nil
}

func (c *Core) route(m *Message) []Dest {
	var all []Dest
	for _, r := range c.routers {
		for _, d := range r(m) {
			same := func(o Dest) bool { return o.Queue == d.Queue && o.Priority == d.Priority }
			if !slices.ContainsFunc(all, same) { // one copy for each lane
				all = append(all, d)
			}
		}
	}
	return all
}

// cause turns the store's answer into one of the hub's.
func cause(ctx context.Context, refused, kept error) error {
	switch {
	case refused != nil:
		return refused
	case kept == nil:
		return nil
	case errors.Is(kept, storage.ErrTooBig):
		return fmt.Errorf("%w: %w", ErrBad, kept)
	case ctx.Err() != nil && errors.Is(kept, ctx.Err()):
		return fmt.Errorf("%w: %w", ErrOffline, kept)
	}
	return fmt.Errorf("%w: %w", ErrFull, kept)
}

// Do hands c to whoever the identity is attached through.
func (c *Core) Do(ctx context.Context, cmd Command) (Reply, error) {
	c.mu.Lock()
	a := c.attached[cmd.To]
	c.mu.Unlock()
	switch {
	case a == nil:
		return Reply{}, fmt.Errorf("%s for %s: %w: it is not connected", cmd.Kind, cmd.To, ErrUnknown)
	case !a.Listens(cmd.Kind):
		return Reply{}, fmt.Errorf("%s for %s: %w: it does not listen for them", cmd.Kind, cmd.To, ErrUnknown)
	}
	return a.doer.Do(ctx, cmd)
}

// Attach implements Presence.
func (c *Core) Attach(id Identity, d Doer, kinds ...Kind) (gone func()) {
	a := &attachment{Present{ID: id, Kinds: slices.Clone(kinds), Since: time.Now()}, d}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.attached[id] = a
	c.change()
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.attached[id] == a { // not if a newer one has taken its place
			delete(c.attached, id)
			c.change()
		}
	}
}

func (c *Core) change() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// Changed implements Presence.
func (c *Core) Changed() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.changed
}

// List implements Presence; sorted by identity.
func (c *Core) List() []Present {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make([]Present, 0, len(c.attached))
	for _, a := range c.attached {
		out = append(out, a.Present)
	}
	slices.SortFunc(out, func(a, b Present) int { return strings.Compare(string(a.ID), string(b.ID)) })
	return out
}
