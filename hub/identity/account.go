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

// accounts are the ordinary clients of the configuration.
type accounts struct {
	byName map[string]account
	names  []string // in the order of the configuration
	turn   chan struct{}
	secret [32]byte // of this process: keys the proofs below

	mu     sync.Mutex
	proven map[string][sha256.Size]byte // by name: proof of the password that was right
}

type account struct {
	Account
	hash string
}

func readAccounts(list []AccountConfig) (*accounts, error) {
	a := &accounts{
		byName: map[string]account{}, turn: make(chan struct{}, hashesAtOnce),
		proven: map[string][sha256.Size]byte{},
	}
	if _, err := rand.Read(a.secret[:]); err != nil {
		return a, fmt.Errorf("draw a key: %w", err)
	}
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
		}}
	}
	return a, errors.Join(errs...)
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
	a := d.accounts
	acc, ok := a.byName[name]
	proof := a.proof(name, password)
	if ok && a.isProven(name, proof) {
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
	a.proven[name] = proof
	a.mu.Unlock()
	return acc.Account, nil
}

func (a *accounts) proof(name, password string) (p [sha256.Size]byte) {
	h := hmac.New(sha256.New, a.secret[:])
	h.Write(binary.AppendUvarint(nil, uint64(len(name))))
	h.Write([]byte(name))
	h.Write([]byte(password))
	h.Sum(p[:0])
	return p
}

func (a *accounts) isProven(name string, proof [sha256.Size]byte) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	p, ok := a.proven[name]
	return ok && hmac.Equal(p[:], proof[:])
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
