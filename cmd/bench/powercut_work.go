package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"holdfast.dev/holdfast/storage"
)

// cutWorker is the process that uses a store while its disk is recorded. Its
// decisions follow from the seed; what comes together in one commit does not.
type cutWorker struct {
	db  *storage.DB
	lot *rand.Rand
	say sayer

	n       map[string]int // by sender: the last number offered
	key     int            // the last token of a Map change
	asking  sync.WaitGroup // what was asked for and not answered
	parking atomic.Bool    // of a sender, asked for and not answered
	sleeper string         // a sender that stays parked
	full    bool           // guarded by mu, as what follows
	mu      sync.Mutex
	last    map[string]storage.Position // by queue: of what was acknowledged
	failure error
}

// cutWork is what a worker is told.
type cutWork struct {
	dir, marks string
	seed       uint64
	life       int
	steps      int
	backlog    int64 // bytes at which it begins to drain
	room       cutRoom
	sleeper    bool // one sender is parked all the time, so that generations are left with little
	kill       bool // it ends by SIGKILL, else
	close      bool // in order, or as if it were killed between two steps
}

// cutRoom is how much room a store is given.
type cutRoom struct {
	Ring    int    // segments of the journal
	Bytes   int64  // that it may take on the disk
	Scratch string // where generations are built; empty: on the disk itself
}

var cutSenders = []string{"pump", "valve", "meter", "press", "oven", "gate"}

// cutQueues are those of two places, one of them with two priorities, of one that
// keeps only the newest, and of a dozen sessions that are seldom used.
func cutQueues() []string {
	qs := []string{"up-0", "up-5", "local", evictingQueue}
	for i := range 12 {
		qs = append(qs, fmt.Sprint("session-", i))
	}
	return qs
}

// evictingQueue gives up its oldest records by rule, without anybody asking.
const evictingQueue = "newest"

func workCommand() *cobra.Command {
	var w cutWork
	cmd := &cobra.Command{
		Use: "work", Short: "Use a store and say what it answers", Hidden: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			go func() { // whoever started it has gone
				_, _ = io.Copy(io.Discard, cmd.InOrStdin())
				os.Exit(3)
			}()
			return w.run(cmd.Context())
		},
	}
	f := cmd.Flags()
	f.StringVar(&w.dir, "dir", "", "`folder` of the store")
	f.StringVar(&w.marks, "marks", "", "`file` to say it to")
	f.Uint64Var(&w.seed, "seed", 0, "of its decisions")
	f.IntVar(&w.life, "life", 0, "how many came before on this store")
	f.IntVar(&w.steps, "steps", 0, "how long it works")
	f.Int64Var(&w.backlog, "backlog", 0, "`bytes` at which it begins to drain")
	f.IntVar(&w.room.Ring, "ring", 4, "segments of the journal")
	f.Int64Var(&w.room.Bytes, "bytes", 16<<20, "that the store may take")
	f.StringVar(&w.room.Scratch, "scratch", "", "`folder` to build generations in")
	f.BoolVar(&w.sleeper, "sleeper", false, "keep one sender parked")
	f.BoolVar(&w.kill, "kill", false, "end by SIGKILL, in the middle of something")
	f.BoolVar(&w.close, "close", false, "close the store at the end")
	return cmd
}

// options are the store's: small segments, so that all that happens once in a
// segment happens often.
func (r cutRoom) options() storage.Options {
	return storage.Options{SegmentBytes: 1 << 20, Ring: r.Ring, MaxBytes: r.Bytes, Scratch: r.Scratch}
}

