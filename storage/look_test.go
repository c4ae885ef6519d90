package storage

import (
	"fmt"
	"path/filepath"
	"testing"
)

func TestLookSeesWhatIsParkedAndChangesNothing(t *testing.T) {
	dir := t.TempDir()
	db := open(t, dir, Options{})
	for i := range 2 {
		add(t, db, "a", i, 1, "up")
		add(t, db, "b", i, 1, "up")
	}
	q := db.Queue("up")
	q.ParkRecord(1, "strange")
	q.Park("b", "refused", nil)
	settleNow(t, q, Delivered, 2)
	segment, _ := filepath.Glob(filepath.Join(dir, "journal", "0*"))
	offs := frames(t, segment[0])
	harm(t, segment[0], offs[3]+90, []byte("XX")) // of record 3
	before := fmt.Sprint(db.Ledger())
	look := func(pick func(string, bool) bool) (out string) {
		seen, next, err := q.Look(0, Limit{Records: 10}, pick)
		if err != nil || next != 4 {
			t.Errorf("Look: next %d, %v", next, err)
		}
		for _, s := range seen {
			out += fmt.Sprintf("%d:%s:%s:%v:%v ", s.Position, s.Sender, s.Body, s.Parked, s.Err != nil)
		}
		return out
	}
	if got, want := look(nil), "1:a:a-0:true:false 3:a::false:true 4:b:b-1:true:false "; got != want {
		t.Errorf("all: %s, want %s", got, want)
	}
	if got, want := look(func(s string, parked bool) bool { return parked && s == "b" }), "4:b:b-1:true:false "; got != want {
		t.Errorf("parked of b: %s, want %s", got, want)
	}
	if after := fmt.Sprint(db.Ledger()); after != before {
		t.Errorf("the ledger has changed from\n%s to\n%s", before, after)
	}
}
