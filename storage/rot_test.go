package storage

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"holdfast.dev/holdfast/storage/journal"
)

// aged is a store with something of every kind in it: hot and cold records, some of
// them for two queues, parked ones, ends, keys.
type aged struct {
	dir    string
	bodies map[string]map[Position]string // by queue, of what has not ended
	last   map[string]Position
	frames []frameContent
	cold   map[uint32]map[string]bool // bodies by generation
	ends   map[string]bool            // bodies of what has ended
}

func (a *aged) add(t *testing.T, db *DB, i int) {
	t.Helper()
	body := fmt.Sprintf("%s-%d", []string{"a", "b"}[i%2], i)
	r := Record{Sender: body[:1], Stamp: db.o.Clock.Now(), Body: []byte(body + strings.Repeat(" .", 200)),
		With: []Change{{Map: "m", Key: fmt.Sprintf("key-%02d", i%20), Value: []byte(strings.Repeat("v", 50))}}}
	for _, q := range [][]string{{"up"}, {"up", "local"}}[i%2] {
		r.To = append(r.To, Dest{Queue: q})
	}
	done := make(chan error, 1)
	db.Append(context.Background(), r, func(err error) { done <- err })
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	for _, d := range r.To {
		a.last[d.Queue]++
		a.bodies[d.Queue][a.last[d.Queue]] = body
	}
}

