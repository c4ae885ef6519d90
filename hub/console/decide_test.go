package console

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"holdfast.dev/holdfast/hub"
	"holdfast.dev/holdfast/storage"
)

func TestDiscard(t *testing.T) {
	for _, c := range []struct {
		name   string
		args   string
		d01    uint64 // discarded of 2500, the last parked by itself
		d02    uint64 // of 3, parked as a sender
		output string
	}{
		{"sender", "queue discard up.5 --sender d01", 2500, 0, "2500 messages"},
		{"parked sender", "queue discard up.5 --sender d02", 0, 3, "3 messages"},
		{"nobody", "queue discard up.5 --sender d03", 0, 0, "0 messages"},
		{"position", "queue discard up.5 --position 7", 1, 0, "1 message"},
		{"all", "queue discard up.5 --all", 2500, 3, "2503 messages"},
		{"parked", "queue parked discard --all", 1, 3, "4 messages"},
		{"parked of one", "queue parked discard up.5 --sender d01", 1, 0, "1 message"},
		{"parked position", "queue parked discard up.5 --position 2500", 1, 0, "1 message"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFixture(t)
			f.some("d01", 2500)
			f.some("d02", 3)
			f.publish(hub.Message{From: "d01", Topic: "side/x"})
			f.parkRecord(2500, "bad")
			f.park("d02", "refused")
			args := strings.Fields(c.args)
			f.want(f.ask(StatusUsage, args...), "would discard "+c.output+"\n", "nothing was discarded", "--yes")
			if a, b := f.row("d01"), f.row("d02"); a.Discarded+b.Discarded != 0 || a.Pending != 2499 {
				t.Errorf("without --yes: %+v %+v", a, b)
			}
			f.want(f.ask(StatusOK, append(args, "--yes")...), c.output+" discarded")
			f.reopen() // it is on disk
			a, b := f.row("d01"), f.row("d02")
			if a.Discarded != c.d01 || b.Discarded != c.d02 || a.Pending+a.Parked != 2500-c.d01 || b.Pending+b.Parked != 3-c.d02 {
				t.Errorf("ledger: %+v %+v", a, b)
			}
			if s := f.Queue.Queue("side.3").Stats(); s.Pending != 1 {
				t.Errorf("another queue: %+v", s)
			}
		})
	}
}

// A position that has ended does not stand for the next one.
func TestDiscardOfWhatIsNotThere(t *testing.T) {
	f := newFixture(t)
	f.some("d01", 3)
	f.ask(StatusOK, "queue", "discard", "up.5", "--position", "2", "--yes")
	for _, c := range []string{"discard up.5 --position 2", "discard up.5 --position 2 --yes", "discard up.5 --position 9 --yes"} {
		f.want(f.ask(StatusFault, append([]string{"queue"}, strings.Fields(c)...)...), "no message waits at position")
	}
	f.want(f.ask(StatusFault, "queue", "parked", "discard", "up.5", "--position", "1", "--yes"), "no message is parked at position 1")
	f.want(f.ask(StatusFault, "queue", "parked", "retry", "up.5", "--position", "1"), "no message is parked by itself at position 1")
	if r := f.row("d01"); r.Discarded != 1 || r.Pending != 2 {
		t.Errorf("ledger: %+v", r)
	}
}

// What is asked to stop stops, and says how far it came.
func TestDiscardCancelled(t *testing.T) {
	f := newFixture(t)
	f.some("d01", 10)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out strings.Builder
	err := f.Do(ctx, []string{"queue", "discard", "up.5", "--all", "--yes"}, &out)
	if !errors.Is(err, context.Canceled) || !strings.Contains(out.String(), "0 messages discarded") {
		t.Errorf("%v: %s", err, out.String())
	}
	if r := f.row("d01"); r.Pending != 10 {
		t.Errorf("ledger: %+v", r)
	}
}

// slow is a far side that answers when it is told to.
type slow struct {
	mu    sync.Mutex
	dones []func(error)
}

