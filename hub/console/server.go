package console

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"time"
)

// One command is one connection. The asker sends a line of JSON, {"version":1,
// "args":["queue","list"]}, and is answered with frames: what the command writes,
// piece by piece, and then how it ended.
//
//	kind (1) 'o' | length (4, big-endian) | bytes of output
//	kind (1) 'x' | length (4, big-endian) | {"status":1,"error":"…","hint":"…"}
//
// To hang up is to cancel.
const (
	wireVersion = 1
	maxRequest  = 64 << 10 // bytes of the line
	maxFrame    = 64 << 10 // bytes after the length
	askTime     = 10 * time.Second
	askers      = 8 // commands at a time
)

type request struct {
	Version int      `json:"version"`
	Args    []string `json:"args"`
}

type ending struct {
	Status int    `json:"status"`
	Error  string `json:"error,omitempty"`
	Hint   string `json:"hint,omitempty"`
}

// Server answers commands on a Unix socket that only its owner can use.
type Server struct {
	Path string // of the socket; what an earlier process left there is replaced
	Desk *Desk
	Log  *slog.Logger
}

// Run serves until ctx ends; then it cancels what runs, and removes the socket.
// The caller holds the store, so nobody else can be serving at Path.
func (s *Server) Run(ctx context.Context) error {
	l, err := s.listen()
	if err != nil {
		return fmt.Errorf("open console: %w", err)
	}
	var running sync.WaitGroup
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer func() {
		cancel()
		stop()
		running.Wait()
		_ = l.Close()
		_ = os.Remove(s.Path)
	}()
	room := make(chan struct{}, askers)
	for {
		conn, err := l.Accept()
		if ctx.Err() != nil {
			if err == nil {
				_ = conn.Close()
			}
			return nil
		}
		if err != nil {
			return fmt.Errorf("accept at the console: %w", err)
		}
		running.Add(1)
		go func() {
			defer running.Done()
			defer conn.Close()
			select {
			case room <- struct{}{}:
				s.serve(ctx, conn)
				<-room
			case <-ctx.Done():
			}
		}()
	}
}

func (s *Server) listen() (net.Listener, error) {
	info, err := os.Lstat(s.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	case info.Mode().Type() != fs.ModeSocket:
		return nil, fmt.Errorf("%s is not a socket; move it away", s.Path)
	default:
		if err := os.Remove(s.Path); err != nil {
			return nil, err
		}
	}
	var l net.Listener
	err = shortly(s.Path, func(name string) error {
		x, err := net.ListenUnix("unix", &net.UnixAddr{Name: name, Net: "unix"})
		if err != nil {
			return err
		}
		x.SetUnlinkOnClose(false) // Run does it, by the real name
		l = x
		return nil
	})
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(s.Path, 0o600); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// longest is the longest name that a Unix socket takes, in bytes.
const longest = 107

// shortly calls do with a name for path that fits a socket's address: by way of
// its open folder where it is too long.
func shortly(path string, do func(name string) error) error {
	if len(path) <= longest {
		return do(path)
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(do(fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path))), dir.Close())
}

// serve carries out one command.
func (s *Server) serve(ctx context.Context, conn net.Conn) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })() // it may be writing to somebody who does not read
	in := bufio.NewReader(io.LimitReader(conn, maxRequest))
	_ = conn.SetReadDeadline(time.Now().Add(askTime))
	text, err := in.ReadBytes('\n')
	if err != nil {
		s.Log.Debug("console request cannot be read", "error", err)
		return
	}
	_ = conn.SetReadDeadline(time.Time{})
	go func() { // until the asker hangs up, or serve returns and the connection is closed
		_, _ = conn.Read(make([]byte, 1))
		cancel()
	}()
	err = s.answer(ctx, text, frames{conn})
	end := ending{Status: Status(err)}
	if err != nil {
		end.Error = err.Error()
		if e := (*Error)(nil); errors.As(err, &e) {
			end.Hint = e.Hint
		}
	}
	if text, err = json.Marshal(end); err == nil {
		err = writeFrame(conn, 'x', text)
	}
	if err != nil {
		s.Log.Debug("console answer cannot be written", "error", err)
	}
}

func (s *Server) answer(ctx context.Context, text []byte, out io.Writer) (err error) {
	var r request
	if err := json.Unmarshal(text, &r); err != nil || r.Version != wireVersion {
		return usage("use the holdfast program that the gateway was started with", "the gateway does not know this form of request")
	}
	defer func() { // a fault in a command must not take the gateway along
		if v := recover(); v != nil {
			s.Log.Error("console command panicked", "args", r.Args, "panic", v, "stack", string(debug.Stack()))
			err = fault("the gateway's log says where", "the command panicked: %v", v)
		}
	}()
	return s.Desk.Do(ctx, r.Args, out)
}

// frames writes output frames.
type frames struct{ w io.Writer }

func (f frames) Write(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		piece := p[n:min(len(p), n+maxFrame)]
		if err := writeFrame(f.w, 'o', piece); err != nil {
			return n, err
		}
		n += len(piece)
	}
	return n, nil
}

func writeFrame(w io.Writer, kind byte, p []byte) error {
	b := binary.BigEndian.AppendUint32([]byte{kind}, uint32(len(p)))
	_, err := w.Write(append(b, p...))
	return err
}
