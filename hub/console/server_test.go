package console

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"holdfast.dev/holdfast/hub"
	"holdfast.dev/holdfast/storage"
)

// serve runs a Server at path until the returned function is called.
func serve(t *testing.T, path string, d *Desk) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- (&Server{Path: path, Desk: d, Log: slog.New(slog.DiscardHandler)}).Run(ctx) }()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		err := Call(t.Context(), path, []string{"queue"}, io.Discard)
		if err == nil {
			break
		}
		if !errors.Is(err, ErrNobody) || time.Now().After(end) {
			t.Fatal(err)
		}
	}
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
	t.Cleanup(stop)
	return stop
}

func TestServer(t *testing.T) {
	f := newFixture(t)
	f.some("d01", 1999)
	f.publish(hub.Message{From: "d01", Body: bytes.Repeat([]byte("x"), 3*maxFrame)}) // one piece of output, several frames
	path := filepath.Join(t.TempDir(), "control")
	if l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"}); err != nil {
		t.Fatal(err)
	} else { // what a killed gateway leaves
		l.SetUnlinkOnClose(false)
		_ = l.Close()
	}
	if err := Call(t.Context(), path, nil, io.Discard); !errors.Is(err, ErrNobody) {
		t.Errorf("Call at a stale socket: %v", err)
	}
	stop := serve(t, path, f.Desk)
	if info, err := os.Stat(path); err != nil || info.Mode() != fs.ModeSocket|0o600 {
		t.Errorf("socket: %v %v", info.Mode(), err)
	}
	var here, there bytes.Buffer
	args := []string{"queue", "dump", "up.5"}
	if err := errors.Join(f.Do(t.Context(), args, &here), Call(t.Context(), path, args, &there)); err != nil {
		t.Fatal(err)
	}
	if here.Len() < 3*maxFrame || !bytes.Equal(here.Bytes(), there.Bytes()) {
		t.Errorf("%d bytes at the desk, %d over the socket", here.Len(), there.Len())
	}
	var out bytes.Buffer
	err := Call(t.Context(), path, []string{"queue", "discard", "up.5", "--all"}, &out)
	e := (*Error)(nil)
	if !errors.As(err, &e) || e.Status != StatusUsage || !strings.Contains(e.Hint, "--yes") || !strings.Contains(out.String(), "would discard 2000 messages") {
		t.Errorf("discard without --yes: %v, %s", err, out.String())
	}
	if err := Call(t.Context(), path, []string{"queue", "discard", "up.5", "--all", "--yes"}, &out); err != nil || f.row("d01").Discarded != 2000 {
		t.Errorf("discard: %v, %+v", err, f.row("d01"))
	}
	stop()
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket is left behind: %v", err)
	}
	if err := Call(t.Context(), path, args, io.Discard); !errors.Is(err, ErrNobody) {
		t.Errorf("Call of nobody: %v", err)
	}
}

// A data folder may lie deeper than a socket's address is long.
func TestServerFarDown(t *testing.T) {
	f := newFixture(t)
	f.some("d01", 1)
	dir := filepath.Join(t.TempDir(), strings.Repeat("x", 100), strings.Repeat("y", 100))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "control")
	stop := serve(t, path, f.Desk)
	var out bytes.Buffer
	if err := Call(t.Context(), path, []string{"queue", "list"}, &out); err != nil || !strings.Contains(out.String(), "up.5") {
		t.Errorf("%v: %s", err, out.String())
	}
	stop()
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket is left behind: %v", err)
	}
}

// What is not a socket is somebody's file.
func TestServerLeavesFilesAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "control")
	if err := os.WriteFile(path, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	err := (&Server{Path: path, Log: slog.New(slog.DiscardHandler)}).Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "is not a socket; move it away") {
		t.Errorf("Run: %v", err)
	}
	if b, err := os.ReadFile(path); string(b) != "mine" {
		t.Errorf("file: %q %v", b, err)
	}
}

