package storage

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"holdfast.dev/holdfast/storage/journal"
)

// child is set in the environment of a process that this test kills: it appends
// to the store there and says on standard output what was acknowledged.
const child = "HOLDFAST_TEST_STORE"

func TestMain(m *testing.M) {
	if dir := os.Getenv(child); dir != "" {
		appendForEver(dir)
	}
	os.Exit(m.Run())
}

func appendForEver(dir string) {
	db, err := Open(dir, Options{SegmentBytes: 1 << 20, MaxBytes: 1 << 30})
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	var mu sync.Mutex
	out := bufio.NewWriter(os.Stdout)
	q := db.Queue("up")
	start := int(q.Stats().Last)
	go func() { // some is drained meanwhile
		for after := q.Checkpoint(); ; {
			items, next, _ := q.Read(after, Limit{Records: 10}, nil)
			for _, it := range items {
				if it.Position%3 == 0 {
					q.Settle([]Position{it.Position}, Delivered, nil)
				}
			}
			after = next
			time.Sleep(time.Millisecond)
		}
	}()
	for i := start + 1; ; i++ {
		body := fmt.Sprintf("%d %s", i, strings.Repeat("x", rand.IntN(500)))
		db.Append(context.Background(), Record{Sender: "a", Body: []byte(body), To: []Dest{{Queue: "up"}}}, func(err error) {
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				fmt.Fprintln(out, "error", err)
			} else {
				fmt.Fprintln(out, i)
			}
			out.Flush()
		})
	}
}

func TestKilledProcessLosesNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	for round := range 8 {
		acked := killOne(t, dir, time.Duration(20+rand.IntN(150))*time.Millisecond)
		db := open(t, dir, Options{MaxBytes: 1 << 30})
		s := db.Queue("up").Stats()
		if int(s.Last) < acked {
			t.Fatalf("round %d: %d was acknowledged, the last record is %d", round, acked, s.Last)
		}
		r := db.Ledger()
		if len(r) > 0 && r[0].Accepted != uint64(s.Last) {
			t.Errorf("round %d: ledger says %d accepted, the last position is %d", round, r[0].Accepted, s.Last)
		}
		for _, b := range bodies(t, db.Queue("up")) {
			var n int
			if _, err := fmt.Sscan(b, &n); err != nil || n < 1 {
				t.Fatalf("round %d: record %.20q", round, b)
			}
		}
		if err := db.Verify(); err != nil {
			t.Errorf("round %d: %v", round, err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// killOne runs a child for a while, kills it, and gives the highest number that it
// had acknowledged.
func killOne(t *testing.T, dir string, after time.Duration) (acked int) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), child+"="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(after, func() { _ = cmd.Process.Kill() })
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		var n int
		if _, err := fmt.Sscan(lines.Text(), &n); err != nil {
			if strings.HasPrefix(lines.Text(), "error") {
				t.Fatal(lines.Text())
			}
			continue // a line that the kill cut
		}
		acked = max(acked, n)
	}
	_ = cmd.Wait()
	return acked
}

// frames gives the offsets of all frames in the one segment of a store.
func frames(t *testing.T, file string) (offsets []int) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for off := 0; off < len(b); off += journal.Page {
		if string(b[off:off+4]) == "HFJ1" {
			offsets = append(offsets, off)
		}
	}
	return offsets
}

func copyStore(t *testing.T, from string) string {
	t.Helper()
	to := t.TempDir()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	return to
}

func harm(t *testing.T, file string, off int, what []byte) {
	t.Helper()
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(what, int64(off)); err != nil {
		t.Fatal(err)
	}
}

