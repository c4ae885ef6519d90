package journal

import (
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const segmentBytes = 64 * Page

func options() Options {
	return Options{StoreID: 0x1122334455667788, SegmentBytes: segmentBytes, MaxBytes: 8 * segmentBytes}
}

// reopen opens the journal and gives what it found.
func reopen(t *testing.T, dir string) (j *Journal, bodies []string, harm []Damage) {
	t.Helper()
	j, err := Open(dir, options(), func(f Frame) error {
		bodies = append(bodies, string(f.Body))
		return nil
	}, func(d Damage) error {
		harm = append(harm, d)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = j.Close() })
	return j, bodies, harm
}

func write(t *testing.T, j *Journal, n int, body string) Loc {
	t.Helper()
	if !j.Fits(len(body), 0) {
		if err := j.Rotate(); err != nil {
			t.Fatal(err)
		}
	}
	loc, err := j.Write(n, []byte(body))
	if err != nil {
		t.Fatal(err)
	}
	return loc
}

// The bytes of a frame are a promise to every later version.
func TestFrameBytes(t *testing.T) {
	f := appendFrame(nil, header{n: 2, first: 0x0102, store: 0x1122334455667788}, []byte("hold fast"))
	const want = "48464a31" + "09000000" + "dd79d54e" + "02000000" + "0201000000000000" + "8877665544332211" + "0000000000000000" + "686f6c642066617374"
	if got := hex.EncodeToString(f[:headerSize+9]); got != want {
		t.Errorf("frame is\n%s, want\n%s", got, want)
	}
	if len(f) != Page || strings.Trim(string(f[headerSize+9:]), "\x00") != "" {
		t.Errorf("frame of %d bytes is not padded with zeros to a page", len(f))
	}
}

func TestFramesComeBackInOrderAndAligned(t *testing.T) {
	dir := t.TempDir()
	j, _, _ := reopen(t, dir)
	var want []string
	for i := range 100 { // over several segments
		body := fmt.Sprint(i, strings.Repeat("x", i*100))
		loc := write(t, j, i%3+1, body)
		if (int(loc.Offset)-headerSize)%Page != 0 {
			t.Fatalf("frame %d begins at %d", i, int(loc.Offset)-headerSize)
		}
		got := make([]byte, len(body))
		if err := j.ReadAt(got, loc); err != nil || string(got) != body {
			t.Fatalf("read back %.10q, %v", got, err)
		}
		want = append(want, body)
	}
	next := j.Next()
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	j, got, harm := reopen(t, dir)
	if fmt.Sprint(got) != fmt.Sprint(want) || len(harm) != 0 || j.Next() != next {
		t.Errorf("%d frames came back of %d, next %d of %d, damage %v", len(got), len(want), j.Next(), next, harm)
	}
}

// A recycled segment is full of whole frames of its former life.
func TestStaleFramesAreNotTakenForNewOnes(t *testing.T) {
	dir := t.TempDir()
	j, _, _ := reopen(t, dir)
	for i := range 3 * 64 {
		write(t, j, 1, fmt.Sprint("old", i))
	}
	if err := j.DropBefore(j.Newest()); err != nil {
		t.Fatal(err)
	}
	if err := j.Rotate(); err != nil {
		t.Fatal(err)
	}
	write(t, j, 1, "new")
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	_, got, harm := reopen(t, dir)
	if got[len(got)-1] != "new" || len(harm) != 0 {
		t.Errorf("the last frame is %q, damage %v", got[len(got)-1], harm)
	}
	for _, b := range got[:len(got)-1] {
		if b < "old128" {
			t.Errorf("stale frame %q came back", b)
		}
	}
}

func TestTornTailIsCutAndNothingIsWrittenOverIt(t *testing.T) {
	dir := t.TempDir()
	j, _, _ := reopen(t, dir)
	write(t, j, 1, "whole")
	loc := write(t, j, 1, strings.Repeat("torn", 3000))
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, fmt.Sprintf("%016x", 1))
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(make([]byte, Page), int64(loc.Offset)+2*Page); err != nil {
		t.Fatal(err)
	}
	f.Close()
	before, _ := os.ReadFile(name)
	j, got, harm := reopen(t, dir)
	if fmt.Sprint(got) != "[whole]" || len(harm) != 1 || !harm[0].Tail || harm[0].Offset != Page {
		t.Errorf("frames %v, damage %+v", got, harm)
	}
	write(t, j, 1, "after")
	after, _ := os.ReadFile(name)
	if string(before) != string(after) {
		t.Error("the segment with the torn frame was written to")
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if _, got, harm = reopen(t, dir); fmt.Sprint(got) != "[whole after]" || len(harm) != 0 {
		t.Errorf("after another opening: frames %v, damage %+v", got, harm)
	}
}

func TestLostSegmentIsAGap(t *testing.T) {
	dir := t.TempDir()
	j, _, _ := reopen(t, dir)
	for i := range 3 * 64 {
		write(t, j, 1, fmt.Sprint(i))
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, fmt.Sprintf("%016x", 65))); err != nil {
		t.Fatal(err)
	}
	_, got, harm := reopen(t, dir)
	if len(got) != 128 || len(harm) != 1 || harm[0].Gap != 64 || harm[0].Tail {
		t.Errorf("%d frames, damage %+v", len(got), harm)
	}
}

