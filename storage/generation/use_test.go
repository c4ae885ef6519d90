package generation

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func (s *Set) opened() (numbers []uint32, count int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for n, e := range s.have {
		if e.reader != nil {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	return numbers, s.open
}

func TestFourAreOpen(t *testing.T) {
	s := open(t, ramDir(t), opts())
	content := values(1, 1000)
	marks := map[uint32]Mark{}
	for n := range uint32(6) {
		marks[n] = build(t, s, n, content)
	}
	key := []byte(keys(content)[0])
	for _, tt := range []struct {
		get  uint32
		want []uint32
	}{
		{0, []uint32{0}}, {1, []uint32{0, 1}}, {2, []uint32{0, 1, 2}}, {3, []uint32{0, 1, 2, 3}},
		{0, []uint32{0, 1, 2, 3}}, {4, []uint32{0, 2, 3, 4}}, {0, []uint32{0, 2, 3, 4}}, {1, []uint32{0, 1, 3, 4}}, {5, []uint32{0, 1, 4, 5}},
	} {
		if _, err := s.Get(marks[tt.get], key); err != nil {
			t.Fatal(err)
		}
		if got, count := s.opened(); !slices.Equal(got, tt.want) || count != len(tt.want) {
			t.Fatalf("after %d: open are %v, counted %d, want %v", tt.get, got, count, tt.want)
		}
	}
	if err := s.Drop(4); err != nil {
		t.Fatal(err)
	}
	if got, count := s.opened(); !slices.Equal(got, []uint32{0, 1, 5}) || count != 3 {
		t.Errorf("after Drop of 4: open are %v, counted %d", got, count)
	}
	wrong := marks[0]
	wrong.Sum++
	if _, err := s.Get(wrong, key); !errors.Is(err, ErrDamaged) {
		t.Errorf("Get with another mark from one that is open: %v", err)
	}
}

// Readers of more generations than may be open, builds and drops at once.
func TestAllAtOnce(t *testing.T) {
	s := open(t, ramDir(t), opts())
	content := values(1, 100, 3000, 3001)
	const lasting = 6
	marks := make([]Mark, lasting)
	for n := range uint32(lasting) {
		marks[n] = build(t, s, n, content)
	}
	ks := keys(content)
	var fleeting atomic.Pointer[Mark]
	get := func(m Mark, i int, missing bool) {
		k := ks[i%len(ks)]
		v, err := s.Get(m, []byte(k))
		if missing && errors.Is(err, ErrMissing) {
			return
		}
		if err != nil || !bytes.Equal(v, content[k]) {
			t.Errorf("Get from %d gives %d bytes, %v", m.Number, len(v), err)
		}
		if _, count := s.opened(); count > maxOpen {
			t.Errorf("%d are open", count)
		}
	}
	stop := make(chan struct{})
	var readers, writer sync.WaitGroup
	for r := range 6 {
		readers.Go(func() {
			for i := r; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				get(marks[(i*(r+1))%lasting], i, false)
				if m := fleeting.Load(); m != nil {
					get(*m, i, true)
					if err := s.Verify(*m); err != nil && !errors.Is(err, ErrMissing) {
						t.Error(err)
					}
				}
				s.Bytes()
			}
		})
	}
	writer.Go(func() {
		for n := range uint32(10) {
			m := build(t, s, 100+n, content)
			fleeting.Store(&m)
			get(m, int(n), false)
			if err := s.Drop(m.Number); err != nil {
				t.Error(err)
			}
		}
	})
	writer.Wait()
	close(stop)
	readers.Wait()
	if n := s.Numbers(); len(n) != lasting {
		t.Errorf("has %v", n)
	}
}

func TestNoGoroutineIsLeft(t *testing.T) {
	before := runtime.NumGoroutine()
	s, err := Open(ramDir(t), opts())
	if err != nil {
		t.Fatal(err)
	}
	content := values(1, 1000)
	for n := range uint32(6) {
		checkWhole(t, s, build(t, s, n, content), content)
	}
	if _, err := s.Build(context.Background(), 9, func(func(k, v []byte) error) ([]byte, error) {
		return nil, errInjected
	}); !errors.Is(err, errInjected) {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(Mark{Number: 1}, []byte("k")); !errors.Is(err, ErrClosed) {
		t.Errorf("Get after Close: %v", err)
	}
	if _, err := tryBuild(context.Background(), s, 10, content); !errors.Is(err, ErrClosed) {
		t.Errorf("Build after Close: %v", err)
	}
	if err := s.Drop(1); !errors.Is(err, ErrClosed) {
		t.Errorf("Drop after Close: %v", err)
	}
	// badger's end a moment after it was closed.
	deadline := time.Now().Add(5 * time.Second)
	for runtime.NumGoroutine() > before {
		if time.Now().After(deadline) {
			b := make([]byte, 1<<16)
			t.Fatalf("%d goroutines before, %d after\n%s", before, runtime.NumGoroutine(), b[:runtime.Stack(b, true)])
		}
		runtime.Gosched()
	}
}

// Nothing compacts while one is built: badger by itself would wait for ever at the
// fifteenth table.
func TestMoreTablesThanBadgerWaitsAt(t *testing.T) {
	o := opts()
	o.GenerationBytes = 20 << 20
	s := open(t, ramDir(t), o)
	const n = 70_000
	key := func(i int) []byte { return fmt.Appendf(nil, "%0250d", i) }
	value := values(1, 30)["0001 of 30"]
	m, err := s.Build(context.Background(), 7, func(put func(k, v []byte) error) ([]byte, error) {
		for i := range n {
			if err := put(key(i), value); err != nil {
				return nil, err
			}
		}
		return nil, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if tables, _ := filepath.Glob(filepath.Join(s.path(7), "*.sst")); len(tables) < 20 { // some more wait in memory
		t.Fatalf("only %d tables", len(tables))
	}
	for i := 0; i < n; i += 1000 {
		if v, err := s.Get(m, key(i)); err != nil || !bytes.Equal(v, value) {
			t.Fatalf("Get %d gives %d bytes, %v", i, len(v), err)
		}
	}
}

func TestWhatCannotBePut(t *testing.T) {
	s := open(t, ramDir(t), opts())
	ctx, cancel := context.WithCancel(context.Background())
	for name, tt := range map[string]struct {
		fill func(put func(k, v []byte) error) ([]byte, error)
		want string
	}{
		"no value":        {func(put func(k, v []byte) error) ([]byte, error) { return nil, put([]byte("k"), nil) }, "at least 1"},
		"no key":          {func(put func(k, v []byte) error) ([]byte, error) { return nil, put(nil, []byte("v")) }, "at least 1"},
		"long key":        {func(put func(k, v []byte) error) ([]byte, error) { return nil, put(make([]byte, 257), []byte("v")) }, "at least 1"},
		"error forgotten": {func(put func(k, v []byte) error) ([]byte, error) { _ = put(nil, nil); return nil, nil }, "at least 1"},
		"badger's own key": {func(put func(k, v []byte) error) ([]byte, error) {
			return nil, put([]byte("!badger!k"), []byte("v"))
		}, "put key"},
		"too much": {func(put func(k, v []byte) error) ([]byte, error) {
			big := values(1, 1<<20)["0001 of 1048576"]
			for i := range 6 {
				if err := put(fmt.Appendf(nil, "%d", i), big); err != nil {
					return nil, err
				}
			}
			return nil, nil
		}, "full"},
		"a value that is too large": {func(put func(k, v []byte) error) ([]byte, error) {
			return nil, put([]byte("k"), make([]byte, 32<<20))
		}, "larger"},
		"cancelled": {func(put func(k, v []byte) error) ([]byte, error) {
			cancel()
			if err := put([]byte("k"), []byte("v")); err != nil {
				return nil, err
			}
			return nil, errors.New("put went on")
		}, "context canceled"},
		"directory too large": {func(put func(k, v []byte) error) ([]byte, error) { return make([]byte, sealLimit), nil }, "directory"},
	} {
		t.Run(name, func(t *testing.T) {
			c := context.Background()
			if name == "cancelled" {
				c = ctx
			}
			if _, err := s.Build(c, 7, tt.fill); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("gives %v, want %q", err, tt.want)
			}
			nothingInScratch(t, s)
			if left, _ := filepath.Glob(s.dir + "/*"); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
		})
	}
	func() {
		defer func() {
			if recover() == nil {
				t.Error("a panic of fill is not seen")
			}
		}()
		_, _ = s.Build(context.Background(), 7, func(func(k, v []byte) error) ([]byte, error) { panic("fill") })
	}()
	nothingInScratch(t, s)
	content := values(1)
	checkWhole(t, s, build(t, s, 7, content), content)
	if _, err := tryBuild(context.Background(), s, 7, content); err == nil {
		t.Error("one was built over another")
	}
	if _, err := Open(s.dir, Options{GenerationBytes: 1}); err == nil {
		t.Error("generations of a byte")
	}
}

// What an earlier process did not finish goes; what is not a generation stays.
func TestOpenCleansUp(t *testing.T) {
	dir, ram := ramDir(t), ramDir(t)
	o := opts()
	o.Scratch = ram
	content := values(1, 1000)
	s := open(t, dir, o)
	m := build(t, s, 7, content)
	if left, _ := filepath.Glob(ram + "/*"); len(left) > 0 {
		t.Errorf("left in scratch: %v", left)
	}
	stay := []string{"journal", "s-00000001.tmp", "g-1.tmp", "g-x", "g-00000007"}
	for _, name := range append(stay, "g-00000009.tmp", "scratch") {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name, "left"), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(filepath.Join(dir, "g-00000007", "left")); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{filepath.Join(ram, fmt.Sprintf("%016x", storeID)), filepath.Join(ram, "of another")} {
		if err := os.Mkdir(p, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	s = open(t, dir, o)
	checkWhole(t, s, m, content)
	var names []string
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		names = append(names, f.Name())
	}
	slices.Sort(stay)
	if !slices.Equal(names, stay) {
		t.Errorf("there are %v, want %v", names, stay)
	}
	if left, _ := filepath.Glob(ram + "/*"); !slices.Equal(left, []string{filepath.Join(ram, "of another")}) {
		t.Errorf("left in scratch: %v", left)
	}
}
