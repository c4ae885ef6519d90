package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"holdfast.dev/holdfast/storage/crashdisk"
)

// powercutRun is a number of power cuts and the account of them.
type powercutRun struct {
	cuts  int
	seed  uint64
	keep  bool
	quick bool
	tape  string // a recording that was kept, and one cut of it
	cut   string

	rig   *cutRig
	sum   cutSum
	tell  io.Writer
	begun time.Time
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
	f.Uint64Var(&p.seed, "seed", 0, "of all that is by lot; a random one if zero")
	f.BoolVar(&p.keep, "keep", false, "keep the disk's image of each cut that a store does not survive")
	f.StringVar(&p.tape, "tape", "", "a recording that was kept, to look at one cut of it again")
	f.StringVar(&p.cut, "cut", "", "that cut, e.g. 1234:noise:5678")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		p.quick, p.tell = m.quick, cmd.ErrOrStderr()
		if p.quick && !cmd.Flags().Changed("cuts") {
			p.cuts = 40
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
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	if dir == "" && inMemory("/dev/shm") {
		dir = "/dev/shm" // the disks are in memory, and so may be what stands beside them
	}
	if dir, err = os.MkdirTemp(dir, "holdfast-powercut-"); err != nil {
		return err
	}
	if p.rig, err = openCutRig(self, dir); err != nil {
		return errors.Join(err, os.RemoveAll(dir))
	}
	p.pace()
	if p.tape != "" {
		err = p.again(out)
	} else {
		err = p.all(ctx, rep, out)
	}
	err = errors.Join(err, p.rig.close())
	if p.kept > 0 {
		fmt.Fprintf(p.tell, "what a failure can be looked at with again is kept in %s\n", dir)
		return err
	}
	return errors.Join(err, os.RemoveAll(dir))
}

// pace is how long a recording is: some seconds, some hundred cuts of which are
// then made.
func (p *powercutRun) pace() {
	p.rig.keep, p.rig.steps, p.rig.life = p.keep, 400, time.Second
	if p.quick {
		p.rig.steps, p.rig.life = 100, 500*time.Millisecond
	}
}

// cutsEach is how many cuts are made of one recording.
const cutsEach = 300

// all makes the cuts and the controls, and prints the account, also of a run that
// ends early.
func (p *powercutRun) all(ctx context.Context, rep *report, out io.Writer) error {
	p.begun, p.said = time.Now(), time.Now()
	p.sum = newCutSum()
	fmt.Fprintf(p.tell, "seed %d\n", p.seed)
	var err error
	for round := uint64(0); err == nil && p.sum.made() < p.cuts; round++ {
		err = p.round(ctx, p.seed+round, min(cutsEach, p.cuts-p.sum.made()))
	}
	if err == nil {
		err = p.controls(ctx)
	}
	p.sum.figures(rep)
	p.sum.notes(rep, time.Since(p.begun))
	return errors.Join(err, rep.print(out), p.sum.verdict())
}

// round records one store and cuts it n times.
func (p *powercutRun) round(ctx context.Context, seed uint64, n int) error {
	rec, err := p.rig.record(ctx, seed)
	if err != nil {
		return err
	}
	defer os.Remove(rec.file)
	p.sum.taped(rec)
	lot := rand.New(rand.NewPCG(seed, 8))
	// Of each eight cuts one is opened for real and cut three times meanwhile.
	direct := n - n/8*3
	for i, c := range pickCuts(rec, direct, cutModels(), lot) {
		if err := ctx.Err(); err != nil {
			return err
		}
		o, err := p.rig.cut(p.rig.play, rec, c, lot.IntN(4) == 0)
		if err != nil {
			return err
		}
		if err := p.take(rec, o, p.rig.play); err != nil {
			return err
		}
		if i%5 == 4 && p.sum.made() < p.cuts && i/5 < n/8 {
			if err := p.rig.cutOpening(ctx, rec, c, 3, lot, p.take); err != nil {
				return err
			}
		}
	}
	return nil
}

// take counts what a cut showed, and keeps what is needed to see it again.
func (p *powercutRun) take(rec *recording, o outcome, d *crashdisk.Disk) error {
	p.sum.add(o)
	if time.Since(p.said) > 20*time.Second {
		p.said = time.Now()
		fmt.Fprintf(p.tell, "%d of %d cuts, %.1f a second, %d failed\n", p.sum.made(), p.cuts,
			float64(p.sum.made())/time.Since(p.begun).Seconds(), p.sum.failed())
	}
	if o.findings.clean() {
		return nil
	}
	p.kept++
	if p.kept > 10 {
		return nil // a store that loses that often is looked at once
	}
	path := filepath.Join(p.rig.dir, fmt.Sprintf("failure-%d", p.kept))
	fmt.Fprintf(p.tell, "seed %d, cut %s:\n%v\nto see it again: bench powercut --tape %s --cut %s\n",
		rec.seed, cutWord(o.cut), o.findings, path, cutWord(o.cut))
	if err := rec.save(path); err != nil || !p.keep {
		return err
	}
	if err := d.Lay(rec.tape, o.cut); err != nil {
		return err
	}
	return d.Save(path + ".img")
}

// again makes one cut of a recording that was kept.
func (p *powercutRun) again(out io.Writer) error {
	c, err := parseCutWord(p.cut)
	if err != nil {
		return err
	}
	rec, err := loadRecording(p.tape, p.rig.dir)
	if err != nil {
		return err
	}
	o, err := p.rig.cut(p.rig.play, rec, c, false)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%+v\n%v\n", o.mounted, o.findings)
	if !o.findings.clean() {
		return fmt.Errorf("cut %s of %s: the promise was not kept", p.cut, p.tape)
	}
	return nil
}
