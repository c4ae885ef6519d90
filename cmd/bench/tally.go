package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// body is message number n of a device: it says who, which, and fills up to size
// bytes with a pattern of its own, so that what arrives can be compared whole.
func body(device string, n, size int) []byte {
	b := fmt.Appendf(nil, `{"device":%q,"n":%d,"pad":"`, device, n)
	seed := strconv.Itoa(n) + "."
	for i := 0; len(b) < size-2; i++ {
		b = append(b, seed[i%len(seed)])
	}
	return append(b, `"}`...)
}

// arrival is a message as the hub says that it has received it.
type arrival struct {
	N      uint64 // the hub's own count
	At     time.Time
	Device string
	Module string
	Via    string
	Props  map[string]string
	Body   []byte
}

// limits bound the repeats of one device that a kill or a cut may cost.
type limits struct {
	device  int // publishes whose acknowledgement a kill swallowed: window × kills
	gateway int // sends whose acknowledgement or settlement was lost
}

// record is what is known of one device's messages, by number from 1.
type record struct {
	name    string
	kind    string // for the table
	hubID   string // the identity that its messages must arrive as
	mid     bool   // its messages carry "$.mid"
	payload int

	mu        sync.Mutex
	published []uint16   // times the device published it
	acked     []bool     // the gateway has taken custody
	ids       [][]string // the holdfast-ids it arrived under
	highest   int        // first arrivals so far
	arrived   int
	counts    faults
}

// faults are what must not be.
type faults struct {
	gatewayRepeats int // allowed within limits: the same holdfast-id again
	outOfOrder     int // a first arrival after that of a later number
	unsent         int // a number that the device never published
	renamed        int // more holdfast-ids than the device published
	nameless       int // no holdfast-id
	shared         int // a holdfast-id that another message has: receivers would drop it
	altered        int // not the bytes that were sent
	misfiled       int // under another identity or message id
}

// row is one line of the table.
type row struct {
	name, kind           string
	sent, acked, arrived int
	lost                 []int // numbers, ascending
	deviceRepeats        int   // the same message under another holdfast-id
	gatewayRepeats       int   // the same holdfast-id again
	outOfOrder           int
	wrong                []string // in words; empty if all is well
}

// publish notes that the device is about to publish number n.
func (r *record) publish(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.published) < n {
		r.published = append(r.published, 0)
		r.acked = append(r.acked, false)
		r.ids = append(r.ids, nil)
	}
	r.published[n-1]++
}

// ack notes that the gateway has acknowledged number n; it says whether that was new.
func (r *record) ack(n int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	fresh := !r.acked[n-1]
	r.acked[n-1] = true
	return fresh
}

// arrive notes that number n has arrived under a holdfast-id; taken says that
// another message has had that id. It says whether this is the first arrival.
func (r *record) arrive(n int, id string, taken bool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n < 1 || n > len(r.published) || r.published[n-1] == 0 {
		r.counts.unsent++
		return false
	}
	if id == "" {
		r.counts.nameless++
	} else if taken {
		r.counts.shared++
	}
	first := len(r.ids[n-1]) == 0
	switch {
	case first:
		r.arrived++
		if n < r.highest {
			r.counts.outOfOrder++
		}
		r.highest = max(r.highest, n)
	case slices.Contains(r.ids[n-1], id):
		r.counts.gatewayRepeats++
		return false
	}
	r.ids[n-1] = append(r.ids[n-1], id)
	if len(r.ids[n-1]) > int(r.published[n-1]) {
		r.counts.renamed++
	}
	return first
}

// check compares what arrived with what was sent.
func (r *record) check(a arrival, n int) {
	altered := !bytes.Equal(a.Body, body(r.name, n, r.payload))
	misfiled := a.Device != r.hubID || r.mid && a.Props["$.mid"] != messageID(r.name, n)
	r.mu.Lock()
	defer r.mu.Unlock()
	if altered {
		r.counts.altered++
	}
	if misfiled {
		r.counts.misfiled++
	}
}

// messageID is the "$.mid" of a device's message.
func messageID(device string, n int) string { return device + "-" + strconv.Itoa(n) }

