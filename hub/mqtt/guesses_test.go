package mqtt

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestGuesses(t *testing.T) {
	a, b := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	start := time.Unix(1_000_000, 0)
	type guess struct {
		after time.Duration
		from  netip.Addr
		name  string
		want  time.Duration
	}
	ms := time.Millisecond
	for _, tt := range []struct {
		name string
		list []guess
	}{
		{"one place, one name", []guess{{0, a, "x", 100 * ms}, {0, a, "x", 200 * ms}, {0, a, "x", 400 * ms}, {0, a, "x", 800 * ms}, {0, a, "x", 1600 * ms}, {0, a, "x", 3000 * ms}, {0, a, "x", 3000 * ms}}},
		{"one place, many names", []guess{{0, a, "x", 100 * ms}, {0, a, "y", 200 * ms}, {0, a, "z", 400 * ms}}},
		{"many places, one name", []guess{{0, a, "x", 100 * ms}, {0, b, "x", 200 * ms}, {0, a, "x", 400 * ms}}},
		{"others", []guess{{0, a, "x", 100 * ms}, {0, a, "x", 200 * ms}, {0, b, "y", 100 * ms}}},
		{"forgiven", []guess{{0, a, "x", 100 * ms}, {30 * time.Second, a, "x", 200 * ms}, {time.Minute, a, "x", 100 * ms}}},
	} {
		g, now := newGuesses(), start
		for i, x := range tt.list {
			now = now.Add(x.after)
			if got := g.wrong(now, x.from, x.name); got != x.want {
				t.Errorf("%s: number %d waits %v, want %v", tt.name, i+1, got, x.want)
			}
		}
	}
}

// Names and addresses that are made up do not fill the memory, and do not push out
// who has been at it of late.
func TestGuessesAreBounded(t *testing.T) {
	g, now := newGuesses(), time.Unix(1_000_000, 0)
	long := strings.Repeat("x", 60_000)
	for i := range maxTries + 200 {
		now = now.Add(time.Millisecond)
		from := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		g.wrong(now, from, fmt.Sprint(long, i))
		if i%100 == 0 {
			g.wrong(now, netip.MustParseAddr("192.0.2.1"), "victim")
		}
	}
	if len(g.addresses) > maxTries || len(g.names) > maxTries {
		t.Errorf("%d addresses and %d names are remembered, at most %d are allowed", len(g.addresses), len(g.names), maxTries)
	}
	if d := g.wrong(now, netip.MustParseAddr("192.0.2.2"), "victim"); d != mostWait {
		t.Errorf("the next wrong one for victim waits %v, want %v", d, mostWait)
	}
}

// safeBuffer is a log that may be read while it is written.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// The answer to a wrong credential comes later each time, a right one at once; the
// log says who and from where, and never the credential.
func TestFailedLogins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, g := newFakes()
		log := &safeBuffer{}
		b, err := New(Config{Listen: "off"}, stored(t, Deps{Gate: g, Log: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))}))
		if err != nil {
			t.Fatal(err)
		}
		b.hub = h
		login := func(id, user, password string) (byte, time.Duration) {
			began := time.Now()
			c := pipe(t, b, v311)
			defer c.nc.Close()
			return c.connect(id, user, password, nil).ReasonCode, time.Since(began)
		}
		for i, want := range []time.Duration{100, 200, 400, 800, 1600, 3000, 3000} {
			user, id := "all", "c"
			if i%2 == 1 {
				user, id = deviceUser("d1"), "d1"
			}
			code, took := login(id, user, "my-secret-guess")
			if code != 5 || took != want*time.Millisecond {
				t.Errorf("wrong password number %d: CONNACK %d after %v, want 5 after %v", i+1, code, took, want*time.Millisecond)
			}
			if code, took := login("c", "all", "secret"); code != 0 || took != 0 {
				t.Errorf("right password: CONNACK %d after %v", code, took)
			}
		}
		if code, took := login("c", "all", "unsure"); code != 3 || took != 0 {
			t.Errorf("a password that cannot be judged: CONNACK %d after %v", code, took)
		}
		time.Sleep(forgiven)
		if _, took := login("c", "all", "my-secret-guess"); took != firstWait {
			t.Errorf("wrong password after a quiet minute: %v, want %v", took, firstWait)
		}
		// Whoever leaves meanwhile does not keep a goroutine waiting.
		c := pipe(t, b, v311)
		c.send(1, hello)
		c.nc.Close()
		b.wg.Wait()
		text := log.String()
		if strings.Contains(text, "my-secret-guess") || strings.Contains(text, "secret") {
			t.Errorf("the log has a password in it:\n%s", text)
		}
		if !strings.Contains(text, `msg="client refused" client=c reason="not authorized" error="from `) {
			t.Errorf("the log does not tell of it:\n%s", text)
		}
	})
}