func TestQuotaIsKept(t *testing.T) {
	j, _, _ := reopen(t, t.TempDir())
	var err error
	n := 0
	for ; err == nil && n < 100; n++ {
		err = j.Rotate()
		if err == nil {
			_, err = j.Write(1, []byte("x"))
		}
	}
	segments, bytes := j.Segments()
	if !errors.Is(err, ErrNoSpace) || bytes > options().MaxBytes {
		t.Errorf("after %d rotations: %d segments, %d bytes, %v", n, segments, bytes, err)
	}
	if err := j.DropBefore(j.Newest()); err != nil {
		t.Fatal(err)
	}
	if err := j.Rotate(); err != nil {
		t.Errorf("after dropping: %v", err)
	}
}

// Whoever changes the size of the segments in a configuration must lose nothing.
func TestSegmentsOfAnotherSizeAreReadWhole(t *testing.T) {
	dir := t.TempDir()
	j, _, _ := reopen(t, dir)
	var want []string
	for i := range 50 {
		want = append(want, fmt.Sprint(i))
		write(t, j, 1, fmt.Sprint(i))
	}
	for _, pages := range []int{16, 128, 8} {
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
		o := options()
		o.SegmentBytes = pages * Page
		var got []string
		var err error
		j, err = Open(dir, o, func(f Frame) error { got = append(got, string(f.Body)); return nil },
			func(d Damage) error { t.Errorf("damage %+v", d); return nil })
		if err != nil {
			t.Fatal(err)
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("segments of %d pages: %d frames, want %d", pages, len(got), len(want))
		}
		for i := range 20 {
			want = append(want, fmt.Sprint(pages, i))
			write(t, j, 1, fmt.Sprint(pages, i))
		}
	}
	if err := j.DropBefore(j.Newest()); err != nil {
		t.Fatal(err)
	}
	if n, bytes := j.Segments(); n != 1 || bytes > (128+8)*Page {
		t.Errorf("%d segments, %d bytes are left", n, bytes)
	}
	_ = j.Close()
}

// A full journal whose newest frame is torn has no fresh segment to begin on; it
// must not be shut for good.
func TestTornTailOfAFullJournal(t *testing.T) {
	dir := t.TempDir()
	j, _, _ := reopen(t, dir)
	n := 0
	for {
		if !j.Fits(1, 10*Page) {
			if err := j.Rotate(); errors.Is(err, ErrNoSpace) {
				break
			}
		}
		write(t, j, 1, fmt.Sprint(n))
		n++
	}
	loc := write(t, j, 1, strings.Repeat("torn", 3000))
	name := j.last().file.Name()
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(make([]byte, Page), int64(loc.Offset)+Page); err != nil {
		t.Fatal(err)
	}
	f.Close()
	for i := range 3 {
		j, got, harm := reopen(t, dir)
		if len(got) != n+i || (i == 0) != (len(harm) == 1) {
			t.Fatalf("opening %d: %d frames of %d, damage %+v", i, len(got), n+i, harm)
		}
		write(t, j, 1, "after")
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
