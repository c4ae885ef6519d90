package conform

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"time"

	mochi "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/hooks/auth"
	"github.com/mochi-mqtt/server/v2/listeners"
)

// peerPatience is for brokers that answer from memory.
const peerPatience = 5 * time.Second

// The addresses that ServeMochi listens on, in the environment of its process.
const (
	mochiTCP       = "HOLDFAST_CONFORM_MOCHI_TCP"
	mochiWebSocket = "HOLDFAST_CONFORM_MOCHI_WEBSOCKET"
)

// Mochi is plain mochi, the library that Holdfast parses with, as it comes: all
// allowed, its own capabilities. program is an executable that calls ServeMochi
// first thing, for one bad packet may end a process that mochi is in.
func Mochi(dir, program string) (*Target, error) {
	t := &Target{Name: "mochi", Patience: peerPatience, dir: dir}
	var ws string
	if err := freePorts(&t.Addr, &ws); err != nil {
		return nil, err
	}
	t.WebSocket = "ws://" + ws
	t.launch = func() *exec.Cmd {
		cmd := exec.Command(program)
		cmd.Env = append(os.Environ(), mochiTCP+"="+t.Addr, mochiWebSocket+"="+ws)
		return cmd
	}
	return t, t.Start()
}

// ServeMochi says whether this process was started by Mochi. If so it has been
// mochi, until it was told to end.
func ServeMochi() (bool, error) {
	tcp, ws := os.Getenv(mochiTCP), os.Getenv(mochiWebSocket)
	if tcp == "" {
		return false, nil
	}
	s := mochi.New(&mochi.Options{Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	err := errors.Join(
		s.AddHook(new(auth.AllowHook), nil),
		s.AddListener(listeners.NewTCP(listeners.Config{ID: "tcp", Address: tcp})),
		s.AddListener(listeners.NewWebsocket(listeners.Config{ID: "ws", Address: ws})),
	)
	if err != nil {
		return true, fmt.Errorf("set up mochi: %w", err)
	}
	if err := s.Serve(); err != nil {
		return true, fmt.Errorf("serve mochi: %w", err)
	}
	wait()
	return true, nil
}

// wait returns when the process is told to end.
func wait() {
	end := make(chan os.Signal, 1)
	signal.Notify(end, os.Interrupt)
	<-end
}
