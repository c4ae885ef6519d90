package identity

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"

	"holdfast.dev/holdfast/hub"
	"holdfast.dev/holdfast/hub/wire"
	"holdfast.dev/holdfast/storage"
)

// Config is what the configuration says about who may connect.
type Config struct {
	Devices  []DeviceConfig
	Accounts []AccountConfig
}

// Deps is what a Directory is given. The zero value makes one that knows the
// configuration alone.
type Deps struct {
	// Hosts are the names that the audience of a token may carry: the IoT hub's and
	// the gateway's own. Case does not matter, nor does a port in the token. Empty:
	// any host.
	Hosts   []string
	Source  Source        // nil: no cloud
	Keep    Keeper        // where the scope is kept; nil: in memory alone
	Key     []byte        // seals what is kept, KeySize bytes; see LoadKey
	KeyFile string        // where Key came from, for messages
	Clock   storage.Clock // storage.SystemClock if nil
	Log     *slog.Logger  // nowhere if nil
	// Online is the way to the cloud: nothing is asked while it is down, and the
	// scope is fetched when it comes up. nil: always up.
	Online hub.Link
}

// Directory answers who may connect. Its methods may be called at once by many,
// before, during and after Run.
type Directory struct {
	hosts     []string
	source    Source
	safe      *safe
	clock     storage.Clock
	log       *slog.Logger
	online    hub.Link
	fixed     map[hub.Identity]Entry // from the configuration, never changed
	accounts  atomic.Pointer[accounts]
	replacing sync.Mutex // one replacement of the accounts at a time
	asked     *asked
	flights   singleflight.Group

	// writing is held while something is kept and then known, so that disk and
	// memory change in the same order.
	writing sync.Mutex

	mu       sync.RWMutex
	scope    map[hub.Identity]learned
	learned  uint64 // how many entries have been learned singly
	synced   storage.Stamp
	complete bool
	lastGood time.Time // of this process, for the gap between refreshes
	lastErr  error
	changed  chan struct{}

	doubted chan struct{} // the scope may be out of date
}

// learned is an entry of the scope and when it was learned singly, counted in
// such entries; 0 if it came with the whole scope.
type learned struct {
	Entry
	at uint64
}

// New makes a Directory and reads what is kept. All that is wrong with the
// configuration is in the one error, a line for each entry. A kept value that
// does not open is an error too (ErrSealed if it is the key): nothing kept is
// ever dropped in silence.
func New(c Config, d Deps) (*Directory, error) {
	fixed, errDevices := readDevices(c.Devices)
	judge, errJudge := newJudge()
	accounts, errAccounts := readAccounts(c.Accounts, judge, nil)
	if err := errors.Join(errDevices, errJudge, errAccounts); err != nil {
		return nil, err
	}
	safe, err := newSafe(d.Keep, d.Key, d.KeyFile)
	if err != nil {
		return nil, err
	}
	kept, synced, complete, err := safe.load()
	if err != nil {
		return nil, err
	}
	if d.Clock == nil {
		d.Clock = storage.SystemClock()
	}
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	scope := make(map[hub.Identity]learned, len(kept))
	for id, e := range kept {
		scope[id] = learned{Entry: e}
	}
	dir := &Directory{
		hosts: d.Hosts, source: d.Source, safe: safe, clock: d.Clock, log: d.Log, online: d.Online,
		fixed: fixed, asked: newAsked(),
		scope: scope, synced: synced, complete: complete, changed: make(chan struct{}), doubted: make(chan struct{}, 1),
	}
	dir.accounts.Store(accounts)
	return dir, nil
}

func readDevices(list []DeviceConfig) (map[hub.Identity]Entry, error) {
	out := map[hub.Identity]Entry{}
	var errs []error
	for i, c := range list {
		e, err := c.entry()
		if _, twice := out[e.ID]; err == nil && twice {
			err = fmt.Errorf("id %q stands in another [[device]] too", c.ID)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("[[device]] %d: %w", i+1, err))
			continue
		}
		out[e.ID] = e
	}
	return out, errors.Join(errs...)
}

func (c DeviceConfig) entry() (Entry, error) {
	if err := checkID(c.ID); err != nil {
		return Entry{}, err
	}
	e := Entry{ID: hub.Identity(c.ID), Enabled: true, Auth: SymmetricKey}
	if c.PrimaryKey == "" {
		return Entry{}, errors.New("primary_key is missing")
	}
	var err error
	if e.Primary, err = wire.DecodeKey(c.PrimaryKey); err != nil {
		return Entry{}, errors.New("primary_key is not base64")
	}
	if c.SecondaryKey != "" {
		if e.Secondary, err = wire.DecodeKey(c.SecondaryKey); err != nil {
			return Entry{}, errors.New("secondary_key is not base64")
		}
	}
	return e, nil
}

// checkID checks "device" or "device/module".
func checkID(id string) error {
	device, module, isModule := strings.Cut(id, "/")
	if err := wire.CheckID(device); err != nil {
		return err
	}
	if !isModule {
		return nil
	}
	if err := wire.CheckID(module); err != nil {
		return fmt.Errorf("module %w", err)
	}
	return nil
}

// Known says whether id may be connected: it is in the configuration or in the
// scope, and enabled. A broker asks it again for all who are connected when
// Changed tells it to.
func (d *Directory) Known(id hub.Identity) bool {
	e, ok := d.find(id)
	return ok && e.Enabled
}

// find looks in the configuration first: it wins over the scope.
func (d *Directory) find(id hub.Identity) (Entry, bool) {
	if e, ok := d.fixed[id]; ok {
		return e, true
	}
	d.mu.RLock()
	defer d.mu.RUnlock()
	e, ok := d.scope[id]
	return e.Entry, ok
}

// Changed gives a channel that is closed at the next change of who is known, or of
// what an account is granted. Take it before asking Known and Rights.
func (d *Directory) Changed() <-chan struct{} {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.changed
}

// Status is how much a Directory knows.
type Status struct {
	Known     int           // identities that may connect
	FromFile  int           // identities in the configuration, enabled all
	FromScope int           // identities in the scope, disabled ones among them
	Accounts  int           // ordinary clients
	Complete  bool          // the whole scope has been seen, by this run or an earlier one
	Synced    storage.Stamp // when it was last seen; zero if never
	Age       time.Duration // how long ago that is, at least
	Err       error         // of the last refresh; nil after a good one
}

// Status gives the figures for page and console.
func (d *Directory) Status() Status {
	d.mu.RLock()
	defer d.mu.RUnlock()
	s := Status{
		Known: len(d.fixed), FromFile: len(d.fixed), FromScope: len(d.scope), Accounts: len(d.accounts.Load().byName),
		Complete: d.complete, Synced: d.synced, Err: d.lastErr,
	}
	for id, e := range d.scope {
		if _, twice := d.fixed[id]; e.Enabled && !twice {
			s.Known++
		}
	}
	if d.complete {
		s.Age, _ = d.clock.Age(d.synced)
	}
	return s
}

// isHost says whether a token may carry host.
func (d *Directory) isHost(host string) bool {
	if len(d.hosts) == 0 {
		return host != ""
	}
	bare := host // a connection string may name a port, and the SDKs sign it too
	if h, _, err := net.SplitHostPort(host); err == nil {
		bare = h
	}
	for _, h := range d.hosts {
		if strings.EqualFold(h, host) || strings.EqualFold(h, bare) {
			return true
		}
	}
	return false
}
