package generation

import (
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
)

// common are the options of building and reading. The defaults take 1.2 GB.
func (s *Set) common(dir string) badger.Options {
	return badger.DefaultOptions(dir).
		WithLogger(quiet{s.log}).
		WithMetricsEnabled(false).
		WithCompression(options.None). // values are packed already; and needs no block cache
		WithBlockCacheSize(0).
		WithIndexCacheSize(0). // the index of a table is a few KB here, its cache more
		WithMemTableSize(1 << 20).
		WithNumMemtables(1).
		WithValueThreshold(64).
		// Twice what it may hold: never a second file, and a value above it is refused.
		WithValueLogFileSize(2 * (s.limit() + slack)).
		WithDetectConflicts(false)
}

// forBuilding writes nothing twice: no compaction, no sync, all of it in scratch.
func (s *Set) forBuilding(dir string) badger.Options {
	return s.common(dir).
		WithSyncWrites(false).
		WithNumCompactors(0). // one is refused
		// As nothing compacts, it would wait for ever at the fifteenth table.
		WithNumLevelZeroTablesStall(1 << 20).
		WithCompactL0OnClose(false)
}

// forReading has it check what it can by itself: with a sum over the value's header
// it does not stumble over one that is harmed, while it holds a lock.
func (s *Set) forReading(dir string) badger.Options {
	return s.common(dir).
		WithReadOnly(true).
		WithVerifyValueChecksum(true).
		WithChecksumVerificationMode(options.OnTableAndBlockRead)
}

// guard turns a panic of badger into an error, and a fault in its memory maps, a page
// that the disk cannot read, into a panic first. It sees those of this goroutine only;
// badger's others are kept from them by giving it nothing that is not whole.
func guard(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", errPanic, p)
		}
	}()
	return f()
}

// quiet takes what badger says: what matters comes back as an error as well.
type quiet struct{ log *slog.Logger }

func (q quiet) say(f string, a ...any) {
	q.log.Debug("badger says", "text", strings.TrimSpace(fmt.Sprintf(f, a...)))
}

func (q quiet) Errorf(f string, a ...any)   { q.say(f, a...) }
func (q quiet) Warningf(f string, a ...any) { q.say(f, a...) }
func (q quiet) Infof(string, ...any)        {}
func (q quiet) Debugf(string, ...any)       {}