func TestServerOfStrangers(t *testing.T) {
	f := newFixture(t)
	path := filepath.Join(t.TempDir(), "control")
	serve(t, path, f.Desk)
	for _, c := range []struct{ send, want string }{
		{"{}\n", "does not know this form"},
		{"GET / HTTP/1.1\r\n\r\n", "does not know this form"},
		{`{"version":2,"args":["queue","list"]}` + "\n", "does not know this form"},
		{`{"version":1}` + "\n", ""},
		{strings.Repeat("x", maxRequest+1), ""},
	} {
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(conn, c.send)
		var out bytes.Buffer
		err = receive(conn, &out)
		if c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || Status(err) != StatusUsage) {
			t.Errorf("%.20q: %v, want %q", c.send, err, c.want)
		}
		_ = conn.Close()
	}
	if err := Call(t.Context(), path, []string{"queue", "list"}, io.Discard); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// panicking is a clock that is broken.
type panicking struct{ clock }

func (panicking) Age(storage.Stamp) (least, most time.Duration) { panic("no idea") }

func TestServerSurvivesACommand(t *testing.T) {
	f := newFixture(t)
	f.some("d01", 1)
	f.Clock = panicking{}
	path := filepath.Join(t.TempDir(), "control")
	serve(t, path, f.Desk)
	if err := Call(t.Context(), path, []string{"queue", "list"}, io.Discard); err == nil || !strings.Contains(err.Error(), "panicked: no idea") {
		t.Errorf("Call: %v", err)
	}
	if err := Call(t.Context(), path, []string{"queue", "verify"}, io.Discard); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// gated is a clock that tells the first age only when it may, and counts.
type gated struct {
	clock
	gate  chan struct{}
	count *int
}

func (g gated) Age(s storage.Stamp) (least, most time.Duration) {
	*g.count++
	<-g.gate
	return g.clock.Age(s)
}

// To hang up is to cancel: the command does not go through a whole backlog for
// somebody who has gone.
func TestServerHangUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.some("d01", 2*chunkRecords)
		count := 0
		g := gated{clock{}, make(chan struct{}), &count}
		f.Clock = g
		s := &Server{Desk: f.Desk, Log: slog.New(slog.DiscardHandler)}
		asker, here := net.Pipe()
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			s.serve(context.Background(), here)
			_ = here.Close()
		}()
		fmt.Fprintf(asker, `{"version":1,"args":["queue","show","up.5","--limit=0"]}`+"\n")
		synctest.Wait()
		if count != 1 {
			t.Errorf("%d ages told before it may", count)
		}
		_ = asker.Close()
		synctest.Wait()
		close(g.gate)
		<-ended
		if count > chunkRecords {
			t.Errorf("%d of %d records looked at after hanging up", count, 2*chunkRecords)
		}
	})
}

// A caller that gives up is told so, and the gateway is rid of it.
func TestCallCancelled(t *testing.T) {
	f := newFixture(t)
	f.some("d01", 3000)
	path := filepath.Join(t.TempDir(), "control")
	stop := serve(t, path, f.Desk)
	ctx, cancel := context.WithCancel(t.Context())
	first := writerFunc(func(p []byte) (int, error) { cancel(); return len(p), nil })
	if err := Call(ctx, path, []string{"queue", "dump", "up.5"}, first); !errors.Is(err, context.Canceled) {
		t.Errorf("Call: %v", err)
	}
	stop() // would hang with a command that goes on
}

// Who asks and does not read keeps nobody from stopping.
func TestServerOfOneWhoDoesNotRead(t *testing.T) {
	f := newFixture(t)
	f.publish(hub.Message{From: "d01", Body: make([]byte, 200<<10)})
	f.some("d01", 20_000)
	path := filepath.Join(t.TempDir(), "control")
	stop := serve(t, path, f.Desk)
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, `{"version":1,"args":["queue","dump","up.5"]}`+"\n")
	if _, err := conn.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	stop()
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
