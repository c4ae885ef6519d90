package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"holdfast.dev/holdfast/storage"
)

func TestStoreMark(t *testing.T) {
	dir := t.TempDir()
	m := storeMark{file: filepath.Join(dir, "queue.id"), folder: filepath.Join(dir, "queue")}
	open := func() error {
		if err := m.expect(); err != nil {
			return err
		}
		db, err := storage.Open(m.folder, storage.Options{SegmentBytes: 1 << 20})
		if err != nil {
			return err
		}
		defer db.Close()
		return m.keep(db.ID())
	}
	for range 2 {
		if err := open(); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Rename(m.folder, m.folder+".old"); err != nil {
		t.Fatal(err)
	}
	err := open()
	if err == nil || !strings.Contains(hintOf(err), m.file) {
		t.Errorf("a store that is gone: %v (%s)", err, hintOf(err))
	}
	if _, err := os.Stat(m.folder); err == nil {
		t.Error("a new one was made in its place")
	}
	other, err := storage.Open(m.folder, storage.Options{SegmentBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	other.Close()
	if err := open(); err == nil || !strings.Contains(err.Error(), "another one") {
		t.Errorf("another store: %v", err)
	}
	if err := os.Remove(m.file); err != nil { // somebody has decided
		t.Fatal(err)
	}
	if err := open(); err != nil {
		t.Error(err)
	}
}
