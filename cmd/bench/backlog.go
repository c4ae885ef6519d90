package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
)

const backlogText = `Groups of 64 messages are kept and nothing is drained: what the ring of the journal
cannot hold moves into sealed generations behind it. The reference R is a plain log of
pre-written segments that is long enough for all of it. Both take turns.

Flushes a commit and bytes written a payload byte while messages move are counted by a
loop device; that needs root, and is skipped without.`

func backlogCommand() *cobra.Command {
	var n int
	return trialCommand("backlog", "Nothing is drained: groups of 64 kept, and moved out of the journal", backlogText,
		backlogFlag(&n),
		func(ctx context.Context, t *trial) error {
			n := backlogOf(t, n)
			return errors.Join(
				backlogRates(ctx, t, n),
				t.counting(size[int64](t, 1024, 3072), func(b *bed) error { return backlogCounts(ctx, t, b, pick(t, 1500, 12000)) }, "S2", "S3"))
		})
}

func backlogFlag(n *int) func(*cobra.Command) {
	return func(cmd *cobra.Command) {
		cmd.Flags().IntVar(n, "n", 0, "`messages`; 1,000,000 (250,000 with --quick) if not given")
	}
}

// backlogOf is how many messages a backlog has: more than half the ring holds, or
// nothing would move.
func backlogOf(t *trial, n int) int {
	if n == 0 {
		return pick(t, 250_000, 1_000_000)
	}
	return n
}

// pile keeps a number of groups that nobody reads, two under way, and gives the
// messages a second.
func (l *lane) pile(ctx context.Context, groups int) (rate float64, err error) {
	var way []*batch
	start := time.Now()
	for n := 0; n < groups || len(way) > 0; {
		if n < groups && len(way) < 2 {
			way, n = append(way, l.hand()), n+1
			continue
		}
		if err := errors.Join(way[0].wait(), ctx.Err()); err != nil {
			return 0, err
		}
		way = way[1:]
	}
	return float64(groups*groupSize) / time.Since(start).Seconds(), nil
}

// besideR opens us and R, with room for a backlog.
func besideR(bed *bed, n int) (us, r *lane, err error) {
	if us, err = openLane(holdfastRival(), bed.room("ours"), 0); err != nil {
		return nil, nil, err
	}
	if r, err = openLane(referenceRival(), bed.room("r"), int64(n)*bodyBytes); err != nil {
		return nil, nil, errors.Join(err, us.close())
	}
	return us, r, nil
}

func backlogRates(ctx context.Context, t *trial, n int) (err error) {
	us, r, err := besideR(plainBed(t.work), n)
	if err != nil {
		return err
	}
	defer closing(&err, us.close)
	defer closing(&err, r.close)
	g := newGauge()
	rates, err := pileInTurns(ctx, t, []*lane{us, r}, n)
	most, _, gaugeErr := g.stop()
	if err = errors.Join(err, gaugeErr); err != nil {
		return err
	}
	h := us.c.(*holdfast)
	if err := h.account(us.s.next.Load()); err != nil {
		return err
	}
	used, err := usedIn(filepath.Join(t.work, "ours"))
	if err != nil {
		return err
	}
	what := thousands(int64(n)) + " kept: "
	stats := h.db.Stats()
	t.add(rates[0].over(rates[1]).figure("backlog", what+"Holdfast against R", "x"),
		rates[0].figure("backlog", what+"Holdfast storage", "messages/s"),
		rates[1].figure("backlog", what+"R, a plain log", "messages/s"),
		figure{ID: "S4", What: what + "anonymous memory, most", Value: most, Unit: "MB"}.judged("<= 48").because("R and the makers of the messages are in the same process"),
		figure{ID: "backlog", What: what + "of these, moved by then", Value: float64(stats.Moved), Unit: "messages"},
		figure{ID: "backlog", What: what + "generations", Value: float64(stats.Generations), Unit: "generations"},
		figure{ID: "backlog", What: what + "on disk, a payload byte", Value: used / float64(n*bodyBytes), Unit: "x"})
	return nil
}

// pileInTurns keeps n messages in each lane and gives the messages a second of each
// round.
func pileInTurns(ctx context.Context, t *trial, lanes []*lane, n int) ([]series, error) {
	rates := make([]series, len(lanes))
	err := turns(t.rounds(), len(lanes), func(_, i int) error {
		rate, err := lanes[i].pile(ctx, max(1, n/t.rounds()/groupSize))
		if err != nil {
			return fmt.Errorf("keep a backlog: %s: %w", lanes[i].name, err)
		}
		rates[i] = append(rates[i], rate)
		return nil
	})
	return rates, err
}

// backlogCounts fills the ring until segments are used again, and counts what the disk
// is asked for after that.
func backlogCounts(ctx context.Context, t *trial, bed *bed, groups int) (err error) {
	l, err := openLane(holdfastRival(), bed.room("store"), 0)
	if err != nil {
		return err
	}
	defer closing(&err, l.close)
	h := l.c.(*holdfast)
	for h.db.Stats().Moved == 0 {
		if _, err := l.pile(ctx, 100); err != nil {
			return err
		}
		if n := int(l.s.next.Load()); n > pick(t, 1_000_000, 2_000_000) {
			t.skip("S2", "moving", fmt.Sprintf("nothing has moved of %d messages", n))
			return nil
		}
	}
	if _, err := l.pile(ctx, groups); err != nil {
		return err
	}
	moved := h.db.Stats().Moved
	var a bill
	a.Counts, err = bed.counted(func() error {
		commits := l.c.commits()
		_, err := l.pile(ctx, groups)
		a.commits = l.c.commits() - commits
		return err
	})
	if err != nil {
		return err
	}
	a.payload = uint64(groups * groupSize * bodyBytes)
	moved = h.db.Stats().Moved - moved
	f := a.perCommit("S2", "moving: groups of 64").judged("<= 1.10")
	t.add(a.honest(f), a.amplification("S3", "moving: groups of 64").judged("<= 3.0"),
		figure{ID: "S2", What: "moving: flushes beyond one a commit, a MiB moved", Unit: "flushes",
			Value: (float64(a.Flushes) - float64(a.commits)) / (float64(moved*bodyBytes) / (1 << 20))}.judged("<= 1"))
	return sealed(t, bed.room("store"), h)
}

// sealed says how large what was moved is on disk.
func sealed(t *trial, dir string, h *holdfast) error {
	folders, err := filepath.Glob(filepath.Join(dir, "g-*"))
	if err != nil {
		return err
	}
	moved, total := h.db.Stats().Moved, 0.0
	for _, f := range folders {
		used, err := usedIn(f)
		if err != nil {
			return err
		}
		total += used
	}
	t.add(figure{ID: "S3", What: "moved: generations on disk, a payload byte", Value: total / float64(moved*bodyBytes), Unit: "x"}.judged("<= 0.8"))
	return nil
}
