package generation

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// The bytes of SEAL and of a value are a promise to every later version.
func TestBytes(t *testing.T) {
	s := seal{store: storeID, number: 7, files: []file{{"MANIFEST", 28, 0x01020304}}, directory: []byte("hold")}
	const want = "48464731" + "8877665544332211" + "07000000" + "01000000" +
		"08" + "4d414e4946455354" + "1c00000000000000" + "04030201" + "04000000" + "686f6c64" + "e4117329"
	if got := hex.EncodeToString(s.encode()); got != want {
		t.Errorf("SEAL is\n%s, want\n%s", got, want)
	}
	enc, err := newEncoder()
	if err != nil {
		t.Fatal(err)
	}
	const plain = "01000000" + "09000000" + "87212b7b" + "686f6c642066617374"
	if got := hex.EncodeToString(appendValue(nil, enc, []byte("key"), []byte("hold fast"))); got != plain {
		t.Errorf("value is\n%s, want\n%s", got, plain)
	}
}

func TestSealAndValueAreTheirInverse(t *testing.T) {
	enc, err := newEncoder()
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(t *rapid.T) {
		s := seal{store: rapid.Uint64().Draw(t, "store"), number: rapid.Uint32().Draw(t, "number"), directory: rapid.SliceOf(rapid.Byte()).Draw(t, "directory")}
		for range rapid.IntRange(0, 5).Draw(t, "files") {
			s.files = append(s.files, file{rapid.StringMatching(`[A-Z0-9]{1,20}(\.sst)?`).Draw(t, "name"), rapid.Int64Range(0, 1<<40).Draw(t, "size"), rapid.Uint32().Draw(t, "sum")})
		}
		b := s.encode()
		got, err := decodeSeal(b)
		if err != nil || fmt.Sprint(*got) != fmt.Sprint(s) {
			t.Fatalf("%+v gives %+v, %v", s, got, err)
		}
		b[rapid.IntRange(0, len(b)-1).Draw(t, "at")] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
		if _, err := decodeSeal(b); !errors.Is(err, ErrDamaged) {
			t.Fatalf("a flipped bit gives %v", err)
		}
		if _, err := decodeSeal(b[:rapid.IntRange(0, len(b)-1).Draw(t, "length")]); !errors.Is(err, ErrDamaged) {
			t.Fatalf("a shorter one gives %v", err)
		}

		key, value := rapid.SliceOfN(rapid.Byte(), 1, 20).Draw(t, "key"), rapid.SliceOfN(rapid.ByteRange(0, 3), 1, 500).Draw(t, "value")
		p := appendValue([]byte("before"), enc, key, value)[len("before"):]
		if v, err := openValue(p, key); err != nil || !bytes.Equal(v, value) {
			t.Fatalf("value %x gives %x, %v", value, v, err)
		}
		if len(p) > len(value)+valueHead {
			t.Fatalf("value of %d bytes is packed as %d", len(value), len(p))
		}
		if _, err := openValue(p, append(key, 0)); !errors.Is(err, ErrDamaged) {
			t.Fatalf("of another key: %v", err)
		}
		if _, err := openValue(p[:rapid.IntRange(0, len(p)-1).Draw(t, "length")], key); !errors.Is(err, ErrDamaged) {
			t.Fatalf("a shorter value gives %v", err)
		}
		p[rapid.IntRange(0, len(p)-1).Draw(t, "at")] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
		if _, err := openValue(p, key); !errors.Is(err, ErrDamaged) {
			t.Fatalf("a flipped bit in a value gives %v", err)
		}
	})
}

// Sums that are right over content that is not must not be believed too far.
func TestSealThatDoesNotAddUp(t *testing.T) {
	s := seal{store: storeID, number: 7, files: []file{{"MANIFEST", 28, 1}, {"1.sst", 28, 1}}, directory: []byte("hold")}
	whole := s.encode()
	whole = whole[:len(whole)-4]
	for n := range len(whole) + 1 {
		b := slices.Clone(whole[:n])
		if n == len(whole) {
			b = append(b, 0)
		}
		b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
		if s, err := decodeSeal(b); !errors.Is(err, ErrDamaged) {
			t.Fatalf("cut at %d gives %+v, %v", n, s, err)
		}
	}
	for _, name := range []string{"../MANIFEST", "a/b", "", ".."} {
		s := seal{files: []file{{name, 28, 1}}}
		if _, err := decodeSeal(s.encode()); !errors.Is(err, ErrDamaged) {
			t.Errorf("file %q gives %v", name, err)
		}
	}
}

