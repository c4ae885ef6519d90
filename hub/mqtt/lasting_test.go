package mqtt

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"holdfast.dev/holdfast/hub"
	"holdfast.dev/holdfast/storage"
)

// site is a broker on a folder, which can be started anew.
type site struct {
	t    *testing.T
	dir  string
	cfg  Config
	b    *Broker
	stop func()
}

func newSite(t *testing.T, cfg Config) *site {
	s := &site{t: t, dir: t.TempDir(), cfg: cfg}
	if s.cfg.Listen == "" {
		s.cfg.Listen = "127.0.0.1:0"
	}
	s.start()
	t.Cleanup(func() { s.stop() })
	return s
}

func (s *site) start() {
	s.t.Helper()
	_, g := newFakes()
	db := openStore(s.t, s.dir)
	b, err := New(s.cfg, Deps{Gate: g, Gateway: "gw", Store: db, Clock: storage.SystemClock(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		s.t.Fatalf("New: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { b.Run(ctx, hub.NewCore(db, storage.SystemClock(), b.Route)); close(ended) }()
	s.b = b
	s.stop = func() {
		cancel()
		<-ended
		if err := db.Verify(); err != nil {
			s.t.Errorf("store: %v", err)
		}
		if err := db.Close(); err != nil {
			s.t.Errorf("close store: %v", err)
		}
	}
	eventually(s.t, "the broker runs", func() bool { return b.running() != nil })
}

func (s *site) restart() {
	s.t.Helper()
	s.stop()
	s.start()
}

func lasting(pk *packets.Packet) {
	pk.Connect.Clean = false
	if pk.ProtocolVersion == v5 {
		pk.Properties.SessionExpiryInterval, pk.Properties.SessionExpiryIntervalFlag = 1000, true
	}
}

// again is a client of a session that there was before.
func (s *site) again(v byte, id string) *client {
	s.t.Helper()
	c := dial(s.t, s.b)
	c.v = v
	if ack := c.connect(id, "all", "secret", lasting); ack.ReasonCode != 0 || !ack.SessionPresent {
		s.t.Fatalf("CONNACK %d, session present %v for %s", ack.ReasonCode, ack.SessionPresent, id)
	}
	return c
}

func (s *site) publish(id string, qos byte, bodies ...string) {
	s.t.Helper()
	c := ordinary(s.t, s.b, v311, "from", "all", nil)
	for i, body := range bodies {
		topic, body, _ := strings.Cut(body, " ")
		c.publish(topic, qos, uint16(i+1), body)
		switch qos {
		case 1:
			c.want(packets.Puback)
		case 2:
			c.want(packets.Pubrec)
			c.ack(packets.Pubrel, uint16(i+1))
			c.want(packets.Pubcomp)
		}
	}
	c.send(packets.Disconnect, nil)
	c.wantClosed()
}

func (c *client) ack(kind byte, id uint16) {
	c.t.Helper()
	c.send(kind, func(pk *packets.Packet) { pk.PacketID = id })
}

// What waits, what was sent and not acknowledged, and what a client subscribes to are
// there after a restart: in order, under the same ids, DUP only on what was sent.
func TestSessionOutlivesRestart(t *testing.T) {
	for _, v := range []byte{v311, v5} {
		s := newSite(t, Config{})
		c := ordinary(t, s.b, v, "c", "all", lasting)
		c.subscribe("a/#", 1)
		s.publish("from", 1, "a/1 1", "a/1 2", "b no", "a/2 3")
		first, second := c.want(packets.Publish), c.want(packets.Publish)
		if first.FixedHeader.Dup || string(first.Payload) != "1" || string(second.Payload) != "2" {
			t.Fatalf("got %q (DUP %v), %q", first.Payload, first.FixedHeader.Dup, second.Payload)
		}
		c.want(packets.Publish)
		c.puback(first.PacketID)
		c.ping()
		c.nc.Close()
		eventually(t, "c is away", func() bool { return metric(s.b, "mqtt_clients") == 0 })
		s.publish("from", 1, "a/1 4", "a/1 5")
		s.restart()
		s.publish("from", 1, "a/1 6")
		c = s.again(v, "c")
		for i, want := range []string{"2", "3", "4", "5", "6"} {
			pk := c.want(packets.Publish)
			if string(pk.Payload) != want || pk.FixedHeader.Dup != (i < 2) {
				t.Errorf("version %d: got %q with DUP %v, want %s", v, pk.Payload, pk.FixedHeader.Dup, want)
			}
			if i == 0 && pk.PacketID != second.PacketID {
				t.Errorf("version %d: packet id %d, was %d", v, pk.PacketID, second.PacketID)
			}
			c.puback(pk.PacketID)
		}
		c.ping()
		eventually(t, "all is settled", func() bool { return s.waiting() == 0 })
		s.restart()
		s.again(v, "c").ping()
	}
}

// waiting is what waits in all sessions' queues.
func (s *site) waiting() (n uint64) {
	for _, q := range s.b.store.Queues() {
		if strings.HasPrefix(q.Name(), queuePrefix) || strings.HasPrefix(q.Name(), sharePrefix) {
			n += q.Stats().Pending
		}
	}
	return n
}

// A clean start and an expiry end a session: nothing of it is left, in memory or on
// disk.
func TestSessionEnds(t *testing.T) {
	s := newSite(t, Config{})
	for _, id := range []string{"cleaned", "expired"} {
		c := ordinary(t, s.b, v5, id, "all", lasting)
		c.subscribe("a/#", 1)
		c.subscribe("$share/g/a/#", 1)
		c.send(packets.Disconnect, nil)
		c.wantClosed()
	}
	s.publish("from", 1, "a 1", "a 2")
	if n := s.waiting(); n != 6 {
		t.Fatalf("%d wait, want 6", n)
	}
	s.restart()
	c := dial(t, s.b)
	if ack := c.connect("cleaned", "all", "secret", nil); ack.SessionPresent {
		t.Errorf("a clean start finds a session")
	}
	c.ping()
	s.b.sweep(time.Now().Add(2000 * time.Second))
	eventually(t, "the queues are gone", func() bool {
		return !slices.ContainsFunc(s.b.store.Queues(), func(q *storage.Queue) bool { return q.Name() != "retained.5" })
	})
	if n := len(s.b.lasting.root.below) + len(s.b.topics.root.below); n != 0 {
		t.Errorf("%d are left in the trees", n)
	}
	s.stop()
	s.start()
	for _, m := range []string{mapSessions, mapSubscriptions, mapInbound, mapOutbound, mapWills, mapGroups} {
		if keys := s.b.store.Map(m).Keys(); len(keys) > 0 {
			t.Errorf("%s still has %q", m, keys)
		}
	}
}

// A publish of quality 2 is kept once, whatever the client repeats, across restarts.
func TestInboundExactlyOnce(t *testing.T) {
	for _, v := range []byte{v311, v5} {
		s := newSite(t, Config{})
		sub := ordinary(t, s.b, v311, "sub", "all", lasting)
		sub.subscribe("t", 1)
		sub.send(packets.Disconnect, nil)
		sub.wantClosed()
		c := ordinary(t, s.b, v, "c", "all", lasting)
		c.publish("t", 2, 7, "x")
		c.want(packets.Pubrec)
		s.restart()
		c = s.again(v, "c")
		c.publish("t", 2, 7, "x")
		c.want(packets.Pubrec)
		c.publish("t", 2, 7, "x") // and again on the same connection
		c.want(packets.Pubrec)
		c.ack(packets.Pubrel, 7)
		c.want(packets.Pubcomp)
		s.restart()
		c = s.again(v, "c")
		c.ack(packets.Pubrel, 7) // PUBCOMP was lost
		c.want(packets.Pubcomp)
		c.publish("t", 2, 7, "y") // a new one
		c.want(packets.Pubrec)
		if n := s.waiting(); n != 2 {
			t.Errorf("version %d: %d messages are kept, want 2", v, n)
		}
	}
}

// A delivery of quality 2 goes on where it was, across restarts: PUBLISH until PUBREC
// is on disk, then PUBREL until PUBCOMP, and never PUBLISH again.
func TestOutboundExactlyOnce(t *testing.T) {
	for _, v := range []byte{v311, v5} {
		s := newSite(t, Config{})
		c := ordinary(t, s.b, v, "c", "all", lasting)
		c.subscribe("t", 2)
		s.publish("from", 2, "t 1", "t 2")
		one, two := c.want(packets.Publish), c.want(packets.Publish)
		if one.FixedHeader.Qos != 2 {
			t.Fatalf("quality %d, want 2", one.FixedHeader.Qos)
		}
		s.restart()
		c = s.again(v, "c")
		for _, was := range []packets.Packet{one, two} {
			pk := c.want(packets.Publish)
			if pk.PacketID != was.PacketID || !pk.FixedHeader.Dup || string(pk.Payload) != string(was.Payload) {
				t.Errorf("version %d: %q again with id %d and DUP %v", v, pk.Payload, pk.PacketID, pk.FixedHeader.Dup)
			}
		}
		c.ack(packets.Pubrec, one.PacketID)
		c.want(packets.Pubrel)
		s.restart()
		c = s.again(v, "c")
		got := map[byte]uint16{}
		for range 2 {
			pk, err := c.read()
			if err != nil {
				t.Fatal(err)
			}
			got[pk.FixedHeader.Type] = pk.PacketID
		}
		if got[packets.Publish] != two.PacketID || len(got) != 2 {
			t.Errorf("version %d: after the restart came %v, want PUBREL for the first and PUBLISH %d", v, got, two.PacketID)
		}
		c.ack(packets.Pubcomp, one.PacketID)
		c.ack(packets.Pubrec, two.PacketID)
		c.want(packets.Pubrel)
		c.ack(packets.Pubcomp, two.PacketID)
		c.ping()
		eventually(t, "nothing is under way", func() bool {
			return s.waiting() == 0 && len(s.b.store.Map(mapOutbound).Keys()) == 0
		})
		s.restart()
		s.again(v, "c").ping()
	}
}

// What is retained is there after a restart, the newest of each topic; what was
// removed is not.
func TestRetainedOutlivesRestart(t *testing.T) {
	s := newSite(t, Config{})
	c := ordinary(t, s.b, v5, "c", "all", nil)
	retain := func(topic, body string, expiry uint32) {
		c.send(packets.Publish, func(pk *packets.Packet) {
			pk.FixedHeader.Qos, pk.FixedHeader.Retain, pk.PacketID, pk.TopicName, pk.Payload = 1, true, 1, topic, []byte(body)
			pk.Properties.MessageExpiryInterval = expiry
			pk.Properties.ContentType = "text"
		})
		c.want(packets.Puback)
	}
	for i := range 50 {
		retain("a", fmt.Sprint(i), 0)
	}
	retain("b", "x", 0)
	retain("b", "", 0)
	retain("c", "y", 1000)
	s.restart()
	eventually(t, "the old ones are settled", func() bool {
		return s.b.store.Queue("retained.5").Stats().Pending == 2
	})
	for _, terms := range []func(*packets.Packet){nil, lasting} {
		sub := ordinary(t, s.b, v5, "sub", "all", terms)
		sub.subscribe("#", 1)
		got := map[string]string{}
		for range 2 {
			pk := sub.want(packets.Publish)
			got[pk.TopicName] = string(pk.Payload)
			if !pk.FixedHeader.Retain || pk.Properties.ContentType != "text" || (pk.TopicName == "c") != (pk.Properties.MessageExpiryInterval > 900) {
				t.Errorf("%s: retain %v, %+v", pk.TopicName, pk.FixedHeader.Retain, pk.Properties)
			}
			sub.puback(pk.PacketID)
		}
		if got["a"] != "49" || got["c"] != "y" {
			t.Errorf("retained are %v", got)
		}
		sub.ping()
		sub.send(packets.Disconnect, nil)
		sub.wantClosed()
	}
}

// Retained messages that a new subscription of a lasting session has matched are the
// session's, whatever becomes of the connection.
func TestGreetingOutlivesConnection(t *testing.T) {
	s := newSite(t, Config{})
	c := ordinary(t, s.b, v311, "c", "all", nil)
	for _, topic := range []string{"r/1", "r/2"} {
		c.send(packets.Publish, func(pk *packets.Packet) {
			pk.FixedHeader.Qos, pk.FixedHeader.Retain, pk.PacketID, pk.TopicName, pk.Payload = 1, true, 1, topic, []byte("old")
		})
		c.want(packets.Puback)
	}
	sub := ordinary(t, s.b, v311, "sub", "all", lasting)
	sub.subscribe("r/#", 1)
	s.restart() // before it has acknowledged any
	c = ordinary(t, s.b, v311, "c", "all", nil)
	c.send(packets.Publish, func(pk *packets.Packet) {
		pk.FixedHeader.Qos, pk.FixedHeader.Retain, pk.PacketID, pk.TopicName, pk.Payload = 1, true, 1, "r/1", []byte("new")
	})
	c.want(packets.Puback)
	eventually(t, "the newer one is retained", func() bool {
		found := s.b.retained.matching("r/1")
		return len(found) == 1 && string(found[0].body) == "new"
	})
	sub = s.again(v311, "sub")
	got := map[string]string{}
	for range 2 {
		pk := sub.want(packets.Publish)
		got[pk.TopicName+fmt.Sprint(pk.FixedHeader.Retain)] = string(pk.Payload)
		sub.puback(pk.PacketID)
	}
	if got["r/2true"] != "old" || got["r/1false"] != "new" {
		t.Errorf("got %v", got)
	}
	sub.ping()
}

// A will of a client that was connected when the gateway went is sent at the next
// start, and only then.
func TestWillOutlivesRestart(t *testing.T) {
	s := newSite(t, Config{})
	sub := ordinary(t, s.b, v311, "sub", "all", lasting)
	sub.subscribe("wills/#", 1)
	ordinary(t, s.b, v311, "c", "all", func(pk *packets.Packet) {
		k := &pk.Connect
		k.WillFlag, k.WillQos, k.WillTopic, k.WillPayload = true, 1, "wills/c", []byte("bye")
	})
	polite := ordinary(t, s.b, v311, "p", "all", func(pk *packets.Packet) {
		k := &pk.Connect
		k.WillFlag, k.WillQos, k.WillTopic, k.WillPayload = true, 1, "wills/p", []byte("bye")
	})
	polite.send(packets.Disconnect, nil)
	polite.wantClosed()
	for range 2 {
		s.restart()
	}
	sub = s.again(v311, "sub")
	if pk := sub.want(packets.Publish); pk.TopicName != "wills/c" {
		t.Errorf("will on %s", pk.TopicName)
	}
	sub.ping()
}

// Members of a group share what comes; what one had not acknowledged goes to another;
// while nobody is there it waits.
func TestGroup(t *testing.T) {
	s := newSite(t, Config{})
	a := ordinary(t, s.b, v5, "a", "all", lasting)
	a.subscribe("$share/g/job/#", 2)
	s.publish("from", 2, "job/1 1", "job/1 2", "job/1 3")
	for i := range 3 {
		pk := a.want(packets.Publish)
		if pk.FixedHeader.Qos != 1 || string(pk.Payload) != fmt.Sprint(i+1) {
			t.Errorf("got %q at quality %d", pk.Payload, pk.FixedHeader.Qos)
		}
		if i == 0 {
			a.puback(pk.PacketID)
		}
	}
	a.ping()
	a.nc.Close()
	eventually(t, "a is away", func() bool { return metric(s.b, "mqtt_clients") == 0 })
	s.publish("from", 1, "job/1 4")
	s.restart()
	b := ordinary(t, s.b, v5, "b", "all", nil)
	b.subscribe("$share/g/job/#", 1)
	for _, want := range []string{"2", "3", "4"} {
		pk := b.want(packets.Publish)
		if string(pk.Payload) != want {
			t.Errorf("got %q, want %s", pk.Payload, want)
		}
		b.puback(pk.PacketID)
	}
	s.publish("from", 0, "job/1 zero")
	if pk := b.want(packets.Publish); string(pk.Payload) != "zero" || pk.FixedHeader.Qos != 0 {
		t.Errorf("got %q at quality %d", pk.Payload, pk.FixedHeader.Qos)
	}
	b.ping()
	eventually(t, "all is settled", func() bool { return s.waiting() == 0 })
}

// What was away as the power went is known to have been sent or not; of who was
// connected, all that waits may have been.
func TestDupAfterPowerCut(t *testing.T) {
	s := newSite(t, Config{})
	asleep := ordinary(t, s.b, v311, "asleep", "all", lasting)
	asleep.subscribe("t", 1)
	asleep.send(packets.Disconnect, nil)
	asleep.wantClosed()
	awake := ordinary(t, s.b, v311, "awake", "all", lasting)
	awake.subscribe("t", 1)
	s.publish("from", 1, "t 1")
	awake.want(packets.Publish)
	s.b.mu.RLock()
	session := s.b.sessions["client\x00awake"]
	s.b.mu.RUnlock()
	s.stop()
	// What the disk would have if the power had gone instead: the session with a connection.
	db := openStore(t, s.dir)
	kept, _ := db.Map(mapSessions).Get(session.key)
	was := strings.Replace(string(kept), `"away"`, `"was"`, 1)
	if was == string(kept) {
		t.Fatalf("session is %s", kept)
	}
	was = strings.Replace(was, `"sent":1`, `"sent":0`, 1)
	if err := db.Map(mapSessions).Set(t.Context(), map[string][]byte{session.key: []byte(was)}); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	s.start()
	for id, dup := range map[string]bool{"asleep": false, "awake": true} {
		if pk := s.again(v311, id).want(packets.Publish); pk.FixedHeader.Dup != dup {
			t.Errorf("%s gets it with DUP %v", id, pk.FixedHeader.Dup)
		}
	}
}

// What was sent once comes again though its time is over: the client may have half of
// it. What was never sent does not [MQTT-4.3.3-7].
func TestSentDoesNotExpire(t *testing.T) {
	s := newSite(t, Config{})
	c := ordinary(t, s.b, v5, "c", "all", lasting)
	c.subscribe("t", 2)
	from := ordinary(t, s.b, v5, "from", "all", nil)
	publish := func(body string) {
		from.send(packets.Publish, func(pk *packets.Packet) {
			pk.FixedHeader.Qos, pk.PacketID, pk.TopicName, pk.Payload = 1, 1, "t", []byte(body)
			pk.Properties.MessageExpiryInterval = 1
		})
		from.want(packets.Puback)
	}
	publish("sent")
	c.want(packets.Publish)
	c.nc.Close()
	eventually(t, "c is away", func() bool { return metric(s.b, "mqtt_clients") == 1 })
	publish("not sent")
	began := time.Now()
	eventually(t, "the time is over", func() bool { return time.Since(began) > 1200*time.Millisecond })
	c = s.again(v5, "c")
	if pk := c.want(packets.Publish); string(pk.Payload) != "sent" || !pk.FixedHeader.Dup {
		t.Errorf("got %q with DUP %v", pk.Payload, pk.FixedHeader.Dup)
	}
	c.ping()
	eventually(t, "the other is expired", func() bool { return s.waiting() == 1 })
}

// A client that publishes more at quality 2 than it was told it may is hung up.
func TestReceiveMaximum(t *testing.T) {
	s := newSite(t, Config{Window: 5})
	c := ordinary(t, s.b, v5, "c", "all", lasting)
	for i := range 5 {
		c.publish("t", 2, uint16(i+1), "x")
		c.want(packets.Pubrec)
	}
	c.publish("t", 2, 3, "x") // a repeat is none more
	c.want(packets.Pubrec)
	c.publish("t", 2, 6, "x")
	if bye := c.want(packets.Disconnect); bye.ReasonCode != codeReceiveMaximum {
		t.Errorf("DISCONNECT %#x, want %#x", bye.ReasonCode, codeReceiveMaximum)
	}
	c = s.again(v5, "c")
	c.publish("t", 2, 6, "x") // a new connection counts anew
	c.want(packets.Pubrec)
}

// A PUBREC that cannot be noted counts for nothing: the client is hung up, and gets the
// message again.
func TestReceivedNotNoted(t *testing.T) {
	b, _, _ := start(t, Config{})
	c := ordinary(t, b, v311, "c", "all", lasting)
	c.subscribe("t", 2)
	from := ordinary(t, b, v311, "from", "all", nil)
	from.publish("t", 1, 1, "x")
	from.want(packets.Puback)
	pk := c.want(packets.Publish)
	if pk.FixedHeader.Qos != 1 {
		t.Fatalf("quality %d, want 1", pk.FixedHeader.Qos)
	}
	from.publish("t", 2, 2, "y")
	from.want(packets.Pubrec)
	pk = c.want(packets.Publish)
	b.mu.RLock()
	s := b.sessions["client\x00c"]
	b.mu.RUnlock()
	if err := b.store.Close(); err != nil {
		t.Fatal(err)
	}
	c.ack(packets.Pubrec, pk.PacketID)
	c.wantClosed()
	eventually(t, "the id is free", func() bool { e, _ := s.out.find(pk.PacketID); return e == nil })
}

// A packet id whose session has ended is taken off the disk.
func TestLeftovers(t *testing.T) {
	s := newSite(t, Config{})
	c := ordinary(t, s.b, v311, "c", "all", lasting)
	c.publish("t", 2, 7, "x")
	c.want(packets.Pubrec)
	gone := idKey("client\x00gone", 7)
	if err := s.b.store.Map(mapInbound).Set(t.Context(), map[string][]byte{gone: {1}}); err != nil {
		t.Fatal(err)
	}
	s.restart()
	eventually(t, "only the other's is left", func() bool {
		keys := s.b.store.Map(mapInbound).Keys()
		return len(keys) == 1 && keys[0] == idKey("client\x00c", 7)
	})
}
