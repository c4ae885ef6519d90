package storage

import (
	"context"
	"fmt"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
)

// backlog makes a store with n pending records of 20 senders in one queue; the
// first sender is parked.
func backlog(b *testing.B, n int) (dir string) {
	b.Helper()
	dir = filepath.Join(b.TempDir(), "store")
	db, err := Open(dir, Options{})
	if err != nil {
		b.Fatal(err)
	}
	q := db.Queue("up")
	q.Park("sender-0", "refused", nil)
	var wg sync.WaitGroup
	wg.Add(n)
	body := make([]byte, 256)
	for i := range n {
		r := Record{Sender: fmt.Sprint("sender-", i%20), Body: body, To: []Dest{{Queue: "up"}}}
		db.Append(context.Background(), r, func(err error) {
			if err != nil {
				b.Error(err)
			}
			wg.Done()
		})
	}
	wg.Wait()
	if err := db.Close(); err != nil {
		b.Fatal(err)
	}
	return dir
}

// BenchmarkBacklog gives, for two sizes of backlog, what opening costs, and what a
// record costs that is read and settled while the rest waits behind it.
func BenchmarkBacklog(b *testing.B) {
	for _, n := range []int{100_000, 1_000_000} {
		dir := backlog(b, n)
		b.Run(fmt.Sprintf("open/%d", n), func(b *testing.B) {
			for b.Loop() {
				db, err := Open(dir, Options{})
				if err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				var m runtime.MemStats
				runtime.GC()
				runtime.ReadMemStats(&m)
				b.ReportMetric(float64(m.HeapAlloc)/float64(n), "heap-B/record")
				_ = db.Close()
				b.StartTimer()
			}
		})
		db, err := Open(dir, Options{})
		if err != nil {
			b.Fatal(err)
		}
		q := db.Queue("up")
		b.Run(fmt.Sprintf("stats/%d", n), func(b *testing.B) {
			for b.Loop() {
				q.Stats()
			}
		})
		b.Run(fmt.Sprintf("drain/%d", n), func(b *testing.B) {
			// All but the parked ones, as a forwarder does: they stay at the front.
			read := 0
			for b.Loop() {
				for after := Position(0); ; {
					items, next, err := q.Read(after, Limit{Records: 64}, nil)
					if err != nil {
						b.Fatal(err)
					}
					if next == after {
						break
					}
					var ps []Position
					for _, it := range items {
						ps = append(ps, it.Position)
					}
					q.Settle(ps, Delivered, nil)
					read += len(items)
					after = next
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(max(1, read)), "ns/record")
		})
		_ = db.Close()
	}
}

// BenchmarkQueues gives what figures cost with many queues.
func BenchmarkQueues(b *testing.B) {
	for _, n := range []int{1000, 10_000} {
		db, err := Open(filepath.Join(b.TempDir(), "store"), Options{})
		if err != nil {
			b.Fatal(err)
		}
		var wg sync.WaitGroup
		wg.Add(n)
		for i := range n {
			r := Record{Sender: "a", Body: []byte("x"), To: []Dest{{Queue: fmt.Sprint("session/", i)}}}
			db.Append(context.Background(), r, func(error) { wg.Done() })
		}
		wg.Wait()
		b.Run(fmt.Sprintf("stats/%d", n), func(b *testing.B) {
			for b.Loop() {
				for _, q := range db.Queues() {
					q.Stats()
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/queue")
		})
		_ = db.Close()
	}
}