func (s *slow) Publish(_ context.Context, _ hub.Message, done func(error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dones = append(s.dones, done)
}

func (s *slow) take() []func(error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.dones
	s.dones = nil
	return d
}

// What is discarded while it is under way is counted once, and the forwarder goes on.
func TestDiscardUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.some("d01", 50)
		to := new(slow)
		fw := &hub.Forwarder{From: []*storage.Queue{f.Queue.Queue("up.5")}, To: to, Clock: f.Clock, Log: slog.New(slog.DiscardHandler)}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- fw.Run(ctx) }()
		synctest.Wait()
		dones := to.take()
		f.want(f.ask(StatusOK, "queue", "discard", "up.5", "--all", "--yes"), "50 messages discarded")
		for _, done := range dones {
			done(nil)
		}
		f.some("d01", 7)
		synctest.Wait()
		more := to.take()
		for _, done := range more {
			done(nil)
		}
		synctest.Wait()
		time.Sleep(2 * time.Second) // of the bubble: settlements that ride along are committed
		if r := f.row("d01"); len(dones) != 50 || len(more) != 7 || r.Discarded != 50 || r.Delivered != 7 || r.Pending != 0 {
			t.Errorf("%d and then %d under way, ledger %+v", len(dones), len(more), r)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

// parkedFixture has all of d02 parked, one of them by itself too, and one of d01.
func parkedFixture(t *testing.T) *fixture {
	f := newFixture(t)
	f.some("d01", 4)
	f.some("d02", 3)
	f.parkRecord(2, "too odd")
	f.parkRecord(6, "too big")
	f.park("d02", "not a child\x1b[2J")
	return f
}

func TestParkedList(t *testing.T) {
	f := newFixture(t)
	f.some("d01", 1)
	f.want(f.ask(StatusOK, "queue", "parked", "list"), "nothing is parked")
	f = parkedFixture(t)
	out := f.ask(StatusOK, "queue", "parked", "list")
	rows := fields(out)
	for i, want := range []string{
		"queue sender parked messages oldest reason",
		"up.5 d02 whole sender 3 1 h 0 min not a child.[2J",
		"up.5 d01 position 2 1 1 h 0 min too odd",
		"up.5 d02 position 6 1 1 h 0 min too big",
	} {
		if len(rows) <= i || strings.Join(rows[i], " ") != want {
			t.Errorf("line %d is not %q:\n%s", i, want, out)
		}
	}
	f.want(f.ask(StatusOK, "queue", "parked", "list", "--json"),
		`{"queue":"up.5","kind":"sender","sender":"d02","count":3,"oldest_age_seconds":3600,"oldest_age_at_most_seconds":3600,"reason":"not a child\u001b[2J"}`,
		`{"queue":"up.5","kind":"message","sender":"d01","position":2,"count":1,`)
}

func TestRetry(t *testing.T) {
	for args, want := range map[string]struct {
		d01, d02 uint64 // parked afterwards
		out      string
	}{
		"--all":             {0, 0, "4 messages may go again, and 1 sender parked"},
		"up.5 --all":        {0, 0, "4 messages may go again, and 1 sender parked"},
		"--sender d01":      {0, 3, "1 message may go again, and 0 senders"},
		"--sender d02":      {1, 0, "3 messages may go again, and 1 sender parked"},
		"--sender d03":      {1, 3, "0 messages may go again, and 0 senders"},
		"up.5 --position2":  {1, 3, ""},
		"up.5 --position 2": {0, 3, "1 message may go again"},
	} {
		t.Run(args, func(t *testing.T) {
			f := parkedFixture(t)
			status := StatusOK
			if want.out == "" {
				status = StatusUsage
			}
			freed := f.Queue.Queue("up.5").Unparked()
			f.want(f.ask(status, append([]string{"queue", "parked", "retry"}, strings.Fields(args)...)...), want.out)
			if moved := f.Queue.Queue("up.5").Unparked() != freed; moved != (want.d01+want.d02 < 4) {
				t.Errorf("a forwarder is woken: %v", moved)
			}
			f.reopen()
			if a, b := f.row("d01"), f.row("d02"); a.Parked != want.d01 || b.Parked != want.d02 {
				t.Errorf("ledger: %+v %+v", a, b)
			}
		})
	}
}

func TestExport(t *testing.T) {
	f := parkedFixture(t)
	dir := t.TempDir()
	// as a program gives commands: files are its own
	front := func(args ...string) (string, error) {
		var out strings.Builder
		root := newRoot(Commands(func(ctx context.Context, args []string, w io.Writer) error { return f.Do(ctx, args, w) })...)
		root.SetArgs(args)
		root.SetOut(&out)
		err := root.ExecuteContext(t.Context())
		return out.String(), err
	}
	for name, c := range map[string]struct {
		args []string
		want map[string]string // position: reason
	}{
		"all": {nil, map[string]string{"2": "too odd", "5": "not a child\x1b[2J", "6": "too big", "7": "not a child\x1b[2J"}},
		"one": {[]string{"--sender", "d01"}, map[string]string{"2": "too odd"}},
	} {
		file := filepath.Join(dir, name)
		out, err := front(append([]string{"queue", "parked", "export", file}, c.args...)...)
		if err != nil || !strings.HasPrefix(out, counted(uint64(len(c.want)), "message")+" in ") {
			t.Fatalf("%q, %v", out, err)
		}
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]string{}
		for l := range strings.Lines(string(b)) {
			var x struct {
				Position       json.Number
				Reason, Sender string
				Body           *string
			}
			if err := json.Unmarshal([]byte(l), &x); err != nil || x.Body == nil {
				t.Fatalf("%v: %s", err, l)
			}
			got[x.Position.String()] = x.Reason
		}
		if !maps.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
		if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", name, info.Mode(), err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "taken"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := front("queue", "parked", "export", filepath.Join(dir, "taken")); err == nil {
		t.Error("export over a folder went well")
	}
	left, err := filepath.Glob(filepath.Join(dir, "*.tmp"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %q %v", left, err)
	}
	if r := f.row("d02"); r.Parked != 3 {
		t.Errorf("after export: %+v", r)
	}
}

// A file of an earlier export stays as it was when a new one does not come about.
func TestExportKeepsTheOldFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "x")
	if err := os.WriteFile(file, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := writeFile(file, func(w io.Writer) error {
		_, _ = io.WriteString(w, "half")
		return errors.New("gone")
	})
	b, _ := os.ReadFile(file)
	if err == nil || string(b) != "old" {
		t.Errorf("%v: %q", err, b)
	}
}