func copyFolder(t testing.TB, from, to string) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}

// checkHarmed wants right values or ErrDamaged, and Verify to find it.
func checkHarmed(t *testing.T, s *Set, m Mark, content map[string][]byte) (lost int) {
	t.Helper()
	if err := s.Verify(m); !errors.Is(err, ErrDamaged) {
		t.Errorf("Verify: %v", err)
	}
	if got, directory, err := s.Seal(m.Number); err == nil && (got != m || string(directory) != "directory of 7") || err != nil && !errors.Is(err, ErrDamaged) {
		t.Errorf("Seal gives %+v, %q, %v", got, directory, err)
	}
	for k, want := range content {
		got, err := s.Get(m, []byte(k))
		if err == nil && !bytes.Equal(got, want) || err != nil && (!errors.Is(err, ErrDamaged) || len(got) > 0) {
			t.Errorf("Get %s gives %d bytes, %v", k, len(got), err)
		}
		if err != nil {
			lost++
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	return lost
}

// One bit, and one truncation, in every file.
func TestHarmInEveryFile(t *testing.T) {
	content := values(1, 30, 2000, 2000, 30000)
	whole := ramDir(t)
	m := build(t, open(t, whole, opts()), 7, content)
	files, err := os.ReadDir(filepath.Join(whole, "g-00000007"))
	if err != nil || len(files) < 5 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		t.Run(f.Name(), func(t *testing.T) {
			t.Parallel()
			b, err := os.ReadFile(filepath.Join(whole, "g-00000007", f.Name()))
			if err != nil {
				t.Fatal(err)
			}
			r := rand.New(rand.NewPCG(3, uint64(len(f.Name()))))
			harm := [][]byte{nil, append(slices.Clone(b), 0)}
			for i := range 12 {
				flipped := slices.Clone(b)
				at := r.IntN(len(b))
				if i < 6 { // heads are where badger stumbles
					at = min(i*4, len(b)-1)
				}
				flipped[at] ^= 1 << r.IntN(8)
				harm = append(harm, flipped, b[:r.IntN(len(b))])
			}
			zeroed := slices.Clone(b)
			clear(zeroed[len(b)/2 : min(len(b), len(b)/2+4096)])
			zeroed[0] ^= 1
			harm = append(harm, zeroed)
			for i, h := range harm {
				dir := ramDir(t)
				copyFolder(t, whole, dir)
				path := filepath.Join(dir, "g-00000007", f.Name())
				if err := os.WriteFile(path, h, 0o600); err != nil {
					t.Fatal(err)
				}
				checkHarmed(t, open(t, dir, opts()), m, content)
				if t.Failed() {
					t.Fatalf("harm %d of %s, %d instead of %d bytes", i, f.Name(), len(h), len(b))
				}
			}
			dir := ramDir(t)
			copyFolder(t, whole, dir)
			if err := os.Remove(filepath.Join(dir, "g-00000007", f.Name())); err != nil {
				t.Fatal(err)
			}
			if lost := checkHarmed(t, open(t, dir, opts()), m, content); lost != len(content) {
				t.Errorf("%d of %d values lost without the file", lost, len(content))
			}
		})
	}
}

// Every byte of the value log is flipped: what badger answers is a right value or none.
func TestHarmInTheValueLogTakesOneValue(t *testing.T) {
	content := values(200, 201, 202, 203)
	dir := ramDir(t)
	m := build(t, open(t, dir, opts()), 7, content)
	logs, _ := filepath.Glob(filepath.Join(dir, "g-00000007", "*.vlog"))
	if len(logs) != 1 {
		t.Fatal(logs)
	}
	b, err := os.ReadFile(logs[0])
	if err != nil {
		t.Fatal(err)
	}
	for at := 20; at < len(b); at += 3 {
		b[at] ^= 0x81
		if err := os.WriteFile(logs[0], b, 0o600); err != nil {
			t.Fatal(err)
		}
		if lost := checkHarmed(t, open(t, dir, opts()), m, content); lost != 1 {
			t.Fatalf("byte %d of %d takes %d values", at, len(b), lost)
		}
		b[at] ^= 0x81
	}
}

func TestWhatIsNotOurs(t *testing.T) {
	content := values(1, 1000)
	for name, tt := range map[string]struct {
		change func(t *testing.T, dir string, m *Mark, o *Options)
		want   error
	}{
		"of another store":       {func(t *testing.T, dir string, m *Mark, o *Options) { o.StoreID++ }, ErrDamaged},
		"of another mark":        {func(t *testing.T, dir string, m *Mark, o *Options) { m.Sum++ }, ErrDamaged},
		"of another size":        {func(t *testing.T, dir string, m *Mark, o *Options) { m.Bytes++ }, ErrDamaged},
		"under another number":   {rename, ErrDamaged},
		"with a file more":       {another, ErrDamaged},
		"of a newer version":     {newer, ErrVersion},
		"of another kind":        {kind, ErrDamaged},
		"with a file for folder": {fileForFolder, ErrMissing},
	} {
		t.Run(name, func(t *testing.T) {
			dir, o := ramDir(t), opts()
			s := open(t, dir, o)
			m := build(t, s, 7, content)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			tt.change(t, dir, &m, &o)
			s = open(t, dir, o)
			if err := s.Verify(m); !errors.Is(err, tt.want) {
				t.Errorf("Verify: %v, want %v", err, tt.want)
			}
			if m.Number == 8 { // a Mark made from it would be believed ever after
				if got, _, err := s.Seal(8); !errors.Is(err, tt.want) {
					t.Errorf("Seal: %+v, %v, want %v", got, err, tt.want)
				}
			}
			v, err := s.Get(m, []byte(keys(content)[0]))
			if !errors.Is(err, tt.want) || len(v) > 0 {
				t.Errorf("Get: %x, %v, want %v", v, err, tt.want)
			}
			if errors.Is(tt.want, ErrVersion) && errors.Is(err, ErrDamaged) {
				t.Errorf("a newer version may not be taken for damage: %v", err)
			}
		})
	}
}

func rename(t *testing.T, dir string, m *Mark, o *Options) {
	m.Number = 8
	if err := os.Rename(filepath.Join(dir, "g-00000007"), filepath.Join(dir, "g-00000008")); err != nil {
		t.Fatal(err)
	}
}

func another(t *testing.T, dir string, m *Mark, o *Options) {
	if err := os.WriteFile(filepath.Join(dir, "g-00000007", "00009.mem"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
}

func fileForFolder(t *testing.T, dir string, m *Mark, o *Options) {
	if err := os.RemoveAll(filepath.Join(dir, "g-00000007")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "g-00000007"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

func newer(t *testing.T, dir string, m *Mark, o *Options) { reseal(t, dir, "HFG2") }
func kind(t *testing.T, dir string, m *Mark, o *Options)  { reseal(t, dir, "HFJ1") }

// reseal gives SEAL another version, and the sum that goes with it.
func reseal(t *testing.T, dir, version string) {
	path := filepath.Join(dir, "g-00000007", sealName)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	copy(b, version)
	binary.LittleEndian.PutUint32(b[len(b)-4:], crc32.Checksum(b[:len(b)-4], castagnoli))
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// A page that the disk cannot read any more is a fault in badger's memory map, which
// would kill the process: a value log that was cut while it was open is the same.
func TestFaultInAMemoryMap(t *testing.T) {
	content := values(1000, 100_001, 100_000, 100_003)
	dir := ramDir(t)
	s := open(t, dir, opts())
	m := build(t, s, 7, content)
	other := build(t, s, 8, content)
	checkWhole(t, s, m, content)
	logs, _ := filepath.Glob(filepath.Join(dir, "g-00000007", "*.vlog"))
	if err := os.Truncate(logs[0], 4096); err != nil {
		t.Fatal(err)
	}
	ks := keys(content)
	for range 3 { // it is not opened again
		if v, err := s.Get(m, []byte(ks[3])); !errors.Is(err, ErrDamaged) || len(v) > 0 {
			t.Fatalf("Get gives %d bytes, %v", len(v), err)
		}
	}
	checkWhole(t, s, other, content)
	if err := s.SetAside(7, filepath.Join(dir, "aside")); err != nil {
		t.Fatal(err)
	}
}
