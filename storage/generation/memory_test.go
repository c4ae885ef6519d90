//go:build !race

package generation

import (
	"bytes"
	"context"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
)

// Memory is what a small gateway has least of.
func TestMemory(t *testing.T) {
	o := opts()
	o.GenerationBytes = 16 << 20
	s := open(t, t.TempDir(), o)
	anonymous := func() int64 {
		b, err := os.ReadFile("/proc/self/status")
		if err != nil {
			t.Skip(err)
		}
		_, after, _ := strings.Cut(string(b), "RssAnon:")
		n, err := strconv.ParseInt(strings.Fields(after)[0], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return n << 10
	}
	value := values(1, 1<<20)["0001 of 1048576"]
	debug.FreeOSMemory()
	before, during := anonymous(), int64(0)
	var m Mark
	var err error
	for n := range uint32(3) {
		m, err = s.Build(context.Background(), n, func(put func(k, v []byte) error) ([]byte, error) {
			for i := range 15 {
				value[0] = byte(i)
				if err := put([]byte{byte(i)}, value); err != nil {
					return nil, err
				}
				during = max(during, anonymous()-before) // with what waits for the collector
			}
			return nil, nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	debug.FreeOSMemory()
	built := anonymous() - before
	for i := range 15 {
		if v, err := s.Get(m, []byte{byte(i)}); err != nil || v[0] != byte(i) || !bytes.Equal(v[1:], value[1:]) {
			t.Fatalf("Get %d gives %d bytes, %v", i, len(v), err)
		}
	}
	debug.FreeOSMemory()
	read := anonymous() - before
	t.Logf("anonymous memory: %d MB while building, %d MB after three builds, %d MB after reading; %d bytes on disk", during>>20, built>>20, read>>20, m.Bytes)
	if during > 32<<20 || built > 8<<20 || read > 16<<20 {
		t.Error("that is too much")
	}
}
