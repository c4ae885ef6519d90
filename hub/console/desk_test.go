package console

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"holdfast.dev/holdfast/hub"
	"holdfast.dev/holdfast/hub/wire"
	"holdfast.dev/holdfast/storage"
)

// clock stands still; ages are told from it.
type clock struct{ up time.Duration }

func (c clock) Now() storage.Stamp {
	return storage.Stamp{Boot: 7, Up: c.up, Wall: time.UnixMilli(1_800_000_000_000).UTC(), Grade: storage.GradeNTP}
}

func (c clock) Age(s storage.Stamp) (least, most time.Duration) {
	if s.Boot != 7 {
		return c.up, -1
	}
	return c.up - s.Up, c.up - s.Up
}

// fixture is a desk with a store that can be opened anew.
type fixture struct {
	*Desk
	t    *testing.T
	dir  string
	core *hub.Core
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{t: t, dir: filepath.Join(t.TempDir(), "queue")}
	f.open()
	t.Cleanup(func() {
		if err := f.Queue.Verify(); err != nil {
			t.Errorf("Verify: %v", err)
		}
		if err := f.Queue.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return f
}

func (f *fixture) open() {
	f.t.Helper()
	db, err := storage.Open(f.dir, storage.Options{SegmentBytes: 1 << 20})
	if err != nil {
		f.t.Fatal(err)
	}
	f.Desk = &Desk{Queue: db, Clock: clock{2 * time.Hour}}
	f.core = hub.NewCore(db, clock{time.Hour}, func(m *hub.Message) []hub.Dest {
		switch {
		case m.Topic == "nowhere":
			return nil
		case strings.HasPrefix(m.Topic, "side"):
			return []hub.Dest{{Queue: "side", Priority: 3, TTL: 90 * time.Minute}}
		}
		return []hub.Dest{{Queue: "up", Priority: 5}}
	})
}

func (f *fixture) reopen() {
	f.t.Helper()
	if err := f.Queue.Close(); err != nil {
		f.t.Fatal(err)
	}
	f.open()
}

func (f *fixture) publish(ms ...hub.Message) {
	f.t.Helper()
	var wg sync.WaitGroup
	for _, m := range ms {
		wg.Add(1)
		f.core.Publish(context.Background(), m, func(err error) {
			if err != nil {
				f.t.Errorf("Publish: %v", err)
			}
			wg.Done()
		})
	}
	wg.Wait()
}

// some publishes n messages of one sender, "0" and so on.
func (f *fixture) some(from hub.Identity, n int) {
	f.t.Helper()
	var ms []hub.Message
	for i := range n {
		ms = append(ms, hub.Message{From: from, Body: fmt.Append(nil, i)})
	}
	f.publish(ms...)
}

func (f *fixture) park(sender, reason string) {
	f.t.Helper()
	done := make(chan error)
	f.Queue.Queue("up.5").Park(sender, reason, func(err error) { done <- err })
	if err := <-done; err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) parkRecord(p storage.Position, reason string) {
	f.t.Helper()
	q := f.Queue.Queue("up.5")
	q.ParkRecord(p, reason)
	if err := settle(q, nil); err != nil {
		f.t.Fatal(err)
	}
}

// ask gives a command and wants this status of it.
func (f *fixture) ask(status int, args ...string) string {
	f.t.Helper()
	var out bytes.Buffer
	err := f.Do(f.t.Context(), args, &out)
	if Status(err) != status {
		f.t.Fatalf("%q: status %d, want %d: %v\n%s", args, Status(err), status, err, out.String())
	}
	text := out.String()
	if err != nil {
		text += "error: " + err.Error()
		if e := (*Error)(nil); errors.As(err, &e) {
			text += "\nhint: " + e.Hint
		}
	}
	return text
}

func (f *fixture) want(out string, parts ...string) {
	f.t.Helper()
	for _, p := range parts {
		if !strings.Contains(out, p) {
			f.t.Errorf("lacks %q:\n%s", p, out)
		}
	}
}

// row is the ledger's row of one sender in up.5.
func (f *fixture) row(sender string) storage.Row {
	for _, r := range f.Queue.Ledger() {
		if r.Queue == "up.5" && r.Sender == sender {
			return r
		}
	}
	return storage.Row{}
}

func fields(out string) (rows [][]string) {
	for l := range strings.Lines(out) {
		rows = append(rows, strings.Fields(l))
	}
	return rows
}

func TestList(t *testing.T) {
	f := newFixture(t)
	f.want(f.ask(StatusOK, "queue", "list"), "nothing was ever in any queue")
	f.some("d01", 3)
	f.some("d02", 2)
	f.publish(hub.Message{From: "d01", Topic: "side/x", Body: []byte("y")})
	f.park("d02", "no")
	if err := settle(f.Queue.Queue("up.5"), []storage.Position{1}); err != nil {
		t.Fatal(err)
	}
	rows := fields(f.ask(StatusOK, "queue", "list"))
	if got := strings.Join(rows[2], " "); len(rows) != 3 || !strings.HasPrefix(got, "up.5 2 2 ") || !strings.HasSuffix(got, " B 1 h 0 min 1 5") {
		t.Errorf("list: %q", rows)
	}
	f.want(f.ask(StatusOK, "queue", "list", "--json"),
		`{"queue":"up.5","pending":2,"parked":2,"bytes":`, `"oldest_age_seconds":3600,"oldest_age_at_most_seconds":3600,"checkpoint":1,"last":5}`)
}

func TestShow(t *testing.T) {
	f := newFixture(t)
	f.publish(
		hub.Message{From: "d01", Body: []byte("21.5 °C")},
		hub.Message{From: "d01/m", Output: "out", Body: []byte("a\x1b[2Jb\u009bc\xff" + strings.Repeat("z", 40))},
		hub.Message{From: "p", Topic: "plant/\u202ex", Body: nil},
		hub.Message{From: "p", Topic: "side/y"},
		hub.Message{From: "d01", Body: []byte("last")},
	)
	f.parkRecord(3, "bad")
	out := f.ask(StatusOK, "queue", "show", "up.5")
	f.want(out, "1 h 0 min  none  telemetry", "21.5 °C", "output out", "a.[2Jb.c.zzz", "z…", "plant/.x", "parked", "last")
	for _, r := range []string{"\x1b", "\u009b", "\u202e"} {
		if strings.Contains(out, r) {
			t.Errorf("show passes %q on", r)
		}
	}
	out = f.ask(StatusOK, "queue", "show", "up.5", "--limit", "2", "--from", "2")
	f.want(out, "output out", "plant/", "of 4 messages in all: --from 4 shows the next")
	if n := len(fields(out)); n != 4 {
		t.Errorf("--limit 2 shows %d lines:\n%s", n, out)
	}
	f.want(f.ask(StatusOK, "queue", "show", "side.3"), "1 h 30 min", "side/y")
	f.want(f.ask(StatusOK, "queue", "show", "up.5", "--from", "9"), "nothing waits there")
	f.want(f.ask(StatusFault, "queue", "show", "up"), `no queue has the name "up"`, "hint: there are: side.3 up.5")
}

// What there is more of than fits a page is shown to the end, once.
func TestShowAll(t *testing.T) {
	f := newFixture(t)
	f.some("d01", 2*pageRows+1)
	seen := map[string]int{}
	for _, r := range fields(f.ask(StatusOK, "queue", "show", "up.5", "--limit", "0")) {
		seen[r[0]]++
	}
	if seen["position"] != 3 || len(seen) != 2*pageRows+2 || seen["1001"] != 1 {
		t.Errorf("%d lines, %d heads, %d of the last", len(seen), seen["position"], seen["1001"])
	}
}

func TestDump(t *testing.T) {
	f := newFixture(t)
	f.publish(
		hub.Message{From: "d01", ID: "x-1", QoS: 1, Props: wire.NewBag("$.mid", "a b", "k\u0085", "<v>"), Body: []byte("text\u2028\u009b\U000e0001")},
		hub.Message{From: "p", Topic: "plant/t", Body: []byte{0xff, 0}},
		hub.Message{From: "d01/m", Output: "out", Props: "z=%ff"},
	)
	f.park("p", "refused")
	out := f.ask(StatusOK, "queue", "dump", "up.5")
	for _, r := range out {
		if r < ' ' && r != '\n' || r >= 0x7f && r < 0xa0 || r == '\u2028' || r == '\U000e0001' {
			t.Errorf("dump passes %q on", r)
		}
	}
	var got []map[string]any
	for l := range strings.Lines(out) {
		var m map[string]any
		if err := json.Unmarshal([]byte(l), &m); err != nil {
			t.Fatalf("%v: %s", err, l)
		}
		got = append(got, m)
	}
	if len(got) != 3 {
		t.Fatalf("%d lines:\n%s", len(got), out)
	}
	for i, want := range []map[string]any{
		{"queue": "up.5", "position": 1.0, "state": "pending", "sender": "d01", "id": "x-1", "qos": 1.0, "body": "text\u2028\u009b\U000e0001",
			"body_encoding": "utf-8", "age_seconds": 3600.0, "reason": nil, "ttl_seconds": nil},
		{"position": 2.0, "state": "parked", "reason": "refused", "topic": "plant/t", "body": "/wA=", "body_encoding": "base64"},
		{"position": 3.0, "output": "out", "properties_encoded": "z=%ff", "body": ""},
	} {
		for k, v := range want {
			if got[i][k] != v {
				t.Errorf("line %d: %s is %v, want %v", i, k, got[i][k], v)
			}
		}
	}
	if p := got[0]["properties"].(map[string]any); p["$.mid"] != "a b" || p["k\u0085"] != "<v>" {
		t.Errorf("properties %v", p)
	}
	if a := got[0]["arrived"].(map[string]any); a["grade"] != "ntp" || a["boot"] != "0000000000000007" || a["up_seconds"] != 3600.0 {
		t.Errorf("arrived %v", a)
	}
	if s := f.row("d01"); s.Pending != 1 {
		t.Errorf("after dump: %+v", s)
	}
	if n := len(fields(f.ask(StatusOK, "queue", "dump", "up.5", "--limit=1"))); n != 1 {
		t.Errorf("--limit=1 dumps %d", n)
	}
}

func TestVerify(t *testing.T) {
	f := newFixture(t)
	f.want(f.ask(StatusOK, "queue", "verify"), "the ledger is empty", "ledger and data agree")
	f.some("d01", 300)
	f.publish(hub.Message{From: "d02", Topic: "nowhere"})
	f.park("d01", "no")
	out := f.ask(StatusOK, "queue", "verify")
	f.want(out, "adds up", "read 300 messages; 0 cannot be read", "ledger and data agree")
	rows := fields(out)
	if got := strings.Join(rows[1], " "); got != "up.5 d01 300 = 0 + 0 + 0 + 0 + 0 + 300 + 0 adds up" {
		t.Errorf("row %q", got)
	}
	if got := strings.Join(rows[4], " "); got != "d02 1" {
		t.Errorf("unrouted %q", got)
	}
}

// A bit that turns under an open store is found, named, and not settled.
func TestVerifyFindsRot(t *testing.T) {
	f := newFixture(t)
	f.publish(hub.Message{From: "d01", Body: []byte("good")}, hub.Message{From: "d02", Body: []byte("to be harmed")})
	names, err := filepath.Glob(filepath.Join(f.dir, "journal", "0*"))
	if err != nil {
		t.Fatal(err)
	}
	harmed := 0
	for _, n := range names {
		b, err := os.ReadFile(n)
		if err != nil {
			t.Fatal(err)
		}
		if i := bytes.Index(b, []byte("to be harmed")); i >= 0 {
			b[i] ^= 1
			harmed++
			if err := os.WriteFile(n, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	if harmed != 1 {
		t.Fatalf("harmed %d places", harmed)
	}
	out := f.ask(StatusFault, "queue", "verify")
	f.want(out, "up.5 position 2 of d02: message record: checksum does not match", "read 1 message; 1 cannot be read", "ledger and data do not agree")
	f.want(f.ask(StatusOK, "queue", "dump", "up.5"), `"position":2,"state":"pending","sender":"d02","error":"`)
	f.want(f.ask(StatusOK, "queue", "show", "up.5"), "cannot be read")
	if r := f.row("d02"); r.Pending != 1 || r.Damaged != 0 {
		t.Errorf("after verify: %+v", r)
	}
}

func TestCommandsThatAreWrong(t *testing.T) {
	f := newFixture(t)
	f.some("d01", 5)
	f.park("d01", "no")
	for _, c := range []struct {
		args string
		want string
	}{
		{"queue lst", "did you mean holdfast queue list?"},
		{"queue parked rtry", "did you mean holdfast queue parked retry?"},
		{"quux", "unknown command"},
		{"queue list --jsno", "unknown flag"},
		{"queue show", "accepts 1 arg"},
		{"queue discard up.5 --yes", "say which messages"},
		{"queue discard up.5 --all=false --yes", "say which messages"},
		{"queue discard up.5 --all --sender=d01 --yes", "say which messages"},
		{"queue discard up.5 --sender= --yes", "--sender is empty"},
		{"queue discard up.5 --position=0 --yes", "--position is 0"},
		{"queue parked discard --sender= --yes", "--sender is empty"},
		{"queue parked discard --position=1 --yes", "--position needs a QUEUE"},
		{"queue parked retry", "usage: holdfast queue parked retry [QUEUE] (--sender ID"},
		{"queue parked retry --position=1", "--position needs a QUEUE"},
		{"queue parked export x.jsonl", "files are written where the command is given"},
	} {
		f.want(f.ask(StatusUsage, strings.Fields(c.args)...), c.want)
	}
	if r := f.row("d01"); r.Parked != 5 {
		t.Errorf("after mistakes: %+v", r)
	}
	f.want(f.ask(StatusOK, "queue"), "verify", "parked")
	f.want(f.ask(StatusOK, "queue", "discard", "--help"), "--sender")
}

// A command ends on a gateway that takes messages all the time, and leaves alone
// what came in after it had begun.
func TestEachEnds(t *testing.T) {
	f := newFixture(t)
	f.some("d01", 3)
	n := 0
	err := each(t.Context(), f.Queue.Queue("up.5"), part{}, func(storage.Seen) error {
		if n++; n > 1000 {
			t.Fatal("it goes on and on")
		}
		f.some("d01", chunkRecords)
		return nil
	})
	if err != nil || n != 3 {
		t.Errorf("%d records, %v; want 3", n, err)
	}
}
