package crashdisk

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// say makes a mark.
func say(t *testing.T, d *Disk, text string) {
	t.Helper()
	f, err := os.OpenFile(d.Marks(), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
}

// direct writes one page past the cache, so that it has reached the device when it
// returns, and is not flushed.
func direct(t *testing.T, path string, page int64, with byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|unix.O_DIRECT, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m, err := unix.Mmap(-1, 0, block, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE) // aligned
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(m)
	copy(m, bytes.Repeat([]byte{with}, block))
	if _, err := f.WriteAt(m, page*block); err != nil {
		t.Fatal(err)
	}
}

func flush(t *testing.T, path string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Fdatasync(int(f.Fd())); err != nil {
		t.Fatal(err)
	}
}

// story records one page that is written and flushed, and one that is only written.
func story(t *testing.T) (d *Disk, tape *Tape) {
	t.Helper()
	d = opened(t, Options{Bytes: 16 << 20})
	f := steady(t, d, 8)
	path := f.Name()
	f.Close() // or the disk cannot be unmounted
	if err := d.Record(); err != nil {
		t.Fatal(err)
	}
	direct(t, path, 0, 'a')
	flush(t, path)
	say(t, d, "a is flushed")
	direct(t, path, 1, 'b')
	direct(t, path, 2, 'c')
	tape, err := d.Eject()
	if err != nil {
		t.Fatal(err)
	}
	return d, tape
}

// landed gives what a cut leaves of the story's file.
func landed(t *testing.T, d *Disk, tape *Tape, c Cut) []byte {
	t.Helper()
	if err := d.Lay(tape, c); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Mount(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(d.Dir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// page says what a page of the file is: one letter, "mixed" sectors, or "noise".
func page(b []byte, n int, old, written byte) string {
	mixed := 0
	for s := n * block; s < (n+1)*block; s += sector {
		switch {
		case bytes.Count(b[s:s+sector], []byte{old}) == sector:
		case bytes.Count(b[s:s+sector], []byte{written}) == sector:
			mixed++
		default:
			return "noise"
		}
	}
	switch mixed {
	case 0:
		return "old"
	case block / sector:
		return "new"
	}
	return "mixed"
}

// What was flushed is there after each cut behind the flush, whatever the model.
// What was not is old in the one model, and anything in the two others.
func TestModels(t *testing.T) {
	d, tape := story(t)
	marks := tape.Marks()
	if len(marks) != 1 || string(marks[0].Text) != "a is flushed" {
		t.Fatalf("marks %v", marks)
	}
	may := map[Model]map[string]int{
		Revert: {"old": 0},
		Torn:   {"old": 0, "new": 0, "mixed": 0},
		Noise:  {"old": 0, "new": 0, "noise": 0},
	}
	for m, seen := range may {
		for seed := range uint64(12) {
			b := landed(t, d, tape, Cut{tape.Len(), m, seed})
			if is := page(b, 0, 0, 'a'); is != "new" {
				t.Errorf("%v, seed %d: the page that was flushed is %s", m, seed, is)
			}
			for n, with := range map[int]byte{1: 'b', 2: 'c'} {
				is := page(b, n, 0, with)
				if _, ok := seen[is]; !ok {
					t.Errorf("%v, seed %d: page %d is %s", m, seed, n, is)
				}
				seen[is]++
			}
			if is := page(b, 3, 0, 1); is != "old" {
				t.Errorf("%v, seed %d: a page that was not written is %s", m, seed, is)
			}
		}
		for is, n := range seen {
			if n == 0 {
				t.Errorf("%v: no page was ever %s", m, is)
			}
		}
	}
}

// A cut just before a flush completes takes what the flush was for.
func TestCutBeforeFlush(t *testing.T) {
	d, tape := story(t)
	if n := tape.AtStake(tape.Len()); n != 2*block {
		t.Errorf("%d bytes are at stake at the end, two pages were written", n)
	}
	mark, at := tape.Marks()[0].At, -1
	for _, f := range tape.Flushes() {
		if f < mark {
			at = f // the last one before the mark
		}
	}
	for cut, want := range map[int]string{at: "old", at + 1: "new", mark: "new"} {
		if is := page(landed(t, d, tape, Cut{At: cut}), 0, 0, 'a'); is != want {
			t.Errorf("cut after %d of %d events, the flush is number %d: page is %s, want %s", cut, tape.Len(), at, is, want)
		}
	}
}

// A new file needs fsync of itself and its folder; on a disk that lies even that
// is for nothing.
func TestNewFiles(t *testing.T) {
	d := opened(t, Options{Bytes: 16 << 20})
	if err := d.Record(); err != nil {
		t.Fatal(err)
	}
	for _, sync := range []bool{true, false} {
		f, err := os.Create(filepath.Join(d.Dir(), fmt.Sprintf("synced %v", sync)))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteString("x"); err != nil {
			t.Fatal(err)
		}
		if sync {
			flush(t, f.Name())
			flush(t, d.Dir())
		}
		f.Close()
	}
	tape, err := d.Eject()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		tape *Tape
		keep bool
	}{{tape, true}, {tape.Lie(1<<30, 1), false}} {
		if err := d.Lay(c.tape, Cut{At: tape.Len()}); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Mount(); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(filepath.Join(d.Dir(), "synced true")); (err == nil) != c.keep {
			t.Errorf("a file that was synced, to be kept: %v: %v", c.keep, err)
		}
		if _, err := os.Stat(filepath.Join(d.Dir(), "synced false")); err == nil {
			t.Error("a file that was not synced is there")
		}
	}
}

// One seed is one outcome, however the disk came to it.
func TestSeed(t *testing.T) {
	d, tape := story(t)
	image := func(seed uint64) []byte {
		path := filepath.Join(t.TempDir(), "image")
		if err := d.Lay(tape, Cut{tape.Len(), Noise, seed}); err != nil {
			t.Fatal(err)
		}
		if err := d.Save(path); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	one := image(1)
	shelf := filepath.Join(t.TempDir(), "tape")
	if err := tape.Save(shelf); err != nil {
		t.Fatal(err)
	}
	mine, err := LoadTape(shelf)
	if err != nil {
		t.Fatal(err)
	}
	landed(t, d, tape, Cut{At: 0})
	if !bytes.Equal(one, image(1)) {
		t.Error("one seed, two outcomes")
	}
	if tape = mine; !bytes.Equal(one, image(1)) {
		t.Error("a tape from the shelf has another outcome")
	}
	if bytes.Equal(one, image(2)) {
		t.Error("two seeds, one outcome")
	}
}

// A disk whose first superblock was torn is mended from the second.
func TestMend(t *testing.T) {
	d := opened(t, Options{Bytes: 64 << 20}) // more than one group
	f := steady(t, d, 1)
	f.Close()
	if err := d.Unmount(); err != nil {
		t.Fatal(err)
	}
	if !d.p.write(make([]byte, 2048), 0) {
		t.Fatal("write the superblock")
	}
	m, err := d.Mount()
	if err != nil || !m.Mended || m.Found != 0 {
		t.Errorf("%+v, %v", m, err)
	}
	if _, err := os.Stat(filepath.Join(d.Dir(), "file")); err != nil {
		t.Error(err)
	}
}

func TestBadCuts(t *testing.T) {
	d, tape := story(t)
	for _, c := range []Cut{{At: -1}, {At: tape.Len() + 1}, {Model: Models}} {
		if err := d.Lay(tape, c); err == nil {
			t.Errorf("%+v was taken", c)
		}
	}
	if _, err := d.Eject(); err == nil {
		t.Error("a tape was given that nobody recorded")
	}
}

// A tape that was cut short or changed is not taken for one.
func TestBadTape(t *testing.T) {
	tape := &Tape{base: make([]byte, 4*block)}
	tape.base[block] = 1
	tape.write(2*block, []byte("x"))
	tape.flush()
	tape.mark([]byte("y"))
	path := filepath.Join(t.TempDir(), "tape")
	if err := tape.Save(path); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := LoadTape(path); err != nil || !bytes.Equal(got.base, tape.base) || fmt.Sprint(got.events[0]) != fmt.Sprint(tape.events[0]) {
		t.Fatalf("%v, %v", got, err)
	}
	for n := range whole {
		if n > 100 && n < len(whole)-100 && n%97 > 0 {
			continue // the middle is one block
		}
		for _, bad := range [][]byte{whole[:n], flipped(whole, n)} {
			if err := os.WriteFile(path, bad, 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := LoadTape(path); err == nil {
				t.Errorf("byte %d of %d: %d bytes were taken for a tape", n, len(whole), len(bad))
			}
		}
	}
}

func flipped(b []byte, n int) []byte {
	b = bytes.Clone(b)
	b[n] ^= 0x80
	return b
}
