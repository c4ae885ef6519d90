package storage

import (
	"context"
	"errors"
	"testing"
)

func TestOrderHoldsBackWhatFollowsARefusal(t *testing.T) {
	db := open(t, t.TempDir(), Options{MaxBytes: 4 << 20})
	body := make([]byte, 50_000)
	put := func(o *Order) error {
		done := make(chan error, 1)
		db.Append(context.Background(), Record{Sender: "a", Body: body, To: []Dest{{Queue: "up"}}, Order: o}, func(err error) { done <- err })
		return <-done
	}
	var stream, other Order
	n := 0
	for ; put(&stream) == nil; n++ {
		if n > 200 {
			t.Fatal("never full")
		}
	}
	q := db.Queue("up")
	for p := Position(1); p <= Position(n); p++ {
		settleNow(t, q, Delivered, p)
	}
	if err := put(&other); err != nil {
		t.Errorf("another stream, with room again: %v", err)
	}
	for range 2 {
		if err := put(&stream); !errors.Is(err, ErrFull) {
			t.Errorf("the stream that was refused: %v", err)
		}
	}
	stream.Resume()
	if err := put(&stream); err != nil {
		t.Errorf("after Resume: %v", err)
	}
}

// In one batch, what follows something refused is refused though it would fit.
func TestOrderWithinABatch(t *testing.T) {
	var a, b Order
	batch := []*request{{order: &a}, {order: &b}, {order: &a}, {}, {order: &b}}
	verdict := []error{ErrFull, nil, nil, nil, errLater}
	keepOrder(batch, verdict)
	for i, full := range []bool{true, false, true, false, false} {
		if errors.Is(verdict[i], ErrFull) != full {
			t.Errorf("request %d: %v", i, verdict[i])
		}
	}
}