// One frame after the other is harmed; what is lost is at most what was in it,
// it is counted, reported and kept aside, and the ledger still adds up.
func TestDamageCostsOneFrame(t *testing.T) {
	dir := t.TempDir()
	db := open(t, dir, Options{})
	for i := range 12 {
		add(t, db, "a", i, 1, "up")
		if i%4 == 3 {
			settleNow(t, db.Queue("up"), Delivered, Position(i-1))
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	segment, _ := filepath.Glob(filepath.Join(dir, "journal", "0*"))
	offs := frames(t, segment[0])
	if len(offs) < 15 {
		t.Fatalf("only %d frames", len(offs))
	}
	for i, off := range offs {
		for _, what := range []string{"head", "body", "page"} {
			t.Run(fmt.Sprintf("%d-%s", i, what), func(t *testing.T) {
				hurt := copyStore(t, dir)
				file := filepath.Join(hurt, "journal", filepath.Base(segment[0]))
				switch what {
				case "head":
					harm(t, file, off+1, []byte{0xff})
				case "body":
					harm(t, file, off+48, []byte{0xaa, 0x55, 0xaa})
				case "page":
					harm(t, file, off, make([]byte, journal.Page))
				}
				db := open(t, hurt, Options{})
				got := bodies(t, db.Queue("up"))
				last := i == len(offs)-1
				if len(got) < 9-1 || len(got) > 12 {
					t.Errorf("%d records left: %v", len(got), got)
				}
				st := db.Stats()
				if len(st.Damage) == 0 {
					t.Errorf("damage is not reported")
				}
				for _, d := range st.Damage {
					if d.Kept == "" && last { // not even torn: NEXT tells that it is gone
						continue
					}
					if _, err := os.Stat(d.Kept); err != nil {
						t.Errorf("damaged part is not kept: %v", err)
					}
				}
				add(t, db, "a", 99, 1, "up")
				if err := db.Verify(); err != nil {
					t.Error(err)
				}
				if err := db.Close(); err != nil {
					t.Fatal(err)
				}
				db = open(t, hurt, Options{})
				if again := bodies(t, db.Queue("up")); len(again) != len(got)+1 {
					t.Errorf("%d records after another opening, want %d", len(again), len(got)+1)
				}
			})
		}
	}
}

// A damaged record is found when it is read, long after its frame was.
func TestRecordThatRotsWhileOpenIsCountedDamaged(t *testing.T) {
	dir := t.TempDir()
	db := open(t, dir, Options{})
	for i := range 3 {
		add(t, db, "a", i, 1, "up")
	}
	segment, _ := filepath.Glob(filepath.Join(dir, "journal", "0*"))
	offs := frames(t, segment[0])
	harm(t, segment[0], offs[2]+90, []byte("XX"))
	if got := fmt.Sprint(bodies(t, db.Queue("up"))); got != "[a-0 a-2]" {
		t.Errorf("readable %s", got)
	}
	settleNow(t, db.Queue("up"), Delivered, 1)
	if r := db.Ledger()[0]; r.Damaged != 1 || r.Delivered != 1 || r.Pending != 1 {
		t.Errorf("ledger %+v", r)
	}
}

func TestStoreThatCannotBeReadIsNotReplaced(t *testing.T) {
	dir := t.TempDir()
	db := open(t, dir, Options{})
	add(t, db, "a", 1, 10, "up")
	add(t, db, "a", 1, 10, "up")
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	segment, _ := filepath.Glob(filepath.Join(dir, "journal", "0*"))
	noise := make([]byte, 1<<20)
	for i := range noise {
		noise[i] = byte(rand.Uint32())
	}
	harm(t, segment[0], 0, noise)
	if _, err := Open(dir, Options{SegmentBytes: 1 << 20}); !errors.Is(err, ErrDamaged) {
		t.Errorf("Open: %v", err)
	}
	after, err := os.ReadFile(segment[0])
	if err != nil || string(after) != string(noise) {
		t.Errorf("the segment was changed (%v)", err)
	}
}

// A flush that fails is final: nothing of its group, and nothing later, is
// acknowledged, though a second flush would succeed.
func TestFailedFlushIsFinal(t *testing.T) {
	dir := t.TempDir()
	var mu sync.Mutex
	fail := false
	disk := func(op journal.Op) error {
		mu.Lock()
		defer mu.Unlock()
		if fail && op.Kind == journal.OpFlush {
			fail = false
			return errors.New("input/output error")
		}
		return nil
	}
	db := open(t, dir, Options{disk: disk})
	add(t, db, "a", 0, 5, "up")
	mu.Lock()
	fail = true
	mu.Unlock()
	put := func() error {
		done := make(chan error, 1)
		db.Append(context.Background(), Record{Sender: "a", Body: []byte("x"), To: []Dest{{Queue: "up"}}}, func(err error) { done <- err })
		return <-done
	}
	for i := range 3 {
		if err := put(); !errors.Is(err, ErrBroken) {
			t.Errorf("append %d after the failed flush: %v", i, err)
		}
	}
	select {
	case <-db.Failed():
	case <-time.After(5 * time.Second):
		t.Error("nobody is told")
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
	db = open(t, dir, Options{})
	if n := len(bodies(t, db.Queue("up"))); n < 5 {
		t.Errorf("%d records after reopening, want the 5 that were acknowledged", n)
	}
}
