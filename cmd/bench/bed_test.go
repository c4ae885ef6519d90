package main

import (
	"errors"
	"testing"

	"holdfast.dev/holdfast/storage/crashdisk"
)

// needBed gives a disk that counts, or skips.
func needBed(t *testing.T, mb int64) *bed {
	t.Helper()
	b, err := countingBed(t.TempDir(), "test", mb<<20)
	if errors.Is(err, crashdisk.ErrMissing) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.end(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// TestReferenceCountsOne: what everything is held against must itself be as good as
// it is said to be.
func TestReferenceCountsOne(t *testing.T) {
	b := needBed(t, 128)
	r, err := openRing(b.room("ring"), 1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	s := newSource(bodyBytes)
	got, err := b.counted(func() error {
		for range 50 {
			if err := r.keep(s.group(groupSize)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if got.Flushes < 50 || got.Flushes > 53 {
		t.Errorf("%d flushes of 50 commits", got.Flushes)
	}
	if want := uint64(50 * 5 * pageBytes); got.Bytes < want || got.Bytes > want*6/5+100<<10 {
		t.Errorf("%d bytes were written, want %d and a little", got.Bytes, want)
	}
}
