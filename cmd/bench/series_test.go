package main

import (
	"math"
	"slices"
	"testing"
	"time"
)

func TestMedian(t *testing.T) {
	for _, tt := range []struct {
		s    series
		want float64
	}{
		{series{3, 1, 2}, 2},
		{series{4, 1, 3, 2}, 2.5},
		{series{7}, 7},
	} {
		before := slices.Clone(tt.s)
		if got := tt.s.median(); got != tt.want {
			t.Errorf("median of %v is %v, want %v", tt.s, got, tt.want)
		}
		if !slices.Equal(before, tt.s) {
			t.Errorf("median has sorted its series")
		}
	}
	if !math.IsNaN(series(nil).median()) {
		t.Error("nothing has a median")
	}
}

// TestOver compares round by round: a machine that is slow in one round is slow for
// both, and the ratio must not see it.
func TestOver(t *testing.T) {
	a, b := series{100, 10, 100}, series{50, 5, 50}
	f := a.over(b).figure("S1", "x", "x")
	if f.Value != 2 || f.Low != 2 || f.High != 2 {
		t.Errorf("ratio is %+v, want 2 in each round", f)
	}
	if f := (series{1, 2, 9}).figure("", "", ""); f.Value != 2 || f.Low != 1 || f.High != 9 {
		t.Errorf("figure is %+v", f)
	}
	if f := (series{5}).figure("", "", ""); f.Low != 0 || f.High != 0 {
		t.Errorf("one round has a range: %+v", f)
	}
}

func TestQuantile(t *testing.T) {
	var d []time.Duration
	for i := 100; i > 0; i-- {
		d = append(d, time.Duration(i)*time.Millisecond)
	}
	for q, want := range map[float64]float64{0.5: 50, 0.99: 99, 1: 100, 0: 1} {
		if got := quantile(d, q); got != want {
			t.Errorf("quantile %v is %v, want %v", q, got, want)
		}
	}
	if !math.IsNaN(quantile(nil, 0.5)) {
		t.Error("nothing has a median")
	}
}

func TestTurns(t *testing.T) {
	var got []int
	turns(2, 3, func(_, i int) error { got = append(got, i); return nil })
	if want := []int{0, 1, 2, 1, 2, 0}; !slices.Equal(got, want) {
		t.Errorf("order is %v, want %v", got, want)
	}
}
