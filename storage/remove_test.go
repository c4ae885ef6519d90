package storage

import (
	"errors"
	"testing"
)

// TestRemove: a queue goes only when it is empty, its counts stay, and one of the
// same name begins anew, also after a restart.
func TestRemove(t *testing.T) {
	dir := t.TempDir()
	db := open(t, dir, coldOptions())
	remove := func(name string) error {
		done := make(chan error, 1)
		db.Queue(name).Remove(func(err error) { done <- err })
		return <-done
	}
	addLarge(t, db, "a", 0, 300, "up", "session")
	db.Queue("session").Park("b", "refused", nil)
	if err := remove("session"); !errors.Is(err, ErrNotEmpty) {
		t.Fatalf("remove with 300 records: %v, want ErrNotEmpty", err)
	}
	var ps []Position
	for p := Position(1); p <= 300; p++ {
		ps = append(ps, p)
	}
	old := db.Queue("session")
	settleNow(t, old, Discarded, ps...)
	if err := remove("session"); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	old.Park("a", "too late", func(err error) { done <- err })
	if err := <-done; !errors.Is(err, ErrRemoved) {
		t.Fatalf("park in a queue that was removed: %v, want ErrRemoved", err)
	}
	check := func(when string) {
		t.Helper()
		var removed, session uint64
		for _, r := range db.Ledger() {
			switch r.Queue {
			case Removed:
				removed += r.Discarded
			case "session":
				session += r.Accepted
			case "":
				t.Errorf("%s: a row without a queue: %+v", when, r)
			}
		}
		if removed != 300 || session != 20 {
			t.Errorf("%s: %d discarded in removed queues and %d accepted in the new one, want 300 and 20", when, removed, session)
		}
		if got := db.Queue("session"); got.Stats().Last != 20 || len(got.Parked()) != 0 || len(bodies(t, got)) != 20 {
			t.Errorf("%s: %+v, parked %v", when, got.Stats(), got.Parked())
		}
		if got := len(bodies(t, db.Queue("up"))); got != 300 {
			t.Errorf("%s: up has %d records", when, got)
		}
	}
	addLarge(t, db, "a", 0, 20, "session")
	check("anew")
	for range 2 {
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		db = open(t, dir, coldOptions())
		check("reopened")
		addLarge(t, db, "b", 0, 200, "other")
	}
}
