package storage

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"holdfast.dev/holdfast/storage/journal"
)

// frameContent is what one frame holds: bodies of messages and keys of maps.
type frameContent struct {
	file         string
	off, size    int
	records      []int // where they begin in the frame
	bodies, keys map[string]bool
}

func contents(t *testing.T, dir string) (all []frameContent) {
	t.Helper()
	names, _ := filepath.Glob(filepath.Join(dir, "journal", "0*"))
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, off := range frames(t, name) {
			c := frameContent{file: filepath.Base(name), off: off, size: 40, bodies: map[string]bool{}, keys: map[string]bool{}}
			n := int(b[off+4]) | int(b[off+5])<<8 | int(b[off+6])<<16
			c.size += n
			_ = records(b[off+40:off+40+n], func(k kind, p []byte, at int) error {
				c.records = append(c.records, 40+at)
				switch k {
				case kindMessage:
					m, err := parseMessage(p)
					if err != nil {
						t.Fatal(err)
					}
					c.bodies[first(m.body)] = true
				case kindSet:
					in := &reader{b: p}
					c.keys[in.change().Key] = true
				}
				return nil
			})
			all = append(all, c)
		}
	}
	return all
}

// pictured fills a store so that it has several segments, each with a picture of
// several frames at its head, that are all live.
func pictured(t *testing.T, o Options) (dir string) {
	t.Helper()
	dir = t.TempDir()
	db := open(t, dir, o)
	for i := range 50 {
		key := fmt.Sprintf("key-%02d", i)
		if err := db.Map("m").Set(context.Background(), map[string][]byte{key: []byte(strings.Repeat(key, 35))}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 30 {
		add(t, db, "a", i, 1, "up", "local")
		if i%7 == 3 {
			settleNow(t, db.Queue("up"), Delivered, Position(i-1))
			db.Queue("up").ParkRecord(Position(i), "strange")
		}
		if i == 12 {
			db.Queue("local").Park("a", "refused", nil)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}

// Whatever frame is harmed, one of a picture too, the loss is at most what is in it.
func TestDamageToPictures(t *testing.T) {
	o := Options{SegmentBytes: 128 << 10, tiny: true, MaxBytes: 4 << 20}
	dir := pictured(t, o)
	all := contents(t, dir)
	if last := all[len(all)-1]; last.file == all[0].file {
		t.Fatalf("all %d frames are in one segment", len(all))
	}
	for i, c := range all {
		hurt := copyStore(t, dir)
		harm(t, filepath.Join(hurt, "journal", c.file), c.off, make([]byte, journal.Page))
		where := fmt.Sprintf("frame %d, at %d of %s", i, c.off, c.file)
		for range 3 {
			db, err := Open(hurt, o)
			if err != nil {
				t.Fatalf("%s: %v", where, err)
			}
			if err := db.Verify(); err != nil {
				t.Errorf("%s: %v", where, err)
			}
			got := map[string]bool{}
			for p := Position(1); p <= 30; p++ { // parked or not
				db.mu.Lock()
				_, open := db.queue("local").holds(p)
				db.mu.Unlock()
				if !open {
					continue
				}
				item, err := db.Queue("local").peek(p)
				if err != nil {
					t.Fatalf("%s: %v", where, err)
				}
				got[string(item.Body)] = true
			}
			for n := range 30 {
				if b := fmt.Sprintf("a-%d", n); !got[b] && !c.bodies[b] {
					t.Errorf("%s: record %s is lost", where, b)
				}
			}
			for n := range 50 {
				key := fmt.Sprintf("key-%02d", n)
				if v, _ := db.Map("m").Get(key); string(v) != strings.Repeat(key, 35) && !c.keys[key] {
					t.Errorf("%s: map has %s = %q", where, key, v)
				}
			}
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if t.Failed() {
			return
		}
	}
	t.Logf("%d frames harmed", len(all))
}
