package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"holdfast.dev/holdfast/storage/crashdisk"
)

// powercutRun is a number of power cuts and the account of them.
type powercutRun struct {
	cuts  int
	jobs  int
	seed  uint64
	keep  bool
	quick bool
	tape  string // a recording that was kept, and one cut of it
	cut   string
	tell  io.Writer

	self, dir string
	begun     time.Time

	mu    sync.Mutex // guards all below
	sum   cutSum
	round int       // recordings that were begun
	given int       // cuts that are made of them
	said  time.Time // when progress was told last
	kept  int       // recordings
}

func powercutCommand() *cobra.Command {
	var p powercutRun
	cmd := &cobra.Command{
		Use:   "powercut",
		Short: "Cut the power under a working store, again and again, and look what is lost",
		Long: `A store works on a real ext4 on a disk that notes every write and every completed
flush, and says what it was told: appended, settled, parked, set. It is killed and
opened again meanwhile. Then the disk is laid out as a power cut would have left it,
at flushes and between them, also while a store is being opened after a cut, in three
models of what becomes of blocks that were not flushed: reverted; kept, reverted or
torn between 512-byte sectors by lot; filled with noise. Each time the store is
opened: what was acknowledged must be there, in order, the ledger must add up, and
nothing may be there that nobody offered.

Two controls must lose, or the rest proves nothing: a disk that lies about flushes,
and badger written in place under noise.

It needs root, loop devices, /dev/fuse and e2fsprogs.`,
		Args: cobra.NoArgs,
	}
	m := measureFlags(cmd)
	f := cmd.Flags()
	f.IntVar(&p.cuts, "cuts", 300, "how many")
	f.IntVar(&p.jobs, "jobs", min(2, runtime.NumCPU()), "recordings that are cut at the same time; each takes about 600 MB of memory")
	f.Uint64Var(&p.seed, "seed", 0, "of all that is by lot; a random one if zero")
	f.BoolVar(&p.keep, "keep", false, "keep the disk's image of each cut that a store does not survive")
	f.StringVar(&p.tape, "tape", "", "a recording that was kept, to look at one cut of it again")
	f.StringVar(&p.cut, "cut", "", "that cut, e.g. 1234:noise:5678")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		p.quick, p.tell = m.quick, cmd.ErrOrStderr()
		if p.quick && !cmd.Flags().Changed("cuts") {
			p.cuts, p.jobs = 40, 1
		}
		if p.cuts < 1 || p.jobs < 1 {
			return fmt.Errorf("--cuts %d --jobs %d: both must be 1 or more", p.cuts, p.jobs)
		}
		if p.seed == 0 {
			p.seed = rand.Uint64N(1 << 32)
		}
		rep := newReport(cmd, fmt.Sprintf("Power cuts, seed %d", p.seed))
		return p.run(cmd.Context(), m.dir, rep, cmd.OutOrStdout())
	}
	cmd.AddCommand(workCommand(), checkCommand(), inPlaceCommand())
	return cmd
}

func (p *powercutRun) run(ctx context.Context, dir string, rep *report, out io.Writer) error {
	if err := crashdisk.Missing(false); err != nil {
		rep.skip("S7", "power cuts", err.Error())
		return rep.print(out)
	}
	var err error
	if p.self, err = os.Executable(); err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	if dir == "" && inMemory("/dev/shm") {
		dir = "/dev/shm" // the disks are in memory, and so may be what stands beside them
	}
	// What a run that was killed has left is found under no name of this one.
	if _, err := crashdisk.Sweep(cmp.Or(dir, os.TempDir())); err != nil {
		fmt.Fprintf(p.tell, "something of an earlier run is still there: %v\n", err)
	}
	if p.dir, err = os.MkdirTemp(dir, "holdfast-powercut-"); err != nil {
		return err
	}
	if p.tape != "" {
		err = p.again(out)
	} else {
		err = p.all(ctx, rep, out)
	}
	if p.kept > 0 {
		fmt.Fprintf(p.tell, "what a failure can be looked at with again is kept in %s\n", p.dir)
		return err
	}
	return errors.Join(err, os.RemoveAll(p.dir))
}

// withRig opens disks for one job, and takes them down again.
func (p *powercutRun) withRig(name string, do func(*cutRig) error) error {
	r, err := openCutRig(p.self, filepath.Join(p.dir, name))
	if err != nil {
		return err
	}
	// A recording is some seconds long; some hundred cuts of it are made then.
	r.steps = 400
	if p.quick {
		r.steps = 100
	}
	return errors.Join(do(r), r.close())
}

