package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
)

// TestPublishTemplate: what is replaced in the bytes is what a broker reads.
func TestPublishTemplate(t *testing.T) {
	p := publisher{run: &run{}, c: &conn{}, open: make([]flying, 1<<16), last: 65534, next: 41}
	var err error
	if p.packet, p.id, p.n, err = publishTemplate(peerTopic(7), 7); err != nil {
		t.Fatal(err)
	}
	us, broker := net.Pipe()
	p.c.nc = us
	p.open[65535] = flying{n: 1} // still under way: not to be taken again
	go p.send(2)
	r := &peer{r: bufio.NewReader(broker)}
	for i, want := range []struct {
		id uint16
		n  int
	}{{1, 42}, {2, 43}} {
		pk, err := r.read()
		if err != nil {
			t.Fatal(err)
		}
		client, n, ok := whose(pk.Payload)
		if pk.PacketID != want.id || pk.TopicName != "plant/c07/press/temperature" || pk.FixedHeader.Qos != 1 || !ok || client != 7 || n != want.n {
			t.Errorf("publish %d: id %d, %s, %q", i, pk.PacketID, pk.TopicName, pk.Payload)
		}
		if len(pk.Payload) != peerPayload || !bytes.Equal(pk.Payload, peerBody(7, want.n)) {
			t.Errorf("body is %q", pk.Payload)
		}
	}
}

func TestWhose(t *testing.T) {
	if c, n, ok := whose(peerBody(3, 1234567890)); c != 3 || n != 1234567890 || !ok {
		t.Errorf("client %d, number %d, %v", c, n, ok)
	}
	if c, n, ok := whose(numbered(append([]byte("topic"), peerBody(3, 1)...), 77)[5:]); c != 3 || n != 77 || !ok {
		t.Errorf("client %d, number %d, %v", c, n, ok)
	}
	bad := peerBody(3, 1)
	bad[2] = 'x'
	for _, b := range [][]byte{nil, []byte("{}"), bad, peerBody(99, 1), peerBody(1, 1)[1:]} {
		if _, _, ok := whose(b); ok {
			t.Errorf("%q is taken for one of ours", b)
		}
	}
}

// TestPublisherTakes only acknowledgements of what is under way.
func TestPublisherTakes(t *testing.T) {
	for _, tt := range []struct{ name, bytes, want string }{
		{"an acknowledgement for nothing", "\x40\x02\x00\x09", "nothing under way"},
		{"another packet", "\x30\x02\x00\x09", "packet 0x30"},
		{"an end", "\x40", "EOF"},
	} {
		us, broker := net.Pipe()
		go func() { broker.Write([]byte(tt.bytes)); broker.Close() }()
		p := publisher{run: &run{}, c: &conn{nc: us, r: bufio.NewReader(us)}, open: make([]flying, 1<<16), under: 1}
		p.open[1] = flying{n: 5, sent: time.Now()}
		if _, err := p.take(); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	us, broker := net.Pipe()
	go broker.Write([]byte{packets.Puback << 4, 2, 0, 1, packets.Puback << 4, 2, 0, 2})
	p := publisher{run: &run{}, c: &conn{nc: us, r: bufio.NewReader(us)}, open: make([]flying, 1<<16), under: 3}
	p.run.counted.Store(true)
	p.open[1], p.open[2], p.open[3] = flying{n: 5}, flying{n: 6}, flying{n: 7}
	if got, err := p.take(); got != 2 || err != nil || p.under != 1 || len(p.waits) != 2 || p.run.acked.Load() != 2 || p.acked[1] != 6 {
		t.Errorf("took %d, %v, %d under way, acknowledged %v", got, err, p.under, p.acked)
	}
}

func TestTaken(t *testing.T) {
	got := newTaken([][]int{{1, 2, 3}, {1, 2}})
	for _, b := range [][]byte{peerBody(0, 1), peerBody(0, 1), peerBody(1, 2), peerBody(1, 9), []byte("x"), peerBody(2, 1)} {
		got.take(b)
	}
	l := got.loss()
	if want := (loss{acked: 5, lost: 3, strangers: 2}); l != want {
		t.Errorf("%+v, want %+v", l, want)
	}
	if f := l.row("mochi"); f.Value != 60 || f.OK != nil || !strings.Contains(f.What, "2 came that nobody had sent") {
		t.Errorf("row of a peer is %+v", f)
	}
	if f := l.row("holdfast"); f.OK == nil || *f.OK || f.Why == "" {
		t.Errorf("row of a gateway that loses is %+v", f)
	}
}

// testStore acknowledges at once, or fails after some messages.
type testStore struct{ left int }

func (s *testStore) append(_ context.Context, _ int, body []byte, done func(error)) error {
	if s.left--; s.left == 0 {
		return errors.New("no room")
	}
	if _, n, ok := whose(body[len(body)-peerPayload:]); !ok || n == 0 {
		return errors.New("not a body of ours")
	}
	done(nil)
	return nil
}

func (s *testStore) close() error { return nil }

func TestAppends(t *testing.T) {
	pace := peersPaces{warm: time.Millisecond, length: 20 * time.Millisecond}
	if b, wait, err := appends(t.Context(), &testStore{}, load{1, 5}, pace); err != nil || b.acked == 0 || b.seconds < 0.02 || wait() != nil {
		t.Errorf("%+v, %v", b, err)
	}
	if _, _, err := appends(t.Context(), &testStore{left: 3}, load{1, 5}, pace); err == nil || !strings.Contains(err.Error(), "no room") {
		t.Errorf("a store that fails: %v", err)
	}
}

// TestSinkPacket: one that is cut short or lies about its length ends the
// connection, and is never acknowledged.
func TestSinkPacket(t *testing.T) {
	whole, id, _, err := publishTemplate("plant/x", 1)
	if err != nil {
		t.Fatal(err)
	}
	whole[id], whole[id+1] = 0x12, 0x34
	for _, tt := range []struct {
		name, bytes, want string
		ok                bool
	}{
		{"a publish", string(whole), "\x40\x02\x12\x34", true},
		{"a publish that is cut short", string(whole[:len(whole)-1]), "", false},
		{"a topic that is longer than its packet", "\x32\x04\x00\x09ab", "", false},
		{"a ping", "\xc0\x00", "", true},
		{"a goodbye", "\xe0\x00", "", false},
	} {
		answer, ok := sinkPacket(bufio.NewReader(strings.NewReader(tt.bytes)))
		if ok != tt.ok || ok && string(answer) != tt.want {
			t.Errorf("%s: answer %x, %v", tt.name, answer, ok)
		}
	}
}
