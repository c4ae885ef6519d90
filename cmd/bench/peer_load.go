package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
)

// peerPayload is the size of a message's body in bytes, as a reading of some
// values with their names in JSON has it.
const peerPayload = 256

// load is how many clients publish, each with how many publishes under way.
type load struct{ clients, window int }

func (l load) String() string { return fmt.Sprintf("%d x %d", l.clients, l.window) }

// burst is what one measurement of a load has found.
type burst struct {
	acked   int
	seconds float64
	waits   []time.Duration // from publish to acknowledgement, ascending
}

func (b burst) rate() float64 { return float64(b.acked) / b.seconds }

// wait is the quantile q of the waits; 0 if there is none.
func (b burst) wait(q float64) time.Duration {
	if len(b.waits) == 0 {
		return 0
	}
	return b.waits[int(q*float64(len(b.waits)-1))]
}

// run is a load that runs: what all its publishers share.
type run struct {
	stop    chan struct{}
	counted atomic.Bool // now is the time that counts
	acked   atomic.Int64
}

// publisher is one client of a load, in one goroutine: it publishes as much as was
// acknowledged, no more, so that it costs as little as a client can.
type publisher struct {
	run    *run
	c      *conn
	packet []byte // the publish, in which packet id and number are replaced
	id, n  int    // where they are in packet
	out    []byte // packets to be written
	first  int    // the number of the first message
	next   int    // and of the next
	last   uint16 // packet id used last
	open   []flying
	under  int // how many are
	acked  []int
	waits  []time.Duration
}

// flying is a publish under way, by its packet id; n is 0 where there is none.
type flying struct {
	n    int
	sent time.Time
}

// newPublisher connects a client that numbers its messages from first.
func newPublisher(ctx context.Context, r *run, l login, client, first int) (*publisher, error) {
	c, err := dial(ctx, l)
	if err != nil {
		return nil, err
	}
	p := &publisher{run: r, c: c, first: first, next: first, open: make([]flying, 1<<16)}
	p.packet, p.id, p.n, err = publishTemplate(peerTopic(client), client)
	return p, err
}

func peerTopic(client int) string {
	return fmt.Sprintf("plant/%s/press/temperature", clientName(client))
}

// publishTemplate is a publish, and where in it are the packet id (2 bytes,
// big-endian) and the number (10 digits).
func publishTemplate(topic string, client int) (packet []byte, id, n int, err error) {
	body := peerBody(client, 0)
	var b bytes.Buffer
	if err := encode(&packets.Packet{
		FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: 1}, ProtocolVersion: 4,
		TopicName: topic, PacketID: 1, Payload: body,
	}, &b); err != nil {
		return nil, 0, 0, err
	}
	packet = b.Bytes()
	at := len(packet) - len(body)
	return packet, at - 2, at + numberAt, nil
}

const numberAt, numberLen = len(`{"c":"c00","n":"`), 10

