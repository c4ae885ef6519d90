package crashdisk

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// server is a process that serves a disk.
type server struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	to  *json.Encoder
	by  *json.Decoder
}

// order is what a server is told, one a line; it answers each with a report.
type order struct {
	Dir   string `json:",omitempty"` // first order: where to mount
	Bytes int64  `json:",omitempty"` // and how much
	Slow  *Delay `json:",omitempty"`
}

type report struct {
	Counts Counts
	Err    string `json:",omitempty"`
}

// Serve is the whole life of a process that Options.Server names: it does what in
// says, answers to out, and takes its FUSE mount down when in ends, as it does when
// the process at the other side is killed.
func Serve(in io.Reader, out io.Writer) error {
	d, orders, reports := &Disk{}, json.NewDecoder(in), json.NewEncoder(out)
	for {
		var o order
		if err := orders.Decode(&o); err != nil {
			if d.fuse == nil {
				return fmt.Errorf("serve a disk: read the first order: %w", err)
			}
			if err := d.fuse.Unmount(); err != nil { // somebody has it open: a mount above whose process was killed
				return unix.Unmount(filepath.Dir(d.below), unix.MNT_DETACH)
			}
			return nil
		}
		var r report
		switch {
		case o.Dir != "":
			d.root, d.o.Bytes = filepath.Dir(o.Dir), o.Bytes
			if err := d.serve(); err != nil {
				r.Err = err.Error()
			}
		case o.Slow != nil && d.p != nil:
			d.p.slow(*o.Slow)
		}
		if d.p != nil {
			r.Counts = d.p.received()
		}
		if err := reports.Encode(r); err != nil {
			return fmt.Errorf("serve a disk: %w", err)
		}
		if d.fuse == nil {
			return fmt.Errorf("serve a disk: %s", r.Err)
		}
	}
}

// hire starts the process that is to serve the disk.
func (d *Disk) hire() error {
	s := &server{cmd: exec.Command(d.o.Server[0], d.o.Server[1:]...)}
	s.cmd.Stderr = os.Stderr
	// A group of its own: Ctrl-C must not take the disk away before the file system.
	s.cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	var err error
	if s.in, err = s.cmd.StdinPipe(); err != nil {
		return err
	}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := s.cmd.Start(); err != nil {
		return fmt.Errorf("start the disk's server: %w", err)
	}
	s.to, s.by = json.NewEncoder(s.in), json.NewDecoder(out)
	d.server = s
	dev := filepath.Join(d.root, "dev")
	d.below = filepath.Join(dev, "disk")
	_, err = s.tell(order{Dir: dev, Bytes: d.o.Bytes})
	return err
}

func (s *server) tell(o order) (Counts, error) {
	var r report
	err := s.to.Encode(o)
	if err == nil {
		err = s.by.Decode(&r)
	}
	if err == nil && r.Err != "" {
		err = errors.New(r.Err)
	}
	if err != nil {
		return Counts{}, fmt.Errorf("ask the disk's server %s: %w", s.cmd.Path, err)
	}
	return r.Counts, nil
}

// dismiss ends the server and with it its FUSE mount.
func (s *server) dismiss() error {
	err := s.in.Close()
	if e := s.cmd.Wait(); e != nil {
		err = errors.Join(err, fmt.Errorf("the disk's server: %w", e))
	}
	return err
}