// What the tree hands over is what the desk takes: every flag of every command.
func TestWords(t *testing.T) {
	for _, c := range []struct{ give, want string }{
		{"queue list", "queue list --"},
		{"queue show --limit 3 up.5 --json --from=7", "queue show --json=true --limit=3 --from=7 -- up.5"},
		{"queue discard --yes up.5 --sender a/b", "queue discard --sender=a/b --yes=true -- up.5"},
		{"queue parked retry --position 3 up.5", "queue parked retry --position=3 -- up.5"},
		{"queue parked export - --sender x", "queue parked export --sender=x -- -"},
		{"queue parked discard --all", "queue parked discard --all=true --"},
		{"scope forget --yes", "scope forget --yes=true --"},
	} {
		var got []string
		list := Commands(func(_ context.Context, args []string, _ io.Writer) error { got = args; return nil })
		d := newRoot(list...)
		d.SetArgs(strings.Fields(c.give))
		if err := d.Execute(); err != nil || !slices.Equal(got, strings.Fields(c.want)) {
			t.Errorf("%s: %q, want %q (%v)", c.give, got, c.want, err)
		}
	}
}

// keeper is what a Directory keeps in, as far as Forget needs it.
type keeper map[string][]byte

func (k keeper) Get(key string) ([]byte, bool) { v, ok := k[key]; return v, ok }
func (k keeper) Keys() []string                { return slices.Sorted(maps.Keys(k)) }
func (k keeper) Set(_ context.Context, changes map[string][]byte) error {
	for key, v := range changes {
		if v == nil {
			delete(k, key)
		} else {
			k[key] = v
		}
	}
	return nil
}

func TestForget(t *testing.T) {
	k := keeper{"synced": {1}}
	d := &fixture{t: t, Desk: &Desk{Scope: k}}
	d.want(d.ask(StatusUsage, "scope", "forget"), "would forget the list of devices: 1 value", "--yes")
	if len(k) != 1 {
		t.Error("forgotten without --yes")
	}
	d.want(d.ask(StatusOK, "scope", "forget", "--yes"), "1 value forgotten")
	if len(k) != 0 {
		t.Errorf("kept %q", k)
	}
	d.Scope = nil
	d.want(d.ask(StatusFault, "scope", "forget", "--yes"), "stop the gateway first")
	d.want(d.ask(StatusFault, "queue", "list"), "no store of messages")
}