// peerBody is message n of a client. What fills it up is not all alike: a store
// that packs would pack that away.
func peerBody(client, n int) []byte {
	b := fmt.Appendf(nil, `{"c":"%s","n":"%010d","v":"`, clientName(client), n)
	x := uint64(client + 1)
	for len(b) < peerPayload-2 {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		b = append(b, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_"[x&63])
	}
	return append(b, `"}`...)
}

// numbered is a body, or what ends in one, with another number.
func numbered(template []byte, n int) []byte {
	b := bytes.Clone(template)
	putNumber(b[len(b)-peerPayload+numberAt:][:numberLen], n)
	return b
}

// whose reads client and number of a body; ok says whether it is one of ours.
func whose(body []byte) (client, n int, ok bool) {
	if len(body) != peerPayload {
		return 0, 0, false
	}
	_, err := fmt.Sscanf(string(body[:numberAt+numberLen]), `{"c":"c%02d","n":"%010d`, &client, &n)
	return client, n, err == nil && client >= 0 && client < most
}

// publish keeps window publishes under way until the run is stopped, waits for
// what is still open then, and disconnects.
func (p *publisher) publish(window int) error {
	defer p.c.close()
	if err := p.send(window); err != nil {
		return err
	}
	stopping := false
	for p.under > 0 {
		got, err := p.take()
		if err != nil {
			return err
		}
		if !stopping {
			select {
			case <-p.run.stop:
				stopping = true
			default:
				if err := p.send(got); err != nil {
					return err
				}
			}
		}
	}
	p.c.disconnect()
	return nil
}

// send publishes k messages in one write.
func (p *publisher) send(k int) error {
	now := time.Now()
	p.out = p.out[:0]
	for range k {
		for p.last++; p.last == 0 || p.open[p.last].n != 0; p.last++ { // not one that is still under way
		}
		p.next++
		p.open[p.last] = flying{n: p.next, sent: now}
		binary.BigEndian.PutUint16(p.packet[p.id:], p.last)
		putNumber(p.packet[p.n:p.n+numberLen], p.next)
		p.out = append(p.out, p.packet...)
	}
	p.under += k
	p.c.nc.SetWriteDeadline(now.Add(patientFor))
	if _, err := p.c.nc.Write(p.out); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	return nil
}

// putNumber writes n with leading zeros over b.
func putNumber(b []byte, n int) {
	for i := len(b) - 1; i >= 0; i-- {
		b[i] = byte('0' + n%10)
		n /= 10
	}
}

// patientFor is how long a broker may take for one acknowledgement: some save all
// they have for each message, and some flush each of hundreds that are under way.
const patientFor = 2 * time.Minute

// take waits for an acknowledgement, takes all that have come, and says how many.
func (p *publisher) take() (got int, err error) {
	p.c.nc.SetReadDeadline(time.Now().Add(patientFor))
	for got == 0 || p.c.r.Buffered() >= 4 {
		var b [2]byte
		if _, err := io.ReadFull(p.c.r, b[:]); err != nil {
			return got, fmt.Errorf("wait for acknowledgement: %w", err)
		}
		if b[0] != packets.Puback<<4 || b[1] != 2 {
			return got, fmt.Errorf("wait for acknowledgement: packet %#x of %d bytes", b[0], b[1])
		}
		if _, err := io.ReadFull(p.c.r, b[:]); err != nil {
			return got, fmt.Errorf("wait for acknowledgement: %w", err)
		}
		f := &p.open[binary.BigEndian.Uint16(b[:])]
		if f.n == 0 {
			return got, errors.New("wait for acknowledgement: one came for nothing under way")
		}
		p.acked = append(p.acked, f.n)
		if p.run.counted.Load() {
			p.waits = append(p.waits, time.Since(f.sent))
		}
		f.n = 0
		got++
	}
	p.under -= got
	p.run.acked.Add(int64(got))
	return got, nil
}

// publishers connects the clients of a load to b; first is the number before that
// of each client's first message.
func (b *broker) publishers(ctx context.Context, r *run, l load, first int) ([]*publisher, error) {
	all := make([]*publisher, l.clients)
	for i := range all {
		var err error
		if all[i], err = newPublisher(ctx, r, b.login(i), i, first); err != nil {
			for _, p := range all[:i] {
				p.c.close()
			}
			return nil, b.diagnose(err)
		}
	}
	return all, nil
}

// measure lets clients publish and counts what is acknowledged after warming up.
func (b *broker) measure(ctx context.Context, l load, pace peersPaces, first int) (burst, error) {
	r := &run{stop: make(chan struct{})}
	all, err := b.publishers(ctx, r, l, first)
	if err != nil {
		return burst{}, err
	}
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	defer context.AfterFunc(ctx, func() {
		for _, p := range all {
			p.c.close()
		}
	})()
	var wg sync.WaitGroup
	for _, p := range all {
		wg.Go(func() {
			if err := p.publish(l.window); err != nil {
				fail(err)
			}
		})
	}
	out := r.count(ctx, pace, l)
	close(r.stop)
	wg.Wait()
	if err := context.Cause(ctx); err != nil {
		return burst{}, b.diagnose(err)
	}
	for _, p := range all {
		out.waits = append(out.waits, p.waits...)
	}
	slices.Sort(out.waits)
	if out.acked == 0 {
		return out, fmt.Errorf("%s: nothing acknowledged in %.1f s", b.name, out.seconds)
	}
	return out, nil
}

// count lets a run warm up until every publish that began first has been
// acknowledged, and counts for the time that is given and until as many again have
// been: some brokers acknowledge everything that is under way at once, after a
// while, and then a shorter time would count one such moment or none.
func (r *run) count(ctx context.Context, pace peersPaces, l load) burst {
	all := int64(l.clients * l.window)
	r.await(ctx, pace.warm, all)
	n, start := r.acked.Load(), time.Now()
	r.counted.Store(true)
	r.await(ctx, pace.length, n+all)
	out := burst{acked: int(r.acked.Load() - n), seconds: time.Since(start).Seconds()}
	r.counted.Store(false)
	return out
}

// await waits for a time and until the run has so many acknowledgements.
func (r *run) await(ctx context.Context, least time.Duration, acked int64) {
	begun := time.Now()
	for ok := pause(ctx, least); ok && r.acked.Load() < acked && time.Since(begun) < patientFor; {
		ok = pause(ctx, 2*time.Millisecond)
	}
}