func (w cutWork) run(ctx context.Context) error {
	f, err := os.OpenFile(w.marks, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	c := &cutWorker{lot: rand.New(rand.NewPCG(w.seed, uint64(w.life))), say: sayer{f: f},
		n: map[string]int{}, last: map[string]storage.Position{}, key: w.life * 1e6}
	for _, s := range cutSenders {
		c.n[s] = w.life * 1e6
	}
	c.say.say("life %d", w.life)
	if c.db, err = storage.Open(w.dir, w.room.options()); err != nil {
		return err
	}
	if err := c.tellWhatIsThere(); err != nil {
		return err
	}
	c.db.Queue(evictingQueue).SetPolicy(storage.Policy{MaxBytes: 256 << 10, Evict: true})
	if err := c.work(ctx, w); err != nil {
		return err
	}
	if !w.close {
		return nil // as if killed, but at a moment that follows from the seed
	}
	c.asking.Wait()
	if err := c.db.Verify(); err != nil {
		return fmt.Errorf("verify a store that was not cut: %w", err)
	}
	return errors.Join(c.db.Close(), c.failed())
}

// work appends until the backlog is as large as it should be, drains it, and begins
// again: what is left then, of a sender that is parked, is not counted.
func (c *cutWorker) work(ctx context.Context, w cutWork) error {
	if w.sleeper {
		c.sleeper = cutSenders[0]
		c.park(c.db.Queue(cutQueues()[0]), c.sleeper)
	}
	drain, left := false, int64(0)
	for i := 0; i < w.steps || w.kill; i++ {
		if i == w.steps { // not at the end of a step, or it would never be in the middle of one
			time.AfterFunc(time.Duration(c.lot.IntN(5000))*time.Microsecond, func() { _ = syscall.Kill(os.Getpid(), syscall.SIGKILL) })
		}
		if i%16 == 0 {
			s := c.db.Stats()
			c.say.say("moved %d %d", s.Moved, s.Generations)
		}
		bytes, records := c.waits()
		switch {
		case bytes > left+w.backlog || c.isFull():
			drain = true
		case drain && records < 20:
			drain, left = false, bytes
			if c.lot.IntN(2) == 0 {
				c.rest()
				time.Sleep(400 * time.Millisecond) // the mover looks every 250 ms at what has drained
			}
		}
		if drain {
			c.drainStep(ctx)
		} else {
			c.step(ctx)
		}
		if err := c.failed(); err != nil {
			return err
		}
	}
	return nil
}

// tellWhatIsThere says what the store has when it is opened: all of that must be
// there from now on, or a reader who was given it would be contradicted.
func (c *cutWorker) tellWhatIsThere() error {
	for _, q := range c.db.Queues() {
		var b strings.Builder
		err := lookThrough(q, func(s storage.Seen) error {
			if s.Err != nil {
				return fmt.Errorf("record %d of queue %s: %w", s.Position, q.Name(), s.Err)
			}
			body, err := parseCutBody(s.Body)
			if err != nil {
				return fmt.Errorf("record %d of queue %s: %w", s.Position, q.Name(), err)
			}
			if fmt.Fprintf(&b, "has %s %d %s %d %d\n", q.Name(), s.Position, body.sender, body.n, body.ttl); b.Len() > 64<<10 {
				c.say.line(b.String())
				b.Reset()
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("look at a store that was not cut: %w", err)
		}
		last := q.Stats().Last
		c.last[q.Name()] = last
		fmt.Fprintf(&b, "whole %s %d\n", q.Name(), last)
		c.say.line(b.String())
	}
	c.say.say("opened")
	return nil
}

// lookThrough shows all that a queue has.
func lookThrough(q *storage.Queue, see func(storage.Seen) error) error {
	for after := storage.Position(0); ; {
		seen, next, err := q.Look(after, storage.Limit{Records: 2000, Bytes: 4 << 20}, nil)
		if err != nil {
			return err
		}
		for _, s := range seen {
			if err := see(s); err != nil {
				return err
			}
		}
		if next == after {
			return nil
		}
		after = next
	}
}

// waits is how many bytes are in the queues, and how many records a reader would be
// given.
func (c *cutWorker) waits() (bytes int64, records uint64) {
	for _, q := range c.db.Queues() {
		s := q.Stats()
		bytes, records = bytes+int64(s.Bytes), records+s.Pending
	}
	return bytes, records
}

func (c *cutWorker) isFull() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	full := c.full
	c.full = false
	return full
}

func (c *cutWorker) failed() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return errors.Join(c.failure, c.say.failed())
}

// answer takes what a callback was told: a full store is not a failure.
func (c *cutWorker) answer(err error) bool {
	if err == nil {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if errors.Is(err, storage.ErrFull) {
		c.full = true
	} else if c.failure == nil && !errors.Is(err, storage.ErrClosed) {
		c.failure = fmt.Errorf("the store says: %w", err)
	}
	return false
}

// rest waits for what was asked for: what a reader sees then was acknowledged.
func (c *cutWorker) rest() {
	done := make(chan struct{})
	go func() { c.asking.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		c.mu.Lock()
		c.failure = errors.Join(c.failure, errors.New("the store does not answer for 20 s"))
		c.mu.Unlock()
	}
}
