package identity

import (
	"errors"
	"fmt"
	"testing"

	"holdfast.dev/holdfast/hub"
	"holdfast.dev/holdfast/storage"
)

var _ Keeper = (*storage.Map)(nil)

// A scope of a large plant through a real store, closed and opened again.
func TestRealStore(t *testing.T) {
	dir := t.TempDir()
	open := func() *storage.DB {
		t.Helper()
		db, err := storage.Open(dir, storage.Options{Clock: clock})
		if err != nil {
			t.Fatal(err)
		}
		return db
	}
	src := newSource()
	for i := range 3000 {
		src.put(entry(hub.Identity(fmt.Sprintf("device-%04d", i)), keyA, keyB))
	}
	db := open()
	d := mustNew(t, Config{}, Deps{Source: src, Keep: db.Map("identity")})
	if _, err := d.refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	src.drop("device-0007")
	if _, err := d.refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}

	db = open()
	defer db.Close()
	d = mustNew(t, Config{}, Deps{Source: src, Keep: db.Map("identity"), Online: newLink(false)})
	if st := d.Status(); st.Known != 2999 || !st.Complete {
		t.Errorf("after the restart: %+v", st)
	}
	if try(t, d, "device-2999", keyB) != nil || try(t, d, "device-0007", keyA) != hub.ErrUnsure {
		t.Error("after the restart: want the scope as it was last")
	}
	if _, err := New(Config{}, Deps{Keep: db.Map("identity"), Key: make([]byte, KeySize)}); !errors.Is(err, ErrSealed) {
		t.Errorf("New with another key: %v, want ErrSealed", err)
	}
}