func newAged(t *testing.T) *aged {
	t.Helper()
	a := &aged{dir: scratch(t), last: map[string]Position{}, bodies: map[string]map[Position]string{"up": {}, "local": {}}, cold: map[uint32]map[string]bool{}, ends: map[string]bool{}}
	t.Cleanup(func() { _ = os.RemoveAll(a.dir) })
	db := open(t, a.dir, coldOptions())
	db.mover.stop()
	for i := range 60 {
		a.add(t, db, i)
		if i%15 == 14 {
			for more := true; more; {
				var err error
				if more, err = db.tidy(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	for _, p := range []Position{2, 3, 30, 50} {
		a.ends[a.bodies["up"][p]] = true
		delete(a.bodies["up"], p)
		settleNow(t, db.Queue("up"), Delivered, p)
	}
	db.Queue("up").ParkRecord(7, "strange")
	db.Queue("local").Park("b", "refused", nil)
	a.add(t, db, 60)
	for n, g := range db.generations {
		a.cold[n] = map[string]bool{}
		for _, k := range g.packs {
			if k != nil {
				for p := k.first; p <= k.last; p++ {
					a.cold[n][a.bodies[k.q.name][p]] = true
				}
			}
		}
	}
	if len(a.cold) < 2 {
		t.Fatalf("%d generations, want some", len(a.cold))
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	a.frames = contents(t, a.dir)
	return a
}

// hit gives the bodies that may be lost when a file is harmed at an offset; all says
// that anything from there to its end may be.
func (a *aged) hit(file string, off int64, all bool) map[string]bool {
	lost := map[string]bool{}
	var n uint32
	if _, err := fmt.Sscanf(file, "g-%08d/", &n); err == nil {
		return a.cold[n]
	}
	for _, f := range a.frames {
		end := int64(f.off+f.size+journal.Page-1) / journal.Page * journal.Page // half a page is none
		if filepath.Base(file) != f.file || end <= off || int64(f.off) > off && !all {
			continue
		}
		for b := range f.bodies {
			lost[b] = true
		}
	}
	return lost
}

// noFrame says whether no frame of the journal was left out.
func (a *aged) noFrame(lost map[string]bool) bool {
	for _, f := range a.frames {
		for b := range f.bodies {
			if !lost[b] {
				return false
			}
		}
	}
	return true
}

// check opens a harmed store in three lives, reads everything, and says what is wrong.
func (a *aged) check(t *testing.T, dir string, lost map[string]bool) (missing int, err error) {
	for life := range 3 {
		o := coldOptions()
		o.check = false // it is meant for stores that nobody harmed
		db, err := Open(dir, o)
		if errors.Is(err, ErrDamaged) && a.noFrame(lost) {
			return len(lost), nil // it is left as it is
		}
		if err != nil {
			return 0, err
		}
		missing, err = a.compare(db, lost)
		if err == nil && missing > 0 && life == 0 && len(db.Stats().Damage) == 0 {
			err = fmt.Errorf("%d records are missing and nobody says so", missing)
		}
		if cerr := db.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			return missing, fmt.Errorf("life %d: %w", life+1, err)
		}
	}
	return missing, nil
}

func (a *aged) compare(db *DB, lost map[string]bool) (missing int, err error) {
	var beyond []string
	for name, want := range a.bodies {
		q := db.Queue(name)
		for after, same := Position(0), 0; after < q.Stats().Last; { // what cannot be read is settled
			_, next, err := q.Read(after, Limit{Records: 1000}, nil)
			if err != nil {
				return 0, err
			}
			if same++; next > after {
				same = 0
			}
			if after = next; same > 100 {
				return 0, fmt.Errorf("queue %s is read up to %d of %d and no further", name, after, q.Stats().Last)
			}
		}
		done := make(chan error, 1)
		db.Append(context.Background(), Record{}, func(err error) { done <- err })
		if err := <-done; err != nil {
			return 0, err
		}
		all, err := every(q)
		if err != nil {
			return 0, err
		}
		there := map[Position]bool{}
		for _, s := range all {
			body := first(s.Body)
			if s.Err != nil && lost[want[s.Position]] {
				there[s.Position] = true // parked, so that Read has not met it, and reported here
				continue
			}
			if there[s.Position] = true; s.Err != nil || want[s.Position] != body && !a.ends[body] {
				return 0, fmt.Errorf("queue %s has %q at %d, want %q (%v)", name, body, s.Position, want[s.Position], s.Err)
			}
		}
		for p, body := range want {
			if there[p] {
				continue
			}
			if missing++; !lost[body] {
				beyond = append(beyond, body)
			}
		}
	}
	if len(beyond) > 0 {
		return 0, fmt.Errorf("%d of %d records are lost that were not hit: %.100v", len(beyond), missing, beyond)
	}
	return missing, db.Verify()
}

// One bit in every file and in every kind of record, and every file cut short: what
// is lost is at most what was hit, it is reported, and the ledger adds up.
func TestOneBitInEveryFile(t *testing.T) {
	a, c := newAged(t), newCampaign(t, 0)
	lot, most := rand.New(rand.NewPCG(c.seed, 1)), 12
	if c.long {
		most = 1000
	}
	tried, losing := map[string]int{}, map[string]int{}
	try := func(what, file string, off int64, all bool, harm func(name string) error) {
		dir := scratch(t)
		defer os.RemoveAll(dir)
		if err := os.CopyFS(dir, os.DirFS(a.dir)); err != nil {
			t.Fatal(err)
		}
		if err := harm(filepath.Join(dir, file)); err != nil {
			t.Fatal(err)
		}
		kind := what + " of " + strings.TrimRight(filepath.Base(file), "0123456789abcdef")
		tried[kind]++
		missing, err := a.check(t, dir, a.hit(file, off, all))
		if missing > 0 {
			losing[kind]++
		}
		if err != nil {
			t.Errorf("%s of %s at %d: %v; HOLDFAST_TEST_SEED=%d", what, file, off, err, c.seed)
		}
	}
	for _, file := range filesOf(t, a.dir) {
		info, err := os.Stat(filepath.Join(a.dir, file))
		if err != nil {
			t.Fatal(err)
		}
		for _, off := range a.places(file, info.Size(), lot, most) {
			try("bit", file, off, false, func(name string) error { return flip(name, off, byte(1)<<lot.IntN(8)) })
		}
		for _, size := range []int64{lot.Int64N(info.Size() + 1), info.Size() - 1} {
			try("end", file, size, true, func(name string) error { return os.Truncate(name, max(0, size)) })
		}
	}
	for kind, n := range tried {
		t.Logf("%-24s %3d harmed, %3d lost something", kind, n, losing[kind])
	}
}

// places chooses where to harm a file: every frame of a segment, in its head and in
// each of its records, and some places of the others.
func (a *aged) places(file string, size int64, lot *rand.Rand, most int) (offs []int64) {
	for _, f := range a.frames {
		if f.file == filepath.Base(file) {
			offs = append(offs, int64(f.off)+lot.Int64N(40))
			for _, r := range f.records {
				offs = append(offs, int64(f.off)+int64(r))
			}
		}
	}
	lot.Shuffle(len(offs), func(i, j int) { offs[i], offs[j] = offs[j], offs[i] })
	offs = offs[:min(len(offs), most)]
	for len(offs) < min(most/4, 20) && size > 0 {
		offs = append(offs, lot.Int64N(size))
	}
	return offs
}

func filesOf(t *testing.T, dir string) (files []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() == "LOCK" {
			return err
		}
		rel, err := filepath.Rel(dir, name)
		files = append(files, rel)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(files)
	return files
}

func flip(name string, off int64, bit byte) error {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, off); err != nil {
		return err
	}
	b[0] ^= bit
	_, err = f.WriteAt(b, off)
	return err
}
