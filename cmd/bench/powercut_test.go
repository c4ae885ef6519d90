package main

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"holdfast.dev/holdfast/storage"
	"holdfast.dev/holdfast/storage/crashdisk"
)

func TestCutBody(t *testing.T) {
	for _, b := range []cutBody{
		{sender: "pump", n: 1, queues: []string{"up-0"}},
		{sender: "pump", n: 7, ttl: livesLong, queues: []string{"up-0", "local"}, size: 300},
		{sender: "pump", n: 9, queues: []string{"up-0"}, size: 9000},
	} {
		whole := b.bytes()
		got, err := parseCutBody(whole)
		if err != nil || fmt.Sprint(got) != fmt.Sprint(b) {
			t.Errorf("%+v came back as %+v, %v", b, got, err)
		}
		for _, i := range []int{0, 5, len(whole) / 2, len(whole) - 1} {
			bad := bytes.Clone(whole)
			bad[i] ^= 1
			if got, err := parseCutBody(bad); err == nil && fmt.Sprint(got) == fmt.Sprint(b) {
				t.Errorf("%+v was taken for whole with another byte %d", b, i)
			}
		}
		if _, err := parseCutBody(whole[:len(whole)-1]); err == nil {
			t.Errorf("%+v was taken for whole without its end", b)
		}
	}
}