// all makes the cuts and the controls, and prints the account, also of a run that
// ends early.
func (p *powercutRun) all(ctx context.Context, rep *report, out io.Writer) error {
	p.begun, p.said, p.sum = time.Now(), time.Now(), newCutSum()
	fmt.Fprintf(p.tell, "seed %d\n", p.seed)
	jobs, jobsCtx := errgroup.WithContext(ctx)
	for j := range p.jobs {
		jobs.Go(func() error {
			return p.withRig(fmt.Sprint("job-", j), func(r *cutRig) error { return p.job(jobsCtx, r) })
		})
	}
	err := jobs.Wait()
	if err == nil {
		err = p.withRig("control", func(r *cutRig) error { return p.controls(ctx, r) })
	}
	p.sum.figures(rep)
	p.sum.notes(rep, time.Since(p.begun))
	return errors.Join(err, rep.print(out), p.sum.verdict())
}

// job makes recordings and cuts them until all cuts are given away.
func (p *powercutRun) job(ctx context.Context, r *cutRig) error {
	for {
		p.mu.Lock()
		n := min(cutsEach, (p.cuts+p.jobs-1)/p.jobs, p.cuts-p.given)
		if p.late() {
			n = 0
		}
		seed := p.seed + uint64(p.round)
		p.round++
		p.given += n
		p.mu.Unlock()
		if n == 0 {
			return nil
		}
		if err := p.cutOne(ctx, r, seed, n); err != nil {
			return err
		}
	}
}

// late says that the quick form has taken its time: on a busy machine it makes
// fewer cuts, and says how many.
func (p *powercutRun) late() bool { return p.quick && time.Since(p.begun) > 9*time.Second }

// cutsEach is how many cuts are made of one recording at most.
const cutsEach = 300

// cutOne records one store and cuts it n times. What is left by one of eight is
// opened for real, and cut three times meanwhile.
func (p *powercutRun) cutOne(ctx context.Context, r *cutRig, seed uint64, n int) error {
	rec, err := r.record(ctx, seed)
	if err != nil {
		return err
	}
	defer os.Remove(rec.file)
	p.mu.Lock()
	p.sum.taped(rec)
	p.mu.Unlock()
	const again = 3
	lot, openings := rand.New(rand.NewPCG(seed, 8)), n/8
	cuts := pickCuts(rec, n-again*openings, cutModels(), lot)
	if p.quick { // there may not be time for all: not the first ones only
		lot.Shuffle(len(cuts), func(i, j int) { cuts[i], cuts[j] = cuts[j], cuts[i] })
	}
	for i, c := range cuts {
		if err := ctx.Err(); err != nil || p.late() {
			return err
		}
		o, err := r.cut(r.play, rec, c, lot.IntN(4) == 0)
		if err == nil {
			err = p.take(rec, o, r.play)
		}
		if err == nil && i%5 == 4 && i/5 < openings && o.findings.clean() {
			err = r.cutOpening(ctx, rec, c, again, lot, p.take)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// take counts what a cut showed, and keeps what is needed to see it again.
func (p *powercutRun) take(rec *recording, o outcome, d *crashdisk.Disk) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sum.add(o)
	if time.Since(p.said) > 20*time.Second {
		p.said = time.Now()
		fmt.Fprintf(p.tell, "%d of %d cuts, %.1f a second, %d failed\n", p.sum.made(), p.cuts,
			float64(p.sum.made())/time.Since(p.begun).Seconds(), p.sum.failed())
	}
	if o.findings.clean() {
		return nil
	}
	if rec.kept == "" {
		if p.kept++; p.kept > 3 { // they are large, and a store that loses that often is looked at once
			return nil
		}
		rec.kept = filepath.Join(p.dir, fmt.Sprintf("failure-%d", p.kept))
		if err := rec.save(rec.kept); err != nil {
			return err
		}
	}
	fmt.Fprintf(p.tell, "seed %d, cut %s:\n%v\nto see it again: bench powercut --tape %s --cut %s\n",
		rec.seed, cutWord(o.cut), o.findings, rec.kept, cutWord(o.cut))
	if !p.keep {
		return nil
	}
	if err := d.Lay(rec.tape, o.cut); err != nil {
		return err
	}
	return d.Save(fmt.Sprintf("%s-%d.img", rec.kept, o.cut.At))
}

// again makes one cut of a recording that was kept.
func (p *powercutRun) again(out io.Writer) error {
	c, err := parseCutWord(p.cut)
	if err != nil {
		return err
	}
	return p.withRig("again", func(r *cutRig) error {
		rec, err := loadRecording(p.tape, r.dir)
		if err != nil {
			return err
		}
		o, err := r.cut(r.play, rec, c, false)
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "%+v\n%v\n", o.mounted, o.findings)
		if !o.findings.clean() {
			return fmt.Errorf("cut %s of %s: the promise was not kept", p.cut, p.tape)
		}
		return nil
	})
}
