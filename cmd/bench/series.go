package main

import (
	"math"
	"slices"
	"time"
)

// series is one quantity over the rounds of a run.
type series []float64

// median is the middle one, NaN of none; of an even number the mean of the two.
func (s series) median() float64 {
	if len(s) == 0 {
		return math.NaN()
	}
	t := slices.Sorted(slices.Values(s))
	if n := len(t); n%2 == 0 {
		return (t[n/2-1] + t[n/2]) / 2
	}
	return t[len(t)/2]
}

// over divides round by round: what was slow for both in a round is so for both.
func (s series) over(t series) series {
	out := make(series, min(len(s), len(t)))
	for i := range out {
		out[i] = s[i] / t[i]
	}
	return out
}

// figure gives the median with its range.
func (s series) figure(id, what, unit string) figure {
	f := figure{ID: id, What: what, Value: s.median(), Unit: unit}
	if len(s) > 1 {
		f.Low, f.High = slices.Min(s), slices.Max(s)
	}
	return f
}

// quantile gives the value below which a share q of the durations lie, in
// milliseconds; it sorts them.
func quantile(d []time.Duration, q float64) float64 {
	if len(d) == 0 {
		return math.NaN()
	}
	slices.Sort(d)
	i := int(math.Ceil(q*float64(len(d)))) - 1
	return float64(d[max(0, i)]) / float64(time.Millisecond)
}

// turns runs every contestant once a round, in an order that turns with each round,
// so that none is always the one that comes after another's dirt.
func turns(rounds, contestants int, run func(round, contestant int) error) error {
	for round := range rounds {
		for i := range contestants {
			if err := run(round, (i+round)%contestants); err != nil {
				return err
			}
		}
	}
	return nil
}
