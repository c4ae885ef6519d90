package mqtt

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"holdfast.dev/holdfast/hub"
)

// How long the answer to a wrong credential is held back: the longer, the more
// there have been.
const (
	firstWait = 100 * time.Millisecond // then doubled
	mostWait  = 3 * time.Second
	forgiven  = time.Minute // after so long without another one
	maxTries  = 4096        // addresses, and names, that are remembered
)

// guesses slow down who tries credentials. They are counted by address and by user
// name, so that neither many names from one place nor one name from many places is
// fast. Only the answer to a wrong one waits: a right password is never held up by
// those who do not have it.
type guesses struct {
	mu        sync.Mutex
	addresses map[netip.Addr]tries
	names     map[[sha256.Size]byte]tries // a user name may have 64 KiB
}

type tries struct {
	n    int
	last time.Time
}

func newGuesses() *guesses {
	return &guesses{addresses: map[netip.Addr]tries{}, names: map[[sha256.Size]byte]tries{}}
}

// wrong counts a wrong credential, and says how long its answer is to wait.
func (g *guesses) wrong(now time.Time, from netip.Addr, name string) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	return waitFor(max(again(g.addresses, from, now), again(g.names, sha256.Sum256([]byte(name)), now)))
}

// again counts one more of k, and says how many there were of late.
func again[K comparable](m map[K]tries, k K, now time.Time) int {
	t, known := m[k]
	if !known && len(m) >= maxTries {
		makeRoom(m, now)
	}
	if now.Sub(t.last) >= forgiven {
		t.n = 0
	}
	t = tries{t.n + 1, now}
	m[k] = t
	return t.n
}

// makeRoom drops what is forgiven, and if that is nothing, what is oldest.
func makeRoom[K comparable](m map[K]tries, now time.Time) {
	var oldest K
	first := now
	for k, t := range m {
		if now.Sub(t.last) >= forgiven {
			delete(m, k)
		} else if !t.last.After(first) {
			oldest, first = k, t.last
		}
	}
	if len(m) >= maxTries {
		delete(m, oldest)
	}
}

func waitFor(n int) time.Duration {
	d := firstWait
	for ; n > 1 && d < mostWait; n-- {
		d *= 2
	}
	return min(d, mostWait)
}

// notProven is the refusal of a credential that the Gate did not take.
func (c *conn) notProven(name string, err error) *refusal {
	r := gateRefusal(err)
	if errors.Is(err, hub.ErrUnauthorized) {
		from := addressOf(c.RemoteAddr())
		c.penalty = c.b.guesses.wrong(time.Now(), from, name)
		r.detail = fmt.Errorf("from %s: %w", from, err)
	}
	return r
}

// linger waits before the refusal of a credential is told. It ends with the
// connection.
func (c *conn) linger() {
	if c.penalty == 0 {
		return
	}
	c.place.lingers(c)
	timer := time.NewTimer(c.penalty)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-c.ctx.Done():
	}
}
