package generation

import (
	"bytes"
	"context"
	"fmt"
	"testing"
)

// telemetry is a packed value as a store puts it, about 1 MB of it.
func telemetry() []byte {
	var b bytes.Buffer
	for i := 0; b.Len() < 1<<20; i++ {
		fmt.Fprintf(&b, `{"ts":%d,"device":"pump-%d","temp":%d.%d,"ok":true}`, 1700000000000+i*977, i%40, 20+i%7, i%97)
	}
	return b.Bytes()
}

func BenchmarkBuild(b *testing.B) {
	value, o := telemetry(), opts()
	o.GenerationBytes = 16 << 20
	s := open(b, b.TempDir(), o)
	b.SetBytes(int64(15 * len(value)))
	b.ReportAllocs()
	for n := range b.N {
		m, err := s.Build(context.Background(), uint32(n), func(put func(k, v []byte) error) ([]byte, error) {
			for i := range 15 {
				if err := put([]byte{byte(i)}, value); err != nil {
					return nil, err
				}
			}
			return nil, nil
		})
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(m.Bytes)/float64(15*len(value)), "stored/put")
		if err := s.Drop(uint32(n)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkGet(b *testing.B) {
	value := telemetry()
	s := open(b, b.TempDir(), opts())
	var marks []Mark
	for n := range uint32(5) {
		marks = append(marks, build(b, s, n, map[string][]byte{"k": value}))
	}
	for name, of := range map[string]int{"open": 1, "to be opened": 5} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(value)))
			b.ReportAllocs()
			for i := range b.N {
				if _, err := s.Get(marks[i%of], []byte("k")); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
