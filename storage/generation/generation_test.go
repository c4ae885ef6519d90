package generation

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
)

const storeID = 0x1122334455667788

func opts() Options {
	return Options{StoreID: storeID, GenerationBytes: 4 << 20}
}

func open(t testing.TB, dir string, o Options) *Set {
	t.Helper()
	s, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// ramDir is a folder for tests that do not need a disk: flushes take no time there.
func ramDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "generation-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// values are of a size each, every other one of bytes that do not compress.
func values(sizes ...int) map[string][]byte {
	r := rand.New(rand.NewPCG(1, 2))
	m := map[string][]byte{}
	for i, n := range sizes {
		v := bytes.Repeat([]byte("21.5 C, "), n/8+1)[:n]
		if i%2 == 1 {
			for j := range v {
				v[j] = byte(r.Uint32())
			}
		}
		m[fmt.Sprintf("%04d of %d", i, n)] = v
	}
	return m
}

func keys(m map[string][]byte) []string {
	var ks []string
	for k := range m {
		ks = append(ks, k)
	}
	slices.Sort(ks)
	return ks
}

func build(t testing.TB, s *Set, number uint32, content map[string][]byte) Mark {
	t.Helper()
	m, err := tryBuild(context.Background(), s, number, content)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func tryBuild(ctx context.Context, s *Set, number uint32, content map[string][]byte) (Mark, error) {
	return s.Build(ctx, number, func(put func(k, v []byte) error) ([]byte, error) {
		key, value := []byte(nil), []byte(nil)
		for _, k := range keys(content) {
			key, value = append(key[:0], k...), append(value[:0], content[k]...) // theirs again after put
			if err := put(key, value); err != nil {
				return nil, err
			}
		}
		return fmt.Appendf(nil, "directory of %d", number), nil
	})
}

func checkWhole(t testing.TB, s *Set, m Mark, content map[string][]byte) {
	t.Helper()
	got, directory, err := s.Seal(m.Number)
	if err != nil || got != m || string(directory) != fmt.Sprintf("directory of %d", m.Number) {
		t.Fatalf("Seal gives %+v, %q, %v, want %+v", got, directory, err, m)
	}
	if err := s.Verify(m); err != nil {
		t.Fatal(err)
	}
	for k, v := range content {
		got, err := s.Get(m, []byte(k))
		if err != nil || !bytes.Equal(got, v) {
			t.Fatalf("Get %s gives %d bytes, %v", k, len(got), err)
		}
	}
}

func TestWhatWasBuiltComesBack(t *testing.T) {
	big := make([]int, 1200)
	for i := range big {
		big[i] = i
	}
	big[0] = 1
	for name, sizes := range map[string][]int{
		"nothing":                               nil,
		"one":                                   {1},
		"around the threshold of the value log": {1, 2, 10, 48, 49, 50, 51, 52, 53, 54, 62, 63, 64, 65, 66, 100},
		"around a slice and a commit":           {slice - 1, slice, slice + 1, 4095, 4096, 4097, 1 << 20},
		"a megabyte each":                       {1 << 20, 1 << 20, 1<<20 + 1, 1 << 20, 1 << 20},
		"many":                                  big,
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, dir, opts())
			content := values(sizes...)
			m := build(t, s, 7, content)
			checkWhole(t, s, m, content)
			if n := s.Numbers(); !slices.Equal(n, []uint32{7}) || s.Bytes() != m.Bytes {
				t.Errorf("has %v of %d bytes, want 7 of %d", n, s.Bytes(), m.Bytes)
			}
			if _, err := s.Get(m, []byte("another")); !errors.Is(err, ErrDamaged) {
				t.Errorf("Get of a key that was not put: %v", err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = open(t, dir, opts())
			checkWhole(t, s, m, content)
			if s.Bytes() != m.Bytes {
				t.Errorf("has %d bytes, want %d", s.Bytes(), m.Bytes)
			}
			if err := s.Drop(7); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Get(m, []byte("x")); !errors.Is(err, ErrMissing) || len(s.Numbers()) > 0 || s.Bytes() > 0 {
				t.Errorf("after Drop: %v, %v, %d bytes", err, s.Numbers(), s.Bytes())
			}
			if err := s.Drop(7); err != nil {
				t.Fatal(err)
			}
		})
	}
}
