package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"
)

// cutBody is what is in a record of the power-cut workload. All of it follows from
// its first line, so that nothing that was not offered can pass for a record:
//
//	sender number lifetime queue,queue size\n filler
type cutBody struct {
	sender string
	n      int
	ttl    cutTTL
	queues []string
	size   int // of the filler
}

// cutTTL is how long a record lives.
type cutTTL int

const (
	livesForever cutTTL = iota
	livesShort          // over when the store is opened after a cut
	livesLong           // never over in a run
)

func (t cutTTL) duration() time.Duration {
	return [...]time.Duration{0, 20 * time.Millisecond, time.Hour}[t]
}

func (b cutBody) bytes() []byte {
	head := fmt.Appendf(nil, "%s %d %d %s %d\n", b.sender, b.n, b.ttl, strings.Join(b.queues, ","), b.size)
	return b.fill(head)
}

// fill appends the filler: telemetry that compresses well, and where it is long
// often bytes that do not.
func (b cutBody) fill(out []byte) []byte {
	h := fnv.New64a()
	h.Write(out) // never fails
	lot, end := rand.New(rand.NewPCG(h.Sum64(), 1)), len(out)+b.size
	if b.size > 4096 && b.n%2 == 1 {
		for len(out) < end {
			out = binary.LittleEndian.AppendUint64(out, lot.Uint64())
		}
		return out[:end]
	}
	for len(out) < end {
		out = fmt.Appendf(out, `{"temperature":%d,"humidity":%d,"state":"running"},`, lot.IntN(100), lot.IntN(100))
	}
	return out[:end]
}

// parseCutBody gives what is in a record, if it is one of the workload's, whole.
func parseCutBody(b []byte) (cutBody, error) {
	line, _, ok := bytes.Cut(b, []byte("\n"))
	f := strings.Fields(string(line[:min(len(line), 200)]))
	if !ok || len(f) != 5 {
		return cutBody{}, fmt.Errorf("a body of %d bytes that nobody has made", len(b))
	}
	body := cutBody{sender: f[0], queues: strings.Split(f[3], ",")}
	var err error
	for i, to := range map[int]*int{1: &body.n, 2: (*int)(&body.ttl), 4: &body.size} {
		if *to, err = strconv.Atoi(f[i]); err != nil {
			return cutBody{}, fmt.Errorf("a body that begins with %q: %w", line, err)
		}
	}
	if body.size < 0 || len(line)+1+body.size != len(b) || !bytes.Equal(body.fill(slices.Clone(b[:len(line)+1])), b) {
		return cutBody{}, fmt.Errorf("record %d of %s is not what was offered", body.n, body.sender)
	}
	return body, nil
}
