package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"
)

// children starts processes that cannot outlive this one.
type children struct {
	dir  string      // for their logs
	env  []string    // added to this process's environment
	jobs chan func() // what the starting thread has to do
	died chan *child // those that ended though nobody asked
}

// newChildren keeps one thread for starting processes: Linux delivers the
// parent-death signal when the *thread* that started a child ends, and Go ends
// threads as it likes.
func newChildren(dir string) *children {
	c := &children{dir: dir, jobs: make(chan func()), died: make(chan *child, 16)}
	go func() {
		runtime.LockOSThread()
		for job := range c.jobs {
			job()
		}
	}()
	return c
}

// close ends the starting thread, and with it any child that is left.
func (c *children) close() { close(c.jobs) }

// child is a process that was started here.
type child struct {
	name, log string
	cmd       *exec.Cmd
	asked     atomic.Bool   // its end is wanted
	done      chan struct{} // closed when it has ended
	err       error         // how it ended; after done
}

// start runs a program whose output goes to {dir}/{name}.log, after what is there.
func (c *children) start(name, path string, args ...string) (*child, error) {
	k := &child{name: name, log: filepath.Join(c.dir, name+".log"), done: make(chan struct{})}
	out, err := os.OpenFile(k.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	defer out.Close()
	k.cmd = exec.Command(path, args...)
	k.cmd.Stdout, k.cmd.Stderr = out, out
	k.cmd.Env = append(os.Environ(), c.env...)
	// A group of its own, so that Ctrl-C on the terminal does not reach it first.
	k.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	started := make(chan error, 1)
	c.jobs <- func() { started <- k.cmd.Start() }
	if err := <-started; err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("start %s: %s does not exist: build it (make build) or say where it is with --bin", name, path)
		}
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		k.err = k.cmd.Wait()
		close(k.done)
		if !k.asked.Load() {
			c.died <- k
		}
	}()
	return k, nil
}

func (k *child) pid() int { return k.cmd.Process.Pid }

// kill ends it with SIGKILL, as a power cut would, and waits until it is gone.
func (k *child) kill() {
	k.asked.Store(true)
	k.cmd.Process.Kill() // fails only if it has ended
	<-k.done
}

// stop asks it to end, and kills it when it has not after grace.
func (k *child) stop(grace time.Duration) {
	k.asked.Store(true)
	k.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-k.done:
	case <-time.After(grace):
		k.kill()
	}
}

// obituary says how it ended and what it said last.
func (k *child) obituary() error {
	how := "it ended"
	if k.err != nil {
		how = k.err.Error()
	}
	return fmt.Errorf("%s stopped unexpectedly (%s); the end of %s:\n%s", k.name, how, k.log, tail(k.log, 20))
}

// tail gives the last lines of a file.
func tail(path string, lines int) []byte {
	b, err := os.ReadFile(path)
	if err != nil {
		return []byte(err.Error())
	}
	b = bytes.TrimRight(b, "\n")
	at := len(b)
	for range lines {
		if at = bytes.LastIndexByte(b[:at], '\n'); at < 0 {
			return b
		}
	}
	return b[at+1:]
}
