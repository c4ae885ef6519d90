package conform

import (
	"crypto/rand"
	"fmt"
	"net"
	"strings"
	"time"
)

// Try is one attempt of a row at a target: it makes clients, and names that no
// other row uses. Its methods, and those of its clients, end the row by a panic
// that attempt turns into a verdict; so they are for the row's own goroutine.
type Try struct {
	Target  *Target
	Version byte // protocol level of the clients: 4 or 5

	name  string // of this attempt, for client ids and topics
	count int
	doing string // where a row with many steps is, for its verdict
	conns []*conn
}

// Outcome is what came of a row.
type Outcome byte

const (
	Pass          Outcome = iota
	Fail                  // Seen says what was seen
	NotApplicable         // Seen says why
)

func (o Outcome) String() string { return [...]string{"pass", "FAIL", "n/a"}[o] }

// Verdict is what came of a row, and what was seen unless it passed.
type Verdict struct {
	Outcome Outcome
	Seen    string
}

// attempt runs one row. A row that panics for another reason than its verdict has
// a mistake, and takes the test down with it.
func attempt(target *Target, version byte, run func(*Try)) (v Verdict) {
	t := &Try{Target: target, Version: version, name: strings.ToLower(rand.Text()[:10])}
	defer func() {
		for _, c := range t.conns {
			c.close()
		}
		switch r := recover().(type) {
		case nil:
		case Verdict:
			v = r
		default:
			panic(r)
		}
	}()
	run(t)
	return Verdict{}
}

// step says what a row with many steps does next.
func (t *Try) step(format string, args ...any) { t.doing = fmt.Sprintf(format, args...) + ": " }

// failf ends the row: it failed, and that is what was seen.
func (t *Try) failf(format string, args ...any) {
	panic(Verdict{Fail, t.doing + fmt.Sprintf(format, args...)})
}

// notApplicable ends the row: it cannot be tried here, and that is why.
func (t *Try) notApplicable(why string) { panic(Verdict{NotApplicable, why}) }

// id is a fresh client id, of 16 letters and digits at most.
func (t *Try) id() string {
	t.count++
	return fmt.Sprintf("%sc%d", t.name, t.count)
}

// topic is a topic of this attempt alone. rest is without a leading slash; it may
// have wildcards.
func (t *Try) topic(rest string) string { return "conform/" + t.name + "/" + rest }

// hello is a CONNECT packet that is in order: a fresh client id, a clean session
// and the target's account.
func (t *Try) hello() hello {
	h := hello{name: "MQTT", level: t.Version, clean: true, keep: 60, id: t.id()}
	if t.Target.User != "" {
		h.user, h.password = &t.Target.User, &t.Target.Password
	}
	return h
}

// dial opens a connection, on which nothing has been said yet.
func (t *Try) dial() *conn {
	nc, err := net.DialTimeout("tcp", t.Target.Addr, t.Target.Patience)
	if err != nil {
		t.failf("dial: %v", err)
	}
	return t.on(nc)
}

// on is a client on a connection that is there.
func (t *Try) on(nc net.Conn) *conn {
	c := newConn(t, nc)
	t.conns = append(t.conns, c)
	return c
}

// open dials, says h and gives the CONNACK, whatever its code.
func (t *Try) open(h hello) (*conn, packet) {
	c := t.dial()
	c.version = h.level
	c.send(h.bytes())
	c.connack = c.expect(kindConnack)
	return c, c.connack
}

// connect is a client that was let in. change, which may be nil, has its CONNECT
// packet before it is sent.
func (t *Try) connect(change func(*hello)) *conn {
	h := t.hello()
	if change != nil {
		change(&h)
	}
	c, ack := t.open(h)
	if ack.code != 0 {
		t.failf("%v to a CONNECT that is in order", ack)
	}
	return c
}

// client is a client with a clean session that was let in.
func (t *Try) client() *conn { return t.connect(nil) }

// mortal is a client with a will.
func (t *Try) mortal(w lastWill) *conn {
	return t.connect(func(h *hello) { h.will = &w })
}

// sleeper is a client whose session outlives its connection: in MQTT 5 for an hour.
func (t *Try) sleeper(id string) *conn {
	return t.connect(func(h *hello) { t.asSleeper(h, id) })
}

func (t *Try) asSleeper(h *hello, id string) {
	h.id, h.clean = id, false
	if h.level == v5 {
		h.props = append(h.props, number(propSessionExpiry, 3600)...)
	}
}

// forget ends the session of a sleeper, so that a target does not keep it.
func (t *Try) forget(id string) {
	t.connect(func(h *hello) { h.id = id }).leave()
}

// settle waits until all that was published and acknowledged has been passed on. A
// server may acknowledge first, and who subscribes meanwhile gets the message as
// well; that is no fault, but not what a row is about that subscribes afterwards.
func (t *Try) settle() {
	c := t.client()
	c.listen(1, t.topic("settle"))
	c.publish(pub{topic: t.topic("settle"), qos: 1})
	c.finish(c.await("PUBLISH", isPublish("")))
	c.leave()
}

// refused says h, which must not be let in. It gives the CONNACK, if there was one,
// when the connection has ended.
func (t *Try) refused(h hello) *packet {
	c := t.dial()
	c.version = h.level
	c.send(h.bytes())
	p, err := c.read("a refusal, or the connection closed")
	if err != nil {
		return nil
	}
	if p.kind != kindConnack || p.code == 0 {
		t.failf("%v, want a refusal", p)
	}
	if said := c.untilClosed(); len(said) > 0 {
		t.failf("%v after a refusal, want the connection closed", said[0])
	}
	return &p
}

// moment is how long a row waits to see that nothing comes.
const moment = 250 * time.Millisecond
