package hubtest

import (
	"bufio"
	"encoding/json"
	"io"
	"sync"
	"time"

	"holdfast.dev/holdfast/hub/wire"
)

// Message is one telemetry message as it arrived.
type Message struct {
	N      int               `json:"n"`                // counts from 1, in order of arrival
	At     time.Time         `json:"at"`               // when it arrived
	Device string            `json:"device"`           // whose it is
	Module string            `json:"module,omitempty"` // or ""
	Via    string            `json:"via,omitempty"`    // who connected for it: "gateway/$edgeHub", or "" for itself
	QoS    byte              `json:"qos"`
	Dup    bool              `json:"dup,omitempty"`
	Retain bool              `json:"retain,omitempty"`
	Props  map[string]string `json:"props,omitempty"` // decoded; of two equal keys the first
	Bag    string            `json:"bag,omitempty"`   // the properties as they stood in the topic
	Body   []byte            `json:"body"`            // base64 in JSON
}

// plainMessage is Message without its methods, for JSON.
type plainMessage Message

// MarshalJSON writes the body in base64 as "body" and, if it is JSON, as "json" too.
func (m Message) MarshalJSON() ([]byte, error) {
	j := struct {
		plainMessage
		Decoded json.RawMessage `json:"json,omitempty"`
	}{plainMessage: plainMessage(m)}
	if json.Valid(m.Body) {
		j.Decoded = m.Body
	}
	return json.Marshal(j)
}

// record is a Message in less room: properties stay encoded, names are shared.
type record struct {
	at   int64 // ns since 1970
	from *sender
	bag  string
	body []byte
	bits byte // QoS, and the two flags below
}

const (
	dupBit    = 1 << 4
	retainBit = 1 << 5
	chunkLen  = 4096 // records; so that growing never copies what is there
)

// messages is all that has arrived.
type messages struct {
	mu      sync.Mutex
	chunks  [][]record
	n       int
	changed chan struct{} // nil if nobody waits
	out     *bufio.Writer // or nil
	broken  error         // of out; the first
}

func newMessages(out io.Writer) *messages {
	m := &messages{}
	if out != nil {
		m.out = bufio.NewWriterSize(out, 64<<10)
	}
	return m
}

// add keeps a message. On return it is kept: only then it may be acknowledged.
func (l *messages) add(r record) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.n%chunkLen == 0 {
		l.chunks = append(l.chunks, make([]record, 0, chunkLen))
	}
	last := len(l.chunks) - 1
	l.chunks[last] = append(l.chunks[last], r)
	l.n++
	if l.changed != nil {
		close(l.changed)
		l.changed = nil
	}
	if l.out != nil && l.broken == nil {
		l.broken = l.write(r.message(l.n))
	}
}

func (l *messages) write(m Message) error {
	line, err := json.Marshal(m)
	if err != nil {
		return err
	}
	_, err = l.out.Write(append(line, '\n'))
	return err
}

// flush hands the lines written so far on; the error is the first there was.
func (l *messages) flush() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.out != nil && l.broken == nil {
		l.broken = l.out.Flush()
	}
	return l.broken
}

// after gives up to limit messages whose N is greater than n.
func (l *messages) after(n, limit int) []Message {
	l.mu.Lock()
	defer l.mu.Unlock()
	n = min(n, l.n)
	out := make([]Message, 0, min(limit, l.n-n))
	for ; n < l.n && len(out) < limit; n++ {
		out = append(out, l.chunks[n/chunkLen][n%chunkLen].message(n+1))
	}
	return out
}

func (l *messages) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.n
}

func (l *messages) wait() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.changed == nil {
		l.changed = make(chan struct{})
	}
	return l.changed
}

func (r *record) message(n int) Message {
	m := Message{
		N: n, At: time.Unix(0, r.at), Device: r.from.device, Module: r.from.module, Via: r.from.via,
		Bag: r.bag, Body: r.body, QoS: r.bits & 3, Dup: r.bits&dupBit != 0, Retain: r.bits&retainBit != 0,
	}
	if r.bag != "" {
		m.Props = map[string]string{}
	}
	for k, v := range wire.Bag(r.bag).All() {
		if _, ok := m.Props[k]; !ok {
			m.Props[k] = v
		}
	}
	return m
}

// Messages is all telemetry that has arrived, in order. Bodies are shared: do not change them.
func (h *Hub) Messages() []Message { return h.messages.after(0, h.messages.count()) }

// MessagesAfter is the telemetry with N > n, at most limit of it.
func (h *Hub) MessagesAfter(n, limit int) []Message { return h.messages.after(max(n, 0), limit) }

// Count is the number of telemetry messages that have arrived.
func (h *Hub) Count() int { return h.messages.count() }

// Changed gives a channel that is closed at the next arrival. Take it before Count.
func (h *Hub) Changed() <-chan struct{} { return h.messages.wait() }
