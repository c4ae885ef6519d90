package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"holdfast.dev/holdfast/storage"
)

const fullText = `A process of its own keeps messages at full speed in a small file system until that is
full, and goes on trying. Then a file that somebody else had left there is removed, and
the process has to get on without being started again; until the disk is full once more.
Then it is killed, and another one reads and settles everything on the disk that is still
full: what was acknowledged must be there, and nothing twice.

It needs root and loop devices, for a file system that can be filled.`

func fullCommand() *cobra.Command {
	return trialCommand("full", "A disk that runs full under load", fullText, nil,
		func(ctx context.Context, t *trial) error {
			return t.counting(size[int64](t, 192, 384), func(b *bed) error { return full(ctx, t, b) }, "S8")
		})
}

const (
	floodStore   = "flood-store"   // keeps messages until it is killed, and says what was acknowledged
	accountStore = "account-store" // reads and settles everything, and says what was there
	ballast      = 48 << 20        // bytes that are somebody else's
	unheard      = 1 << 16         // lines that may wait
	wordFull     = "full"
	resumption   = 10_000           // so many more messages mean that it has resumed, and are not the last crumbs of room
	fullWait     = 60 * time.Second // for anything to happen
)

func full(ctx context.Context, t *trial, bed *bed) error {
	if err := os.WriteFile(bed.room("ballast"), make([]byte, ballast), 0o644); err != nil {
		return err
	}
	f, err := flood(ctx, bed.room("store"))
	if err != nil {
		return err
	}
	defer f.h.kill()
	if err := f.stalled(ctx); err != nil {
		return err
	}
	if !f.refused() {
		return errors.New("fill a disk: nothing more was acknowledged, and nothing refused")
	}
	pause(ctx, pick(t, time.Second, 10*time.Second)) // it goes on trying
	first, begin := f.count(), time.Now()
	if err := os.Remove(bed.room("ballast")); err != nil {
		return err
	}
	resumed := f.reached(ctx, first+resumption)
	took := time.Since(begin).Seconds()
	stalled := f.stalled(ctx)
	crashes := f.crashes()
	f.h.kill()
	acked := f.all()
	seen, err := accounted(ctx, bed.room("store"))
	if err != nil {
		crashes++
		t.note("The store could not be read on the full disk: %v.", err)
	}
	lost, twice := compare(acked, seen)
	t.add(figure{ID: "S8", What: "disk full under load: crashes", Value: float64(crashes)}.judged("= 0"),
		figure{ID: "S8", What: "disk full under load: acknowledged and lost", Value: float64(lost), Unit: "messages"}.judged("= 0"),
		figure{ID: "full", What: "came back twice", Value: float64(twice), Unit: "messages"}.judged("= 0"),
		figure{ID: "full", What: "acknowledged until the disk was full", Value: float64(first), Unit: "messages"},
		figure{ID: "full", What: "acknowledged when it was full again", Value: float64(len(acked)), Unit: "messages"})
	back := figure{ID: "S8", What: "resumed by itself when space came back, after", Value: took, Unit: "s"}.judged("<= 15")
	if err := errors.Join(resumed, stalled); err != nil {
		no := false
		back.OK, back.Why = &no, err.Error()
	}
	t.add(back)
	return ctx.Err()
}

// compare counts what was acknowledged and is not there, and what is there twice.
func compare(acked, seen map[uint64]int) (lost, twice int) {
	for n := range acked {
		if seen[n] == 0 {
			lost++
		}
	}
	for _, times := range seen {
		twice += times - 1
	}
	return lost, twice
}

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

// all gives what it has said, after its end.
func (f *flooding) all() map[uint64]int {
	<-f.gone
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
		h, err := openHoldfast(dir)
		if err != nil {
			return err
		}
		say, ended := make(chan string, unheard), make(chan error, 1)
		go func() { ended <- speak(cmd.OutOrStdout(), say) }()
		err = errors.Join(run(cmd.Context(), h, say), h.close()) // every done has run now
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
