package mqtt

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"holdfast.dev/holdfast/hub"
)

// fullHub has room when it is told so; what it keeps it remembers.
type fullHub struct {
	*fakeHub
	err   error // nil: there is room
	asked int
	kept  []string
}

func (h *fullHub) Publish(_ context.Context, m hub.Message, done func(error)) {
	h.mu.Lock()
	h.asked++
	err := h.err
	if err == nil {
		h.kept = append(h.kept, string(m.Body))
	}
	h.mu.Unlock()
	done(err)
}

func (h *fullHub) room(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.err = err
}

func (h *fullHub) tried() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.asked
}

func (h *fullHub) bodies() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.kept)
}

// bubble runs f with a broker whose hub is full, on the bubble's clock.
func bubble(t *testing.T, cfg Config, f func(b *Broker, h *fullHub)) {
	synctest.Test(t, func(t *testing.T) {
		fake, g := newFakes()
		h := &fullHub{fakeHub: fake, err: fmt.Errorf("commit: %w", hub.ErrFull)}
		cfg.Listen = "off"
		b, err := New(cfg, stored(t, Deps{Gate: g, Gateway: "gw", Log: slog.New(slog.DiscardHandler)}))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { b.Run(ctx, h); close(ended) }()
		synctest.Wait()
		f(b, h)
		cancel()
		<-ended
	})
}

func admitted(t *testing.T, b *Broker, v byte) *client {
	c := pipe(t, b, v)
	c.send(packets.Connect, hello)
	c.want(packets.Connack)
	return c
}

// quiet says that the client gets nothing for so long.
func (c *client) quiet(d time.Duration) {
	c.t.Helper()
	c.nc.SetReadDeadline(time.Now().Add(d))
	if p, err := c.br.Peek(1); err == nil {
		c.t.Fatalf("got %x, want nothing for %v", p, d)
	}
	c.nc.SetReadDeadline(time.Time{})
	c.br.Reset(c.nc) // it remembers the error
}

// A full disk that is drained within the time costs the client nothing.
func TestHoldUntilThereIsRoom(t *testing.T) {
	for _, v := range []byte{v311, v5} {
		bubble(t, Config{Window: 8}, func(b *Broker, h *fullHub) {
			c := admitted(t, b, v)
			for i := 1; i <= 5; i++ {
				c.publish("t", 1, uint16(i), fmt.Sprint(i))
			}
			c.quiet(10 * time.Second)
			for i := 6; i <= 8; i++ { // come later, and wait behind
				c.publish("t", 1, uint16(i), fmt.Sprint(i))
			}
			c.quiet(time.Second)
			if n := h.tried(); n < 10 || n > 40 {
				t.Errorf("hub was asked %d times in 11 s, want about two each second", n)
			}
			h.room(nil)
			for i := 1; i <= 8; i++ {
				if ack := c.want(packets.Puback); ack.PacketID != uint16(i) || ack.ReasonCode != 0 {
					t.Errorf("version %d: PUBACK %d %#x, want %d", v, ack.PacketID, ack.ReasonCode, i)
				}
			}
			want := []string{"1", "2", "3", "4", "5", "6", "7", "8"}
			if got := h.bodies(); !slices.Equal(got, want) {
				t.Errorf("version %d: kept %v, want %v", v, got, want)
			}
			// The hold is over: the next goes straight through, and so does a next hold.
			began := time.Now()
			c.publish("t", 1, 9, "9")
			c.want(packets.Puback)
			if d := time.Since(began); d != 0 {
				t.Errorf("version %d: a later message took %v", v, d)
			}
			h.room(hub.ErrFull)
			if n := metric(b, "mqtt_held_total"); n == 0 || n > 8 {
				t.Errorf("%v messages are said to have been held, want 1 to 8", n)
			}
			c.publish("t", 1, 10, "10")
			c.quiet(5 * time.Second)
			h.room(nil)
			c.want(packets.Puback)
		})
	}
}

// One that is not, ends the connection on 3.1.1 and gives a reason on 5, but not
// before: who is turned away at once comes back at once.
func TestHoldEnds(t *testing.T) {
	for _, err := range []error{hub.ErrFull, errors.New("disk is on fire")} {
		bubble(t, Config{}, func(b *Broker, h *fullHub) {
			h.room(err)
			c := admitted(t, b, v311)
			c.publish("t", 1, 1, "x")
			c.publish("t", 1, 2, "y")
			c.quiet(holdTime - time.Second)
			c.wantClosed()
		})
		bubble(t, Config{}, func(b *Broker, h *fullHub) {
			h.room(err)
			c := admitted(t, b, v5)
			for range 2 { // a second time as the first
				c.publish("t", 1, 1, "x")
				c.publish("t", 1, 2, "y")
				c.quiet(holdTime - time.Second)
				for i := 1; i <= 2; i++ {
					if ack := c.want(packets.Puback); ack.PacketID != uint16(i) || ack.ReasonCode != codeQuota {
						t.Errorf("PUBACK %d %#x, want %d %#x", ack.PacketID, ack.ReasonCode, i, codeQuota)
					}
				}
			}
			h.room(nil)
			c.publish("t", 1, 3, "z")
			if ack := c.want(packets.Puback); ack.ReasonCode != 0 {
				t.Errorf("PUBACK %#x after there was room", ack.ReasonCode)
			}
			if got := h.bodies(); !slices.Equal(got, []string{"z"}) {
				t.Errorf("kept %v, want [z]", got)
			}
			if n := metric(b, "mqtt_acked_total"); n != 1 {
				t.Errorf("%v acknowledged, want 1", n)
			}
		})
	}
}

