package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"holdfast.dev/holdfast/storage"
)

// Hidden subcommands, and what they say, a line each: the number of a message, or
// something else.
const (
	floodStore   = "flood-store"   // keeps messages until it is killed, and says what was acknowledged
	accountStore = "account-store" // reads and settles everything, and says what was there
	wordFull     = "full"          // a message was refused for want of room
	unheard      = 1 << 16         // lines that may wait
)

// flooding is a process that keeps messages, seen from outside.
type flooding struct {
	h    *helper
	gone chan struct{} // closed at the end of what it says

	mu    sync.Mutex
	acked map[uint64]int
	full  bool // something was refused
	fault string
}

func flood(ctx context.Context, dir string) (*flooding, error) {
	h, err := help(floodStore, "--store", dir)
	if err != nil {
		return nil, err
	}
	f := &flooding{h: h, gone: make(chan struct{}), acked: map[uint64]int{}}
	go func() {
		defer close(f.gone)
		for lines := bufio.NewScanner(h.out); lines.Scan(); {
			f.heard(lines.Text())
		}
	}()
	return f, ctx.Err()
}

func (f *flooding) heard(line string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if line == wordFull {
		f.full = true
	} else if n, err := strconv.ParseUint(line, 10, 64); err == nil {
		f.acked[n]++
	} else {
		f.fault = line
	}
}

func (f *flooding) refused() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.full
}

// reached waits until so many were acknowledged.
func (f *flooding) reached(ctx context.Context, n int) error {
	ok, err := until(ctx, fullWait, func() bool { return f.crashes() > 0 || f.count() >= n })
	switch {
	case err != nil:
		return err
	case f.crashes() > 0:
		return fmt.Errorf("who keeps messages has died: %s", f.last())
	case !ok:
		return fmt.Errorf("%d messages were acknowledged in %s, want %d: %s", f.count(), fullWait, n, f.last())
	}
	return nil
}

// stalled waits until nothing was acknowledged for a second.
func (f *flooding) stalled(ctx context.Context) error {
	n, since := f.count(), time.Now()
	ok, err := until(ctx, fullWait, func() bool {
		if now := f.count(); now != n {
			n, since = now, time.Now()
		}
		return f.crashes() > 0 || n > 0 && time.Since(since) > 2*time.Second
	})
	switch {
	case err != nil:
		return err
	case f.crashes() > 0:
		return fmt.Errorf("who keeps messages has died: %s", f.last())
	case !ok:
		return fmt.Errorf("the disk was not full in %s", fullWait)
	}
	return nil
}

// last is what it has said that is no acknowledgement.
func (f *flooding) last() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.fault
}

// crashes is 1 if it has died though nobody has killed it.
func (f *flooding) crashes() int {
	select {
	case <-f.gone:
		return 1
	default:
		return 0
	}
}

func (f *flooding) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.acked)
}

// kill ends it with SIGKILL and gives what it has said until then.
func (f *flooding) kill() map[uint64]int {
	f.h.cmd.Process.Kill() // fails only if it has ended
	<-f.gone               // before Wait, which closes the pipe with what is still in it
	f.h.cmd.Wait()
	return f.acked
}

// accounted reads a store that was killed to its end, in a process of its own.
func accounted(ctx context.Context, dir string) (map[uint64]int, error) {
	h, err := help(accountStore, "--store", dir)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { h.cmd.Process.Kill() })
	defer stop()
	seen := map[uint64]int{}
	for lines := bufio.NewScanner(h.out); lines.Scan(); {
		if n, err := strconv.ParseUint(lines.Text(), 10, 64); err == nil {
			seen[n]++
		}
	}
	return seen, h.cmd.Wait()
}

func floodStoreCommand() *cobra.Command {
	return storeCommand(floodStore, func(ctx context.Context, h *holdfast, say chan<- string) error {
		s := newSource(bodyBytes)
		window := make(chan struct{}, 256)
		var refused retries
		for ctx.Err() == nil {
			window <- struct{}{}
			m, ok := refused.next()
			if !ok {
				m = s.one()
			}
			h.put(m, func(err error) {
				switch {
				case err == nil:
					refused.full.Store(false)
					say <- string(m.body[digitsAt : digitsAt+digits])
				case errors.Is(err, storage.ErrFull):
					refused.full.Store(true)
					refused.add(m)
					say <- wordFull
				default:
					say <- err.Error()
				}
				<-window
			})
			if refused.full.Load() && !pause(ctx, 20*time.Millisecond) {
				break
			}
		}
		return ctx.Err()
	})
}

// retries are messages that were refused, to be tried again.
type retries struct {
	full atomic.Bool // the last answer was a refusal: the store wants some time

	mu      sync.Mutex
	waiting []message
}

func (r *retries) add(m message) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.waiting = append(r.waiting, m)
}

func (r *retries) next() (m message, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.waiting) == 0 {
		return m, false
	}
	m, r.waiting = r.waiting[0], r.waiting[1:]
	return m, true
}

func accountStoreCommand() *cobra.Command {
	return storeCommand(accountStore, func(ctx context.Context, h *holdfast, say chan<- string) error {
		s := newSource(bodyBytes)
		for {
			messages, err := h.take(1024)
			if err != nil || len(messages) == 0 {
				return err
			}
			for _, m := range messages {
				if _, err := s.numberOf(m); err != nil {
					return err
				}
				say <- string(m.body[digitsAt : digitsAt+digits])
			}
		}
	})
}

// storeCommand opens a store and says lines until run has ended.
func storeCommand(use string, run func(context.Context, *holdfast, chan<- string) error) *cobra.Command {
	var dir string
	cmd := &cobra.Command{Use: use, Hidden: true, Args: cobra.NoArgs}
	cmd.Flags().StringVar(&dir, "store", "", "`folder`")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		ctx, cancel := parented(cmd)
		defer cancel()
		h, err := openHoldfast(dir)
		if err != nil {
			return err
		}
		say, ended := make(chan string, unheard), make(chan error, 1)
		go func() { ended <- speak(cmd.OutOrStdout(), say) }()
		err = errors.Join(run(ctx, h, say), h.close()) // every done has run now
		close(say)
		return errors.Join(err, <-ended)
	}
	return cmd
}

// speak writes lines, and never keeps one back while nothing comes: who is killed has
// said what it knew but for the last few.
func speak(w io.Writer, say <-chan string) error {
	b := bufio.NewWriter(w)
	var err error
	for line := range say {
		b.WriteString(line)
		b.WriteByte('\n')
		if len(say) == 0 {
			err = b.Flush()
		}
	}
	return errors.Join(err, b.Flush())
}
