package main

import "holdfast.dev/holdfast/storage/crashdisk"

// bill is what a disk was asked for and what it was asked for it.
type bill struct {
	crashdisk.Counts
	commits uint64
	payload uint64 // bytes of bodies that were acknowledged
}

func (a bill) perCommit(id, what string) figure {
	return figure{ID: id, What: what + ": flushes a commit", Value: float64(a.Flushes) / float64(a.commits), Unit: "flushes"}
}

// amplification is bytes written a byte of the bodies; topics are not payload.
func (a bill) amplification(id, what string) figure {
	return figure{ID: id, What: what + ": written a payload byte", Value: float64(a.Bytes) / float64(a.payload), Unit: "x"}
}

// honest fails a figure of flushes a commit that is better than can be: who flushes
// less often than it commits acknowledges what is not on disk.
func (a bill) honest(f figure) figure {
	if float64(a.Flushes)+2 >= 0.99*float64(a.commits) {
		return f
	}
	no := false
	f.OK, f.Why = &no, "fewer flushes than commits: something was acknowledged before it was on disk"
	return f
}
