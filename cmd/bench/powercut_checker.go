package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"syscall"
	"time"
)

// cutChecker is the process that opens what a cut has left. It is started when it
// is needed, and again when a store has taken it along.
type cutChecker struct {
	self string
	cmd  *exec.Cmd
	in   io.WriteCloser
	to   *json.Encoder
	by   *json.Decoder
	said *bytes.Buffer // on its standard error
}

// cutPatience is how long a store may take to open and be read.
const cutPatience = 60 * time.Second

func (c *cutChecker) start() error {
	c.cmd, c.said = exec.Command(c.self, "powercut", "check"), &bytes.Buffer{}
	c.cmd.Stderr = c.said
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var err error
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		return err
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	c.to, c.by = json.NewEncoder(c.in), json.NewDecoder(out)
	if err := c.cmd.Start(); err != nil {
		return fmt.Errorf("start the checker: %w", err)
	}
	return nil
}

// ask gives what a store does not keep. One that crashes or hangs its process is
// shut.
func (c *cutChecker) ask(q cutQuestion) (findings, error) {
	if c.cmd == nil {
		if err := c.start(); err != nil {
			return findings{}, err
		}
	}
	var f findings
	slow := time.AfterFunc(cutPatience, func() { c.cmd.Process.Kill() }) // fails only if it has ended
	err := c.to.Encode(q)
	if err == nil {
		err = c.by.Decode(&f)
	}
	if slow.Stop() && err == nil {
		if !f.clean() { // a store that fails may leave files open, and the disk must be unmounted
			err = c.close()
		}
		return f, err
	}
	if err == nil {
		err = errors.New("it took too long")
	}
	return c.obituary(err)
}

// obituary says how the checker ended: by the store, or by a mistake of its own,
// which is none of the store's.
func (c *cutChecker) obituary(err error) (findings, error) {
	how := c.cmd.Wait()
	c.cmd = nil
	words := c.said.Bytes()
	var exit *exec.ExitError
	if errors.As(how, &exit) && exit.ExitCode() == 1 { // main's own: it said why
		return findings{}, fmt.Errorf("the checker: %w: %s", how, words)
	}
	if i := bytes.IndexByte(words, '\n'); i >= 0 {
		words = words[:i]
	}
	return findings{Shut: fmt.Sprintf("its process ended (%v, %v): %s", err, how, words)}, nil
}

func (c *cutChecker) close() error {
	if c.cmd == nil {
		return nil
	}
	err := errors.Join(c.in.Close(), c.cmd.Wait())
	c.cmd = nil
	return err
}
