package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"holdfast.dev/holdfast/storage/crashdisk"
)

// cutBytes is the size of the disks that are cut: small, so that it is quickly made
// anew, and the store has to give its space back.
const cutBytes = 96 << 20

// recording is what some lives of a program left on a tape.
type recording struct {
	seed    uint64
	tape    *crashdisk.Tape
	marks   []crashdisk.Mark
	file    string // the marks, for the checker
	room    cutRoom
	inPlace bool   // of badger
	kept    string // where it was put for a failure; empty: it was not
}

// before is how many marks were made before an event of the tape.
func (r *recording) before(at int) int {
	n := 0
	for n < len(r.marks) && r.marks[n].At < at {
		n++
	}
	return n
}

// newRecording takes a tape, with words that were said before it began.
func newRecording(dir string, seed uint64, t *crashdisk.Tape, earlier []string) (*recording, error) {
	r := &recording{seed: seed, tape: t}
	for _, m := range earlier {
		r.marks = append(r.marks, crashdisk.Mark{At: -1, Text: []byte(m)})
	}
	r.marks = append(r.marks, t.Marks()...)
	texts := make([]string, len(r.marks))
	for i, m := range r.marks {
		texts[i] = string(m.Text)
	}
	f, err := os.CreateTemp(dir, "marks-")
	if err != nil {
		return nil, err
	}
	r.file = f.Name()
	if err := errors.Join(json.NewEncoder(f).Encode(texts), f.Close()); err != nil {
		return nil, fmt.Errorf("keep the marks: %w", err)
	}
	return r, nil
}

// moved is how many records the lives said to have moved into generations.
func (r *recording) moved() (sum int) {
	last := 0
	for _, m := range r.marks {
		text := string(m.Text)
		if strings.HasPrefix(text, "life ") {
			sum, last = sum+last, 0
		}
		if f := strings.Fields(text); len(f) == 3 && f[0] == "moved" {
			last, _ = strconv.Atoi(f[1]) // the checker complains
		}
	}
	return sum + last
}

func (r *recording) texts(n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = string(r.marks[i].Text)
	}
	return out
}

// record lets a store work on the disk in several processes, of which all but the
// last are killed.
func (r *cutRig) record(ctx context.Context, seed uint64) (*recording, error) {
	lot := rand.New(rand.NewPCG(seed, 7))
	room := r.room(lot)
	backlog := 512<<10 + lot.Int64N(3<<20)
	if lot.IntN(3) == 0 {
		backlog = lot.Int64N(2 * room.Bytes) // more than there is room for, perhaps
	}
	if err := r.begin(); err != nil {
		return nil, err
	}
	lives, sleeper := 2+lot.IntN(3), lot.IntN(2) == 0
	for life := range lives {
		args := append(r.workArgs(r.rec, seed, life, room, backlog), "--sleeper="+strconv.FormatBool(sleeper),
			"--steps", strconv.Itoa(r.steps/3+lot.IntN(r.steps)))
		if life < lives-1 {
			args = append(args, "--kill")
		} else {
			args = append(args, "--close="+strconv.FormatBool(lot.IntN(2) == 0))
		}
		if err := r.live(ctx, args...); err != nil {
			return nil, fmt.Errorf("record seed %d, life %d: %w", seed, life, err)
		}
	}
	t, err := r.rec.Eject()
	if err != nil {
		return nil, err
	}
	rec, err := newRecording(r.dir, seed, t, nil)
	if err == nil {
		rec.room = room
	}
	return rec, err
}

// begin makes the disk anew and starts a tape on it. Blocks of earlier stores are
// where they were: a store must not take them for its own.
func (r *cutRig) begin() error {
	if err := r.rec.Format(); err != nil {
		return err
	}
	return r.rec.Record()
}

// room gives a store more or less room, and builds its generations in memory or on
// the disk that is cut.
func (r *cutRig) room(lot *rand.Rand) cutRoom {
	room := cutRoom{Ring: 4 + lot.IntN(3)}
	room.Bytes = int64(room.Ring+4+lot.IntN(20)) << 20
	if lot.IntN(2) == 0 {
		room.Scratch = filepath.Join(r.dir, "scratch")
	}
	return room
}

func (r *cutRig) workArgs(d *crashdisk.Disk, seed uint64, life int, room cutRoom, backlog int64) []string {
	return []string{"powercut", "work", "--dir", filepath.Join(d.Dir(), "store"), "--marks", d.Marks(),
		"--seed", strconv.FormatUint(seed, 10), "--life", strconv.Itoa(life),
		"--ring", strconv.Itoa(room.Ring), "--bytes", strconv.FormatInt(room.Bytes, 10), "--scratch", room.Scratch,
		"--backlog", strconv.FormatInt(backlog, 10)}
}

// recordInPlace lets badger work on the disk.
func (r *cutRig) recordInPlace(ctx context.Context, seed uint64) (*recording, error) {
	if err := r.begin(); err != nil {
		return nil, err
	}
	err := r.live(ctx, "powercut", "inplace", "--dir", filepath.Join(r.rec.Dir(), "store"), "--marks", r.rec.Marks(),
		"--seed", strconv.FormatUint(seed, 10), "--steps", strconv.Itoa(2*r.steps))
	if err != nil {
		return nil, fmt.Errorf("record badger, seed %d: %w", seed, err)
	}
	t, err := r.rec.Eject()
	if err != nil {
		return nil, err
	}
	rec, err := newRecording(r.dir, seed, t, nil)
	if err == nil {
		rec.inPlace = true
	}
	return rec, err
}

// live runs one process of this program, which may end by killing itself.
func (r *cutRig) live(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, r.self, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	in, err := cmd.StdinPipe() // its end tells the process that this one is gone
	if err != nil {
		return err
	}
	defer in.Close()
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s %s: %w", args[0], args[1], err)
	}
	err = cmd.Wait()
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() && status.Signal() == syscall.SIGKILL {
		return ctx.Err()
	}
	if err != nil {
		return errors.Join(ctx.Err(), fmt.Errorf("%s: %w: %s", strings.Join(args[:2], " "), err, said.String()))
	}
	return nil
}