// toldStore is a store with three records in a queue, of which the second has ended,
// and what was said of it.
func toldStore(t *testing.T) (db *storage.DB, words []string) {
	t.Helper()
	db, err := storage.Open(filepath.Join(t.TempDir(), "store"), storage.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	done := make(chan error, 1)
	await := func() {
		t.Helper()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	words = []string{"life 0", "opened"}
	for n := 1; n <= 3; n++ {
		b := cutBody{sender: "pump", n: n, queues: []string{"up-0"}, size: 50}
		r := storage.Record{Sender: "pump", Stamp: storage.SystemClock().Now(), Body: b.bytes(),
			To: []storage.Dest{{Queue: "up-0", Note: []byte("up-0")}}}
		db.Append(context.Background(), r, func(err error) { done <- err })
		await()
		words = append(words, fmt.Sprintf("offer pump %d", n), fmt.Sprintf("kept up-0 %d pump %d 0", n, n))
	}
	db.Queue("up-0").Settle([]storage.Position{2}, storage.Delivered, func(err error) { done <- err })
	await()
	words = append(words, "ending up-0 1 2", "ended up-0 1 2")
	db.Queue("up-0").Park("valve", "refused", func(err error) { done <- err })
	await()
	words = append(words, "parking up-0 valve", "parked up-0 valve")
	if err := db.Map("cut").Set(context.Background(), map[string][]byte{"k1": tokenValue("5")}); err != nil {
		t.Fatal(err)
	}
	return db, append(words, "setting k1 5", "set k1 5")
}

func judged(t *testing.T, db *storage.DB, words []string) findings {
	t.Helper()
	p := newPromise()
	for _, w := range words {
		if err := p.hear(w); err != nil {
			t.Fatal(err)
		}
	}
	f, err := p.judge(db)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// The judge must see each way in which a promise can be broken: here the store is
// right, and what was said of it is not.
func TestCutJudge(t *testing.T) {
	db, words := toldStore(t)
	if f := judged(t, db, words); !f.clean() {
		t.Fatalf("a whole store: %v", f)
	}
	for name, c := range map[string]struct {
		without, with string
		lost          bool
		want          string
	}{
		"a record is gone":              {"", "kept up-0 4 pump 4 0", true, "newest position"},
		"one in the middle is gone":     {"end", "", true, "record 2"},
		"another record in its place":   {"kept up-0 3", "kept up-0 3 pump 4 0", true, "position 3 was number 4"},
		"an end is undone":              {"", "ended up-0 1 1", false, "back after its end"},
		"what was gone is back":         {"", "life 1\nhas up-0 1 pump 1 0\nwhole up-0 3\nopened", false, "record 3"},
		"positions were given again":    {"", "whole up-0 9", true, "newest position"},
		"a record that nobody offered":  {"offer pump 3", "", false, "was not offered"},
		"a sender is not parked":        {"", "parking up-0 gate\nparked up-0 gate", false, "gate is parked: false"},
		"a sender is still parked":      {"", "unparked up-0 valve", false, "valve is parked: true"},
		"a key has an old value":        {"", "setting k1 6\nset k1 6", true, `k1 is "5"`},
		"a key is gone":                 {"", "setting k2 6\nset k2 6", true, `k2 is "-"`},
		"a key that nobody set":         {"set", "", false, "never set"},
		"an end that nobody asked for":  {"end", "kept up-0 2 pump 2 1", false, "outcome 1"},
		"an end is not in the ledger":   {"", "ending up-0 2 1\nending up-0 2 3\nended up-0 2 2", false, "outcome 2"},
		"a queue that is not there now": {"", "offer oven 1\nkept local 1 oven 1 0", true, "queue local"},
	} {
		t.Run(name, func(t *testing.T) {
			var told []string
			for _, w := range words {
				if c.without == "" || !strings.HasPrefix(w, c.without) {
					told = append(told, w)
				}
			}
			f := judged(t, db, append(told, c.with))
			lines := f.Wrong
			if c.lost {
				lines = f.Lost
			}
			if !strings.Contains(strings.Join(lines, "\n"), c.want) {
				t.Errorf("got %q, want %q among them; all: %v", lines, c.want, f)
			}
		})
	}
}

// What was asked for and not answered may be true or not.
func TestCutJudgeLeavesOpen(t *testing.T) {
	db, words := toldStore(t)
	for _, open := range []string{"ending up-0 1 1", "parking up-0 valve", "parking up-0 gate", "setting k1 6", "setting k3 7",
		"offer pump 4", "offer meter 1", "moved 3 1"} {
		if f := judged(t, db, append(words, open)); !f.clean() {
			t.Errorf("%s: %v", open, f)
		}
	}
}

func TestBadWords(t *testing.T) {
	for _, w := range []string{"lost", "kept up-0 1", "kept up-0 x pump 1 0", "offer pump x", "ending up-0 1 x"} {
		if err := newPromise().hear(w); err == nil {
			t.Errorf("%q was taken", w)
		}
	}
}

func TestCutWord(t *testing.T) {
	for _, m := range cutModels() {
		c := crashdisk.Cut{At: 12, Model: m, Seed: 34}
		if got, err := parseCutWord(cutWord(c)); err != nil || got != c {
			t.Errorf("%v came back as %v, %v", c, got, err)
		}
	}
	for _, s := range []string{"", "1:noise", "1:thunder:2", "x:noise:2", "1:noise:x"} {
		if _, err := parseCutWord(s); err == nil {
			t.Errorf("%q was taken", s)
		}
	}
}

// A control that loses nothing, or a store that loses, is a failure; and each cut
// counts once, for the worst it shows.
func TestCutSum(t *testing.T) {
	s := newCutSum()
	s.add(outcome{cut: crashdisk.Cut{Model: crashdisk.Torn}})
	s.controls = []cutRow{{name: "liar", cuts: 3, lost: 1}}
	if err := s.verdict(); err != nil {
		t.Error(err)
	}
	s.controls[0].lost = 0
	if err := s.verdict(); err == nil || !strings.Contains(err.Error(), "liar lost nothing") {
		t.Errorf("a control that loses nothing: %v", err)
	}
	s.add(outcome{findings: findings{Lost: []string{"a"}, Wrong: []string{"b"}, Shut: "c"}})
	if err := s.verdict(); err == nil || !strings.Contains(err.Error(), "1 of 2 power cuts") {
		t.Errorf("a store that loses: %v", err)
	}
	if r := s.models[crashdisk.Revert]; r.shut != 1 || r.failed() != 1 || r.example != "shut: c" {
		t.Errorf("%+v", r)
	}
}
