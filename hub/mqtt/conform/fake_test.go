package conform

import (
	"bufio"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// fake is a server that is wrong on purpose.
type fake struct {
	t    *testing.T
	kind wrong

	mu    sync.Mutex
	conns map[*fakeConn]bool
}

type wrong int

const (
	mute    wrong = iota // acknowledges all there is, delivers nothing, refuses nothing
	loud                 // the same, but delivers all to all, twice, with wrong flags
	wall                 // lets everybody in, and closes at the next packet
	bouncer              // lets nobody in, and does not close
)

type fakeConn struct {
	nc      net.Conn
	version atomic.Uint32
	mu      sync.Mutex
}

// startFake is a target that needs no process.
func startFake(t *testing.T, kind wrong) *Target {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &fake{t: t, kind: kind, conns: map[*fakeConn]bool{}}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { f.serve(nc) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		f.mu.Lock()
		for c := range f.conns {
			c.nc.Close()
		}
		f.mu.Unlock()
		wg.Wait()
	})
	return &Target{Name: "fake", Addr: l.Addr().String(), User: "u", Password: "p", Narrow: "n", Patience: moment}
}

func (f *fake) serve(nc net.Conn) {
	c := &fakeConn{nc: nc}
	c.version.Store(uint32(v311))
	defer nc.Close()
	f.mu.Lock()
	f.conns[c] = true
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		delete(f.conns, c)
		f.mu.Unlock()
	}()
	for r := bufio.NewReader(nc); ; {
		head, err := r.ReadByte()
		if err != nil {
			return
		}
		n, err := readLength(r)
		if err != nil {
			return
		}
		body := make([]byte, n)
		if _, err := io.ReadFull(r, body); err != nil {
			return
		}
		if head>>4 == kindDisconnect || f.kind == wall && head>>4 != kindConnect {
			return
		}
		f.answer(c, head, body)
	}
}

func (c *fakeConn) write(p []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nc.SetWriteDeadline(time.Now().Add(time.Second))
	c.nc.Write(p) // a client that is gone does not matter
}

func (f *fake) answer(c *fakeConn, head byte, body []byte) {
	none := []byte{} // the properties of MQTT 5
	if c.version.Load() == uint32(v5) {
		none = []byte{0}
	}
	in := &reader{b: body}
	switch kind := head >> 4; kind {
	case kindConnect:
		in.text()
		if in.byte() == v5 {
			c.version.Store(uint32(v5))
			none = []byte{0}
		}
		ack := map[wrong][]byte{mute: {1, 0}, loud: {0, 0}, wall: {0, 0}, bouncer: {1, 0x88}}[f.kind]
		c.write(frame(kindConnack<<4, ack, none))
	case kindPublish:
		topic, qos := in.text(), head>>1&3
		if qos > 0 {
			c.write(ackPacket(kindPuback+qos-1, max(1, in.u16())))
		}
		if f.kind == loud {
			f.shout(topic, qos)
		}
	case kindPubrec, kindPubrel:
		c.write(ackPacket(kind+1, in.u16()))
	case kindSubscribe, kindUnsubscribe:
		id := in.u16()
		if c.version.Load() == uint32(v5) {
			in.properties()
		}
		codes := []byte{}
		for in.err == nil && len(in.b) > 0 {
			in.text()
			if kind == kindSubscribe {
				codes = append(codes, in.byte()&3)
			} else if c.version.Load() == uint32(v5) {
				codes = append(codes, 0)
			}
		}
		c.write(frame((kind+1)<<4, u16(id), none, codes))
	case kindPingreq:
		c.write(frame(kindPingresp << 4))
	}
}

// shout sends something on topic to all, twice, as if it had been sent before.
func (f *fake) shout(topic string, qos byte) {
	f.mu.Lock()
	all := make([]*fakeConn, 0, len(f.conns))
	for c := range f.conns {
		all = append(all, c)
	}
	f.mu.Unlock()
	p := pub{topic: topic, payload: "anything", qos: qos & 2, id: 1, dup: qos > 0, retain: true}
	for _, c := range all {
		c.write(slices.Concat(p.bytes(byte(c.version.Load())), p.bytes(byte(c.version.Load()))))
	}
}

// TestRowsCanFail holds that no row passes whatever a server does: each must fail
// on one of four servers that are wrong in different ways, for the rows of 3.1.1. Rows of what these
// servers do not have, WebSocket, are left out of this.
func TestRowsCanFail(t *testing.T) {
	suites := Suites()[:1] // of 3.1.1; one row of MQTT 5 (3.14.0-1) would still pass
	columns := make([]Column, 4)
	var wg sync.WaitGroup
	for i, kind := range []wrong{mute, loud, wall, bouncer} {
		target := startFake(t, kind)
		wg.Go(func() {
			var err error
			if columns[i], err = Run(target, suites); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for i, s := range suites {
		for j, r := range s.Rows {
			if !slices.ContainsFunc(columns, func(c Column) bool { return c.Verdicts[i][j].Outcome != Pass }) {
				t.Errorf("MQTT %s [MQTT-%s] passes on servers that are wrong", s.Name, r.ID)
			}
		}
	}
}