// The pressure is on the one client, once its window is full.
func TestHoldIsBackPressure(t *testing.T) {
	bubble(t, Config{Window: 2}, func(b *Broker, h *fullHub) {
		c := admitted(t, b, v311)
		sent := make(chan int, 10)
		go func() {
			for i := 1; i <= 9; i++ {
				c.publish("t", 1, uint16(i), fmt.Sprint(i))
				sent <- i
			}
		}()
		time.Sleep(5 * time.Second)
		if n := len(sent); n > 4 { // two in the window, one read, one in the pipe
			t.Errorf("%d publishes were read with a window of 2", n)
		}
		h.room(nil)
		for i := 1; i <= 9; i++ {
			if ack := c.want(packets.Puback); ack.PacketID != uint16(i) {
				t.Errorf("PUBACK %d, want %d", ack.PacketID, i)
			}
		}
		if got := h.bodies(); len(got) != 9 || !slices.IsSorted(got) {
			t.Errorf("kept %v, want 1 to 9", got)
		}
	})
}

// A client that goes while its message is held takes it along, once.
func TestHoldEndsWithConnection(t *testing.T) {
	bubble(t, Config{}, func(b *Broker, h *fullHub) {
		c := admitted(t, b, v311)
		c.publish("t", 1, 1, "x")
		c.quiet(3 * time.Second)
		c.nc.Close()
		synctest.Wait()
		h.room(nil)
		time.Sleep(time.Minute)
		if got := h.bodies(); len(got) != 0 {
			t.Errorf("kept %v of a client that has gone", got)
		}
		if n := metric(b, "mqtt_clients"); n != 0 {
			t.Errorf("%v clients, want 0", n)
		}
	})
}

// What other clients get they get once, and only when it is kept.
func TestHeldGoesToOthersOnce(t *testing.T) {
	bubble(t, Config{}, func(b *Broker, h *fullHub) {
		sub := pipe(t, b, v311)
		sub.send(packets.Connect, func(pk *packets.Packet) { hello(pk); pk.Connect.ClientIdentifier = "sub" })
		sub.want(packets.Connack)
		sub.subscribe("#", 1)
		c := admitted(t, b, v311)
		c.publish("t", 1, 1, "x")
		sub.quiet(5 * time.Second)
		h.room(nil)
		c.want(packets.Puback)
		if pk := sub.want(packets.Publish); string(pk.Payload) != "x" {
			t.Errorf("got %q", pk.Payload)
		}
		sub.quiet(9 * time.Second)
	})
}

// What is held is in memory: large messages fill the place of many small ones.
func TestHoldIsBounded(t *testing.T) {
	bubble(t, Config{}, func(b *Broker, h *fullHub) {
		c := admitted(t, b, v311)
		sent := make(chan int, 100)
		go func() {
			for i := 1; i <= 50; i++ {
				c.publish("t", 1, uint16(i), string(make([]byte, 60_000)))
				sent <- i
			}
		}()
		time.Sleep(5 * time.Second)
		if n := len(sent); n > 6 {
			t.Errorf("%d publishes of 60 kB were read while the store was full", n)
		}
		h.room(nil)
		for i := 1; i <= 50; i++ {
			if ack := c.want(packets.Puback); ack.PacketID != uint16(i) {
				t.Fatalf("PUBACK %d, want %d", ack.PacketID, i)
			}
		}
		if n := len(h.bodies()); n != 50 {
			t.Errorf("%d kept, want 50", n)
		}
	})
}

// commitHub says done in order on a goroutine of its own, as the store does, and
// has room for one batch and none for the next, by chance.
type commitHub struct {
	*fakeHub
	line chan commit
	kept []string
}

type commit struct {
	body string
	done func(error)
}

func (h *commitHub) Publish(_ context.Context, m hub.Message, done func(error)) {
	h.line <- commit{string(m.Body), done}
}

func (h *commitHub) run(ctx context.Context) {
	for {
		var batch []commit
		select {
		case c := <-h.line:
			batch = append(batch, c)
		case <-ctx.Done():
			return
		}
		for n := len(h.line); n > 0; n-- {
			batch = append(batch, <-h.line)
		}
		var err error
		if rand.IntN(2) > 0 {
			err = hub.ErrFull
		}
		for _, c := range batch {
			if err == nil {
				h.kept = append(h.kept, c.body)
			}
			c.done(err)
		}
	}
}

// However failures and new messages meet, each is kept and acknowledged once.
func TestHoldLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake, g := newFakes()
		h := &commitHub{fakeHub: fake, line: make(chan commit, 1000)}
		b, err := New(Config{Listen: "off", Window: 20}, stored(t, Deps{Gate: g, Log: slog.New(slog.DiscardHandler)}))
		if err != nil {
			t.Fatal(err)
		}
		b.hub = h
		ctx, cancel := context.WithCancel(t.Context())
		go h.run(ctx)
		go b.fan.run(ctx, b)
		const count = 3000
		c := admitted(t, b, v5)
		go func() {
			for i := range count {
				c.publish("t", 1, uint16(i+1), fmt.Sprint(i))
			}
		}()
		for i := range count {
			if ack := c.want(packets.Puback); int(ack.PacketID) != i+1 || ack.ReasonCode != 0 {
				t.Fatalf("PUBACK %d %#x, want %d", ack.PacketID, ack.ReasonCode, i+1)
			}
		}
		c.nc.Close()
		b.wg.Wait()
		cancel()
		synctest.Wait()
		seen := map[string]bool{}
		for _, body := range h.kept {
			if seen[body] {
				t.Errorf("%s was kept twice", body)
			}
			seen[body] = true
		}
		if len(seen) != count {
			t.Errorf("%d kept, want %d", len(seen), count)
		}
	})
}
