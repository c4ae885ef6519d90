package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync/atomic"
	"time"
)

// message is what the storage measurements keep: a topic or sender of 28 bytes and a
// body of telemetry.
type message struct {
	topic string
	body  []byte
}

const (
	bodyBytes  = 256 // of a message's body, unless a measurement says otherwise
	groupSize  = 64  // messages that come together, likewise
	topicBytes = 28
	senders    = 16
	templates  = 8192 // different bodies: more than are packed together, or they would compress too well
	digits     = 12   // of the number in a body
	digitsAt   = 6    // where it stands: after {"n":"
)

// source numbers messages and knows again what it has made.
type source struct {
	topics [senders]string
	bodies [templates][]byte
	next   atomic.Uint64
}

// newSource makes messages whose bodies have the given size, and are JSON if that
// leaves room for it; the same ones in every run.
func newSource(size int) *source {
	s := &source{}
	for i := range s.topics {
		s.topics[i] = fmt.Sprintf("plant-07/line-03/station-%03d", i)
	}
	r := rand.New(rand.NewPCG(7, uint64(size)))
	for i := range s.bodies {
		s.bodies[i] = telemetry(r, size)
	}
	return s
}

// telemetry is one reading: a few values that move and many words that do not.
func telemetry(r *rand.Rand, size int) []byte {
	at := time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC).Add(time.Duration(r.Int64N(int64(1e15))))
	b := fmt.Appendf(nil, `{"n":"%0*d","t":%q,"temperature":%.2f,"pressure":%.1f,"vibration":[%.4f,%.4f,%.4f],"rpm":%d,"load":%.3f,"state":%q`,
		digits, 0, at.Format(time.RFC3339Nano), 20+15*r.Float64(), 950+100*r.Float64(),
		r.NormFloat64(), r.NormFloat64(), r.NormFloat64(), r.IntN(3000), r.Float64(),
		[]string{"running", "idle", "starting", "fault"}[r.IntN(4)])
	const note = `,"note":"`
	if room := size - len(b) - len(note) - 2; room >= 0 {
		b = append(b, note...)
		for range room {
			b = append(b, "0123456789abcdef"[r.IntN(16)])
		}
		return append(b, `"}`...)
	}
	return b[:max(size, digitsAt+digits)] // no JSON any more, but as large as was asked
}

// make gives message number n; its body is new memory.
func (s *source) make(n uint64) message {
	body := bytes.Clone(s.bodies[n%templates])
	writeNumber(body, n)
	return message{topic: s.topics[n%senders], body: body}
}

// one gives the next message.
func (s *source) one() message { return s.make(s.next.Add(1) - 1) }

// group gives the next k messages.
func (s *source) group(k int) []message {
	out := make([]message, k)
	for i := range out {
		out[i] = s.one()
	}
	return out
}

func writeNumber(body []byte, n uint64) {
	for i := digitsAt + digits - 1; i >= digitsAt; i-- {
		body[i] = byte('0' + n%10)
		n /= 10
	}
}

// numberOf gives the number of a message that came back, or an error if it is not
// byte for byte what was made under that number.
func (s *source) numberOf(m message) (uint64, error) {
	if len(m.body) < digitsAt+digits {
		return 0, fmt.Errorf("a body of %d bytes came back", len(m.body))
	}
	n, err := strconv.ParseUint(string(m.body[digitsAt:digitsAt+digits]), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("a body without a number came back: %.40q", m.body)
	}
	want := s.bodies[n%templates]
	const after = digitsAt + digits
	if m.topic != s.topics[n%senders] || len(m.body) != len(want) ||
		!bytes.Equal(m.body[:digitsAt], want[:digitsAt]) || !bytes.Equal(m.body[after:], want[after:]) {
		return 0, fmt.Errorf("message %d came back altered", n)
	}
	return n, nil
}
