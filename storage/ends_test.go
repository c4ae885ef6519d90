package storage

import "testing"

// TestStatsCountEnds: a queue's figures are the sums of its ledger's rows, whoever the
// senders were, and stay so over a restart.
func TestStatsCountEnds(t *testing.T) {
	dir := t.TempDir()
	db := open(t, dir, Options{})
	add(t, db, "a", 0, 10, "up", "other")
	add(t, db, "b", 0, 10, "up")
	end := Position(0)
	for o, n := range map[Outcome]int{Delivered: 5, Expired: 4, Evicted: 3, Discarded: 2, Damaged: 1} {
		for range n {
			end++
			settleNow(t, db.Queue("up"), o, end)
		}
	}
	for _, when := range []string{"at once", "reopened"} {
		s := db.Queue("up").Stats()
		if s.Delivered != 5 || s.Expired != 4 || s.Evicted != 3 || s.Discarded != 2 || s.Damaged != 1 || s.Pending != 5 {
			t.Errorf("%s: %+v; want 5 delivered, 4 expired, 3 evicted, 2 discarded, 1 damaged, 5 pending", when, s)
		}
		if s := db.Queue("other").Stats(); s.Delivered+s.Expired+s.Evicted+s.Discarded+s.Damaged != 0 || s.Pending != 10 {
			t.Errorf("%s: the other queue has %+v", when, s)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		db = open(t, dir, Options{})
	}
}
