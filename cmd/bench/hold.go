package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"holdfast.dev/holdfast/storage"
)

// Some measurements need a process that can be killed, or whose memory is its own:
// bench starts itself with a hidden subcommand, which says on one line what it has
// measured and then waits to be killed, or for the end of its standard input.
const (
	holdStore = "hold-store" // keeps messages that nobody drains
	openStore = "open-store" // opens what another has held, and reads one
)

// saying is that line.
type saying struct {
	Kept        uint64  `json:"kept"`        // messages acknowledged
	OpenMS      float64 `json:"openMS"`      // until Open came back
	FirstMS     float64 `json:"firstMS"`     // until Read gave a message
	Most        float64 `json:"most"`        // anonymous memory, MB
	Rest        float64 `json:"rest"`        // what is held a second later, MB
	DamagedHere int     `json:"damagedHere"` // what Open reported
}

// helper is such a process.
type helper struct {
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  io.ReadCloser
	said saying
}

// help starts bench itself.
func help(args ...string) (*helper, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	h := &helper{cmd: exec.Command(self, args...)}
	h.cmd.Stderr = os.Stderr
	// A group of its own: Ctrl-C ends it through its standard input.
	h.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if h.in, err = h.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if h.out, err = h.cmd.StdoutPipe(); err != nil {
		return nil, err
	}
	if err := h.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", args[0], err)
	}
	return h, nil
}

// helped starts a subcommand and waits for what it says. It is alive then.
func helped(ctx context.Context, args ...string) (*helper, error) {
	h, err := help(args...)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { h.cmd.Process.Kill() })
	defer stop()
	if err := json.NewDecoder(h.out).Decode(&h.said); err != nil {
		h.kill()
		return nil, errors.Join(ctx.Err(), fmt.Errorf("%s said nothing (%w): %s", args[0], err, h.cmd.ProcessState))
	}
	return h, nil
}

// kill ends it with SIGKILL.
func (h *helper) kill() {
	h.cmd.Process.Kill() // fails only if it has ended
	h.cmd.Wait()
}

// say says the line and waits for the end.
func (s saying) say(ctx context.Context, cmd *cobra.Command) error {
	if err := json.NewEncoder(cmd.OutOrStdout()).Encode(s); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// parented gives a context that ends with the process at the other side of the
// standard input.
func parented(cmd *cobra.Command) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(cmd.Context())
	in := cmd.InOrStdin()
	go func() {
		io.Copy(io.Discard, in) // its error is an end, too
		cancel()
	}()
	return ctx, cancel
}

func holdIn(ctx context.Context, dir string, n int) (*helper, error) {
	h, err := helped(ctx, holdStore, "--store", dir, "--n", fmt.Sprint(n))
	if err != nil {
		return nil, err
	}
	if h.said.Kept != uint64(n) {
		h.kill()
		return nil, fmt.Errorf("hold %d messages: %d were acknowledged", n, h.said.Kept)
	}
	return h, nil
}

func openIn(ctx context.Context, dir string) (*helper, error) {
	return helped(ctx, openStore, "--store", dir)
}

func holdStoreCommand() *cobra.Command {
	var dir string
	var n int
	cmd := &cobra.Command{Use: holdStore, Hidden: true, Args: cobra.NoArgs}
	cmd.Flags().StringVar(&dir, "store", "", "`folder`")
	cmd.Flags().IntVar(&n, "n", 0, "`messages`")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		ctx, cancel := parented(cmd)
		defer cancel()
		h, err := openHoldfast(dir)
		if err != nil {
			return err
		}
		g := newGauge()
		if err := fill(ctx, h, newSource(bodyBytes), n); err != nil {
			return errors.Join(err, h.close())
		}
		s, err := rested(ctx, g)
		s.Kept = uint64(n)
		if err = errors.Join(err, h.account(s.Kept)); err != nil {
			return errors.Join(err, h.close())
		}
		return s.say(ctx, cmd)
	}
	return cmd
}

// rested reads the gauge after a second in which nothing was asked for, and once
// more when the collector has given back what nobody holds: how much garbage there
// is between two collections says nothing of what a backlog costs.
func rested(ctx context.Context, g *gauge) (s saying, err error) {
	if !pause(ctx, time.Second) {
		return s, ctx.Err()
	}
	debug.FreeOSMemory()
	s.Most, s.Rest, err = g.stop()
	return s, err
}

// fillWindow is how many groups fill has under way.
const fillWindow = 8

// fill keeps n messages, in groups.
func fill(ctx context.Context, a asker, s *source, n int) error {
	var way []*batch
	for n > 0 || len(way) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		if len(way) == fillWindow || n == 0 {
			if err := way[0].wait(); err != nil {
				return fmt.Errorf("fill a store: %w", err)
			}
			way = way[1:]
			continue
		}
		k := min(n, groupSize)
		b := newBatch(k)
		for range k {
			a.put(s.one(), b.done)
		}
		way, n = append(way, b), n-k
	}
	return nil
}

func openStoreCommand() *cobra.Command {
	var dir string
	cmd := &cobra.Command{Use: openStore, Hidden: true, Args: cobra.NoArgs}
	cmd.Flags().StringVar(&dir, "store", "", "`folder`")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		ctx, cancel := parented(cmd)
		defer cancel()
		g := newGauge()
		begin := time.Now()
		h, err := openHoldfast(dir)
		if err != nil {
			return err
		}
		open := time.Since(begin)
		items, _, err := h.q.Read(h.read, storage.Limit{Records: 1}, nil)
		first := time.Since(begin)
		if err != nil || len(items) == 0 {
			return errors.Join(fmt.Errorf("open %s: no message came (%v)", dir, err), h.close())
		}
		s, err := rested(ctx, g)
		if err != nil {
			return errors.Join(err, h.close())
		}
		s.OpenMS, s.FirstMS, s.DamagedHere = milliseconds(open), milliseconds(first), len(h.db.Stats().Damage)
		return s.say(ctx, cmd)
	}
	return cmd
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
