package conform

import (
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// Target is a broker under test: a process of ours, listening on a loopback
// address that nobody else uses.
type Target struct {
	Name      string
	Addr      string      // of MQTT over TCP, host:port
	WebSocket string      // URL of MQTT over WebSocket
	TLS       *tls.Config // for WebSocket; nil where it is not encrypted

	// User may publish and subscribe everywhere. Narrow, who has the same password,
	// may do so under conform/narrow/ alone; "" where there is no access control.
	User, Password, Narrow string

	// Patience is how long an answer may take before its absence is a fault. It is
	// no measurement: a program that flushes to a disk that others use, too, may
	// take long now and then.
	Patience time.Duration

	dir    string // of its files
	launch func() *exec.Cmd

	mu    sync.Mutex
	proc  *process
	lives int // how often it was started
}

type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
}

const (
	startTimeout = 60 * time.Second
	stopTimeout  = 10 * time.Second
	narrowFilter = "conform/narrow/#" // what Target.Narrow may use
)

// host is a loopback address, picked at random so that no other test on this
// machine takes its ports between the look and the start.
func host() string {
	return fmt.Sprintf("127.%d.%d.%d", 64+rand.IntN(128), rand.IntN(256), 1+rand.IntN(254))
}

func freePort(host string) (string, error) {
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// freePorts fills in addresses of one new host.
func freePorts(addrs ...*string) error {
	h := host()
	for _, a := range addrs {
		var err error
		if *a, err = freePort(h); err != nil {
			return err
		}
	}
	return nil
}

// Start starts the process and waits until it lets a client in.
func (t *Target) Start() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.start()
}

func (t *Target) start() error {
	log, err := os.OpenFile(t.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open the log of %s: %w", t.Name, err)
	}
	defer log.Close() // the process has its own
	cmd := t.launch()
	cmd.Stdout, cmd.Stderr = log, log
	p, err := spawn(cmd)
	if err != nil {
		return fmt.Errorf("start %s: %w", t.Name, err)
	}
	t.proc = p
	t.lives++
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(startTimeout); ; {
		err := t.knock()
		if err == nil {
			return nil
		}
		select {
		case <-p.done:
			return fmt.Errorf("%s ended at once; its log says:\n%s", t.Name, t.logText())
		case <-tick.C:
		}
		if time.Now().After(end) {
			t.end()
			return fmt.Errorf("%s lets nobody in for %v: %w; its log says:\n%s", t.Name, startTimeout, err, t.logText())
		}
	}
}

// spawn starts a process that ends with this one, however that ends. Linux tells a
// child of the death of the thread that started it, so the thread stays with it.
func spawn(cmd *exec.Cmd) (*process, error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	p := &process{cmd: cmd, done: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			cmd.Wait() // how it ended is in its log
			close(p.done)
		}
	}()
	return p, <-started
}

// knock says whether a client is let in.
func (t *Target) knock() error {
	v := attempt(t, v311, func(t *Try) { t.client().leave() })
	if v.Outcome != Pass {
		return errors.New(v.Seen)
	}
	return nil
}

// Stop ends the process, politely first.
func (t *Target) Stop() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.end()
}

func (t *Target) end() {
	if t.proc == nil {
		return
	}
	t.proc.cmd.Process.Signal(os.Interrupt) // if it has ended, done is closed
	select {
	case <-t.proc.done:
	case <-time.After(stopTimeout):
		t.proc.cmd.Process.Kill()
		<-t.proc.done
	}
	t.proc = nil
}

// life tells one start of the process from the next.
func (t *Target) life() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.lives
}

// revive starts the process again if it has ended, or takes no connections.
func (t *Target) revive() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if nc, err := net.DialTimeout("tcp", t.Addr, t.Patience); err == nil {
		return nc.Close()
	}
	t.end()
	return t.start()
}

func (t *Target) logFile() string { return filepath.Join(t.dir, t.Name+".log") }

// logText is what the process has said.
func (t *Target) logText() string {
	b, err := os.ReadFile(t.logFile())
	if err != nil {
		return err.Error()
	}
	return string(b)
}
