package identity

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"holdfast.dev/holdfast/hub"
)

// hashesAtOnce bounds how many passwords are hashed at a time: each takes 19 MiB
// and a core, and small boards have four.
const hashesAtOnce = 2

// accounts are the ordinary clients of the configuration. They do not change: a new
// configuration makes new ones, which judge by what was proven before.
type accounts struct {
	*judge
	byName map[string]account
	names  []string // in the order of the configuration
}

// judge is what outlives a change of the accounts.
type judge struct {
	turn   chan struct{}
	secret [32]byte // of this process: keys the proofs below

	mu     sync.Mutex
	proven map[string]proven // by name
	last   uint64            // number of a password
}

// proven is the password that was right for a hash.
type proven struct {
	hash  string
	proof [sha256.Size]byte
}

type account struct {
	Account
	hash string
}

func newJudge() (*judge, error) {
	j := &judge{turn: make(chan struct{}, hashesAtOnce), proven: map[string]proven{}}
	if _, err := rand.Read(j.secret[:]); err != nil {
		return j, fmt.Errorf("draw a key: %w", err)
	}
	return j, nil
}

// readAccounts makes accounts of list. Those of before, who may be nil, give the
// numbers of the passwords that are the same.
func readAccounts(list []AccountConfig, j *judge, before *accounts) (*accounts, error) {
	a := &accounts{judge: j, byName: map[string]account{}}
	var errs []error
	for i, c := range list {
		err := c.check()
		if _, twice := a.byName[c.Name]; err == nil && twice {
			err = errors.New("name stands in another [[account]] too")
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("[[account]] %s: %w", c.title(i), err))
			continue
		}
		a.names = append(a.names, c.Name)
		a.byName[c.Name] = account{hash: c.Password, Account: Account{
			Name: c.Name, From: hub.Identity(c.Device),
			Publish: slices.Clone(c.Publish), Subscribe: slices.Clone(c.Subscribe),
			Proof: j.number(c, before),
		}}
	}
	return a, errors.Join(errs...)
}

// number is that of c's password: the one that it had before, or a new one.
func (j *judge) number(c AccountConfig, before *accounts) uint64 {
	if before != nil {
		if old, ok := before.byName[c.Name]; ok && old.hash == c.Password {
			return old.Proof
		}
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.last++
	return j.last
}

func (c AccountConfig) title(i int) string {
	if c.Name == "" {
		return fmt.Sprint(i + 1)
	}
	return fmt.Sprintf("%q", c.Name)
}

func (c AccountConfig) check() error {
	if c.Name == "" {
		return errors.New("name is missing")
	}
	if strings.ContainsAny(c.Name, "/\x00") {
		return errors.New("name has a slash, by which IoT Hub's user names are told")
	}
	if c.Password == "" {
		return errors.New("password is missing; make one with holdfast passwd")
	}
	if err := CheckHash(c.Password); err != nil {
		return err
	}
	if c.Device != "" {
		if err := checkID(c.Device); err != nil {
			return fmt.Errorf("device: %w", err)
		}
	}
	for _, f := range c.Publish {
		if err := checkFilter(f); err != nil {
			return fmt.Errorf("publish: %w", err)
		}
	}
	for _, f := range c.Subscribe {
		if err := checkFilter(f); err != nil {
			return fmt.Errorf("subscribe: %w", err)
		}
	}
	return nil
}

// checkFilter checks an MQTT topic filter (MQTT 5, section 4.7).
func checkFilter(f string) error {
	if f == "" || len(f) > 65535 || strings.ContainsRune(f, 0) {
		return fmt.Errorf("filter %q: want 1 to 65535 bytes without NUL", f)
	}
	levels := strings.Split(f, "/")
	for i, l := range levels {
		if strings.ContainsAny(l, "+#") && len(l) > 1 {
			return fmt.Errorf("filter %q: + or # must be a whole level", f)
		}
		if l == "#" && i < len(levels)-1 {
			return fmt.Errorf("filter %q: # must be the last level", f)
		}
	}
	return nil
}

// Account proves an ordinary client by the password of its [[account]]. The error
// is hub.ErrUnauthorized, or hub.ErrUnsure if ctx ended before the password's turn
// came.
//
// A password that has been right is remembered as a proof under a key of this
// process, so that a thousand clients that come back at once after an outage do
// not cost a thousand hashes.
func (d *Directory) Account(ctx context.Context, name, password string) (Account, error) {
	a := d.accounts.Load()
	acc, ok := a.byName[name]
	proof := a.proof(name, password)
	if ok && a.isProven(name, proven{acc.hash, proof}) {
		return acc.Account, nil
	}
	hash, any := acc.hash, ok
	if !ok {
		hash, any = a.decoy(name)
	}
	if !any {
		return Account{}, fmt.Errorf("authenticate account %q: there are no accounts: %w", name, hub.ErrUnauthorized)
	}
	select {
	case a.turn <- struct{}{}:
	case <-ctx.Done():
		return Account{}, fmt.Errorf("authenticate account %q: %w: %w", name, ctx.Err(), hub.ErrUnsure)
	}
	right := Check(hash, []byte(password))
	<-a.turn
	if !right || !ok {
		return Account{}, fmt.Errorf("authenticate account %q: name or password is wrong: %w", name, hub.ErrUnauthorized)
	}
	a.mu.Lock()
	a.proven[name] = proven{hash, proof}
	a.mu.Unlock()
	return acc.Account, nil
}

func (j *judge) proof(name, password string) (p [sha256.Size]byte) {
	h := hmac.New(sha256.New, j.secret[:])
	h.Write(binary.AppendUvarint(nil, uint64(len(name))))
	h.Write([]byte(name))
	h.Write([]byte(password))
	h.Sum(p[:0])
	return p
}

// isProven says whether p is what was right. The hash is compared too: whoever was
// being judged while the password changed was right for the old one.
func (j *judge) isProven(name string, p proven) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	right, ok := j.proven[name]
	return ok && right.hash == p.hash && hmac.Equal(right.proof[:], p.proof[:])
}

// decoy is somebody's hash to spend time on for a name that does not exist: always
// the same one's for the same name, so that neither one answer nor many tell
// whether it does.
func (a *accounts) decoy(name string) (hash string, ok bool) {
	if len(a.names) == 0 {
		return "", false
	}
	p := a.proof(name, "")
	i := binary.LittleEndian.Uint64(p[:]) % uint64(len(a.names))
	return a.byName[a.names[i]].hash, true
}
