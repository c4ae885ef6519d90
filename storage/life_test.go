package storage

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// What becomes of a store over several lives after a segment was harmed: it opens
// every time, gives what is left, drains, and says what was lost.
func TestLifeAfterDamage(t *testing.T) {
	for name, hurt := range map[string]func(segs []string) error{
		"byte in second":        func(s []string) error { harm(t, s[1], 300000, []byte{0xff}); return nil },
		"truncate second":       func(s []string) error { return os.Truncate(s[1], 400000) },
		"remove first":          func(s []string) error { return os.Remove(s[0]) },
		"remove second":         func(s []string) error { return os.Remove(s[1]) },
		"remove last":           func(s []string) error { return os.Remove(s[len(s)-1]) },
		"truncate last":         func(s []string) error { return os.Truncate(s[len(s)-1], 0) },
		"last zero from page 3": func(s []string) error { harm(t, s[len(s)-1], 3*4096, make([]byte, 1<<20-3*4096)); return nil },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			db := open(t, dir, Options{})
			body := strings.Repeat("x", 100_000)
			for i := range 40 {
				done := make(chan error, 1)
				db.Append(t.Context(), Record{Sender: "a", Body: fmt.Append(nil, i, body), To: []Dest{{Queue: "up"}}}, func(err error) { done <- err })
				if err := <-done; err != nil {
					t.Fatal(err)
				}
			}
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			segs, _ := filepath.Glob(filepath.Join(dir, "journal", "0*"))
			slices.Sort(segs)
			if err := hurt(segs); err != nil {
				t.Fatal(err)
			}
			for life := range 4 {
				db := open(t, dir, Options{})
				if err := db.Verify(); err != nil {
					t.Fatalf("life %d: %v", life, err)
				}
				if life == 0 && len(db.Stats().Damage) == 0 {
					t.Errorf("damage is not reported")
				}
				q := db.Queue("up")
				if life == 1 {
					items, _, err := q.Read(0, Limit{Records: 100}, nil)
					if err != nil {
						t.Fatal(err)
					}
					var ps []Position
					for _, it := range items {
						ps = append(ps, it.Position)
					}
					settleNow(t, q, Delivered, ps...)
				}
				add(t, db, "b", life, 3, "up")
				var lost uint64
				for _, r := range db.Ledger() {
					lost += r.Damaged
				}
				if end := strings.Contains(name, "last"); !end && lost == 0 || lost > 12 { // at the new end nobody knows whose they were
					t.Errorf("life %d: %d records are counted damaged: %+v", life, lost, db.Ledger())
				}
				if err := db.Close(); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// One frame after the other is harmed, in a store that was half drained while it was
// filled, so that ends are lost as well as records. Over the next lives it opens,
// drains, and its ledger adds up.
func TestLifeAfterAnyFrame(t *testing.T) {
	o := Options{tiny: true, SegmentBytes: 64 << 10}
	base := t.TempDir()
	db := open(t, base, o)
	q := db.Queue("up")
	for i := range 60 {
		add(t, db, string(rune('a'+i%3)), i, 3, "up")
		if i%2 == 1 {
			settleNow(t, q, Delivered, Position(3*i-2), Position(3*i))
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	segments, _ := filepath.Glob(filepath.Join(base, "journal", "0*"))
	if len(segments) < 3 {
		t.Fatalf("only %d segments", len(segments))
	}
	for _, s := range segments {
		for _, off := range frames(t, s) {
			dir := copyStore(t, base)
			harm(t, filepath.Join(dir, "journal", filepath.Base(s)), off+60, []byte{0x5a, 0xa5})
			for life := range 3 {
				db, err := Open(dir, o)
				if err != nil {
					t.Fatalf("%s at %d, life %d: %v", filepath.Base(s), off, life, err)
				}
				if err := db.Verify(); err != nil {
					t.Errorf("%s at %d, life %d: %v", filepath.Base(s), off, life, err)
				}
				q := db.Queue("up")
				items, _, _ := q.Read(0, Limit{Records: 1000}, nil)
				var ps []Position
				for _, it := range items {
					ps = append(ps, it.Position)
				}
				settleNow(t, q, Delivered, ps...)
				for i := range 20 { // the harmed segment is given up meanwhile
					add(t, db, "z", i, 2, "other")
				}
				if err := db.Verify(); err != nil {
					t.Errorf("%s at %d, life %d, drained: %v", filepath.Base(s), off, life, err)
				}
				if err := db.Close(); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
}
