package generation

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// tmpfs mounts a RAM disk of so many MiB.
func tmpfs(t *testing.T, mib int) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root may mount a tmpfs")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%dm", mib)); err != nil {
		t.Skipf("mount a tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func resize(t *testing.T, dir string, mib int) {
	t.Helper()
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_REMOUNT, fmt.Sprintf("size=%dm", mib)); err != nil {
		t.Fatal(err)
	}
}

func left(t *testing.T, dir string) {
	t.Helper()
	if left, _ := filepath.Glob(dir + "/*"); len(left) > 0 {
		t.Errorf("left in %s: %v", dir, left)
	}
}

func incompressible(n int) []byte {
	return values(1, n)[fmt.Sprintf("0001 of %d", n)]
}

// The disk fills while the copy is written, and has room again.
func TestDiskTooSmallForTheCopy(t *testing.T) {
	dir := tmpfs(t, 1)
	o := opts()
	o.Scratch = t.TempDir()
	s := open(t, dir, o)
	content := map[string][]byte{"a": incompressible(600_000), "b": incompressible(600_001)}
	for range 2 {
		if _, err := tryBuild(context.Background(), s, 7, content); !errors.Is(err, ErrNoSpace) {
			t.Fatalf("on a disk of 1 MiB: %v", err)
		}
		left(t, dir)
		left(t, o.Scratch)
	}
	resize(t, dir, 4)
	checkWhole(t, s, build(t, s, 7, content), content)
}

// Scratch is looked at before badger maps a file in it: a write there with no room
// kills the process.
func TestScratchTooSmall(t *testing.T) {
	content := map[string][]byte{"a": incompressible(600_000)}
	o := opts()
	o.Scratch = tmpfs(t, 15)

	small := tmpfs(t, 19) // four generations and slack are 20
	s := open(t, small, o)
	if _, err := tryBuild(context.Background(), s, 7, content); !errors.Is(err, ErrNoSpace) {
		t.Fatalf("with no room in scratch nor beside: %v", err)
	}
	left(t, small)
	left(t, o.Scratch)
	resize(t, small, 20)
	checkWhole(t, s, build(t, s, 7, content), content) // beside
	if err := s.Drop(7); err != nil {
		t.Fatal(err)
	}
	left(t, small)
	resize(t, small, 2)
	resize(t, o.Scratch, 16) // three generations and slack
	checkWhole(t, s, build(t, s, 7, content), content)
	left(t, o.Scratch)
}

// Others fill the disk that scratch is on while a generation is built.
func TestScratchFillsMeanwhile(t *testing.T) {
	o := opts()
	o.Scratch = tmpfs(t, 17)
	dir := t.TempDir()
	s := open(t, dir, o)
	greedy := filepath.Join(o.Scratch, "greedy")
	value := incompressible(600_000)
	_, err := s.Build(context.Background(), 7, func(put func(k, v []byte) error) ([]byte, error) {
		for i := range 3000 { // a table of some size
			if err := put(fmt.Appendf(nil, "%08d", i), value[:50]); err != nil {
				return nil, err
			}
		}
		for i := range 5 {
			if i == 2 {
				_ = os.WriteFile(greedy, make([]byte, 17<<20), 0o600) // as much as there is
			}
			if err := put([]byte{byte(i)}, value); err != nil {
				return nil, err
			}
		}
		return nil, nil
	})
	if !errors.Is(err, ErrNoSpace) {
		t.Fatal(err)
	}
	if err := os.Remove(greedy); err != nil {
		t.Fatal(err)
	}
	left(t, dir)
	left(t, o.Scratch)
	content := map[string][]byte{"a": value}
	checkWhole(t, s, build(t, s, 7, content), content)
}

// As much as may be put, in the smallest and the largest pieces, fits into the room
// that is asked for.
func TestFullestGenerationFits(t *testing.T) {
	for name, size := range map[string]int{"in tables": 30, "just in the value log": 60, "a megabyte": 1 << 20} {
		t.Run(name, func(t *testing.T) {
			o := opts()
			o.GenerationBytes = 1 << 20
			if size > 1<<18 {
				o.GenerationBytes = 4 << 20
			}
			o.Scratch = tmpfs(t, int(3*o.GenerationBytes+slack)>>20)
			s := open(t, t.TempDir(), o)
			value := incompressible(size)
			n := 0
			fill := func(most int) func(put func(k, v []byte) error) ([]byte, error) {
				return func(put func(k, v []byte) error) ([]byte, error) {
					for n = 0; n < most; n++ {
						if err := put(fmt.Appendf(nil, "%d", n), value); err != nil {
							return nil, err
						}
					}
					return nil, nil
				}
			}
			if _, err := s.Build(context.Background(), 1, fill(1<<30)); err == nil || errors.Is(err, ErrNoSpace) {
				t.Fatalf("after %d: %v", n, err)
			}
			m, err := s.Build(context.Background(), 1, fill(n))
			if err != nil {
				t.Fatalf("with %d: %v", n, err)
			}
			for _, k := range []int{0, n / 2, n - 1} {
				if v, err := s.Get(m, fmt.Appendf(nil, "%d", k)); err != nil || string(v) != string(value) {
					t.Errorf("Get %d of %d: %d bytes, %v", k, n, len(v), err)
				}
			}
			t.Logf("%d values in %d bytes", n, m.Bytes)
		})
	}
}