// row judges the record.
func (r *record) row(l limits) row {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := row{name: r.name, kind: r.kind, arrived: r.arrived,
		gatewayRepeats: r.counts.gatewayRepeats, outOfOrder: r.counts.outOfOrder}
	for i := range r.published {
		if r.published[i] > 0 {
			out.sent++
		}
		if r.acked[i] {
			out.acked++
			if len(r.ids[i]) == 0 {
				out.lost = append(out.lost, i+1)
			}
		}
		out.deviceRepeats += max(0, len(r.ids[i])-1)
	}
	out.wrong = r.counts.words(out, l)
	return out
}

// words says what is wrong with a row, or nothing.
func (f faults) words(r row, l limits) []string {
	var out []string
	say := func(bad bool, format string, args ...any) {
		if bad {
			out = append(out, r.name+": "+fmt.Sprintf(format, args...))
		}
	}
	say(len(r.lost) > 0, "%d acknowledged messages were lost: numbers %s", len(r.lost), some(r.lost))
	say(f.outOfOrder > 0, "%d arrived after a later one", f.outOfOrder)
	say(r.deviceRepeats > l.device, "%d came twice by the device's repeats, at most %d can be explained", r.deviceRepeats, l.device)
	say(f.gatewayRepeats > l.gateway, "%d came twice by the gateway's repeats, at most %d can be explained", f.gatewayRepeats, l.gateway)
	say(f.renamed > 0, "%d came again under a new holdfast-id although the device had not repeated them", f.renamed)
	say(f.unsent > 0, "%d arrived that were never sent", f.unsent)
	say(f.nameless > 0, "%d arrived without a holdfast-id", f.nameless)
	say(f.shared > 0, "%d arrived under another message's holdfast-id", f.shared)
	say(f.altered > 0, "%d arrived altered", f.altered)
	say(f.misfiled > 0, "%d arrived under another identity or message id", f.misfiled)
	return out
}

// some lists the first few numbers, runs drawn together.
func some(n []int) string {
	var out []string
	for i := 0; i < len(n); {
		j := i
		for j+1 < len(n) && n[j+1] == n[j]+1 {
			j++
		}
		if len(out) == 5 {
			out = append(out, "…")
			break
		}
		if j > i {
			out = append(out, fmt.Sprintf("%d-%d", n[i], n[j]))
		} else {
			out = append(out, strconv.Itoa(n[i]))
		}
		i = j + 1
	}
	return strings.Join(out, " ")
}

// tally is the records of all devices.
type tally struct {
	records []*record
	byName  map[string]*record

	acked, arrived atomic.Int64 // distinct messages
	others         atomic.Int64 // arrived from somebody else

	owners map[string]string // holdfast-id to message; used by one goroutine
}

func newTally() *tally {
	return &tally{byName: map[string]*record{}, owners: map[string]string{}}
}

func (t *tally) add(r *record) {
	t.records = append(t.records, r)
	t.byName[r.name] = r
}

// arrive files an arrival; it says whether it is from one of the devices.
func (t *tally) arrive(a arrival) bool {
	var b struct {
		Device string `json:"device"`
		N      int    `json:"n"`
	}
	r := (*record)(nil)
	if json.Unmarshal(a.Body, &b) == nil {
		r = t.byName[b.Device]
	}
	if r == nil {
		t.others.Add(1)
		return false
	}
	id, message := a.Props["holdfast-id"], messageID(b.Device, b.N)
	owner, known := t.owners[id]
	if !known && id != "" {
		t.owners[id] = message
	}
	if r.arrive(b.N, id, known && owner != message) {
		t.arrived.Add(1)
	}
	r.check(a, b.N)
	return true
}

// rows judges all records, in the order they were added.
func (t *tally) rows(l limits) []row {
	out := make([]row, len(t.records))
	for i, r := range t.records {
		out[i] = r.row(l)
	}
	return out
}

// missing counts acknowledged messages that have not arrived.
func (t *tally) missing() int {
	n := 0
	for _, r := range t.rows(limits{}) {
		n += len(r.lost)
	}
	return n
}
