package iothub

import (
	"context"

	"golang.org/x/sync/semaphore"
	"golang.org/x/time/rate"
)

// window limits what is under way in all, by count and bytes, and how fast more
// goes out. It is first come, first served.
type window struct {
	count *semaphore.Weighted
	bytes *semaphore.Weighted
	rate  *rate.Limiter
}

func newWindow(s *settings) *window {
	return &window{
		count: semaphore.NewWeighted(s.total),
		bytes: semaphore.NewWeighted(s.bytes),
		rate:  rate.NewLimiter(s.rate, max(1, int(min(s.rate/10, 1000)))), // a tenth of a second's worth at once
	}
}

// take waits until a message of n bytes may go out.
func (w *window) take(ctx context.Context, n int) error {
	if err := w.count.Acquire(ctx, 1); err != nil {
		return err
	}
	if err := w.bytes.Acquire(ctx, int64(n)); err != nil {
		w.count.Release(1)
		return err
	}
	if err := w.rate.Wait(ctx); err != nil {
		w.give(n)
		return err
	}
	return nil
}

// give returns the place of a message of n bytes.
func (w *window) give(n int) {
	w.bytes.Release(int64(n))
	w.count.Release(1)
}
