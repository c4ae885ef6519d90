package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"

	"holdfast.dev/holdfast/storage/crashdisk"
)

// controls makes cuts that must lose: were nothing lost on a disk that lies, or by
// a store that is known to lose, then the cuts would be none.
func (p *powercutRun) controls(ctx context.Context, r *cutRig) error {
	n := max(12, min(60, p.cuts/5))
	rec, err := r.record(ctx, p.seed)
	if err != nil {
		return err
	}
	defer os.Remove(rec.file)
	lying := *rec
	lying.tape = rec.tape.Lie(16, p.seed)
	if err := p.control(ctx, r, &lying, crashdisk.Revert, n, "a disk that lies about flushes"); err != nil {
		return err
	}
	badger, err := r.recordInPlace(ctx, p.seed)
	if err != nil {
		return err
	}
	defer os.Remove(badger.file)
	return p.control(ctx, r, badger, crashdisk.Noise, max(n, 20), "badger written in place, noise")
}

func (p *powercutRun) control(ctx context.Context, r *cutRig, rec *recording, m crashdisk.Model, n int, name string) error {
	lot, row := rand.New(rand.NewPCG(rec.seed, 9)), cutRow{name: name}
	for _, c := range pickCuts(rec, n, []crashdisk.Model{m}, lot) {
		if err := ctx.Err(); err != nil {
			return err
		}
		o, err := r.cut(r.play, rec, c, false)
		if err != nil {
			return fmt.Errorf("control: %s: %w", name, err)
		}
		row.add(o)
	}
	p.sum.controls = append(p.sum.controls, row)
	return nil
}

// keptRecording is what stands beside a tape that is kept.
type keptRecording struct {
	Seed    uint64
	Room    cutRoom
	InPlace bool
	Earlier []string // said before the tape began
}

func (r *recording) save(path string) error {
	k := keptRecording{Seed: r.seed, Room: r.room, InPlace: r.inPlace, Earlier: r.texts(r.before(0))}
	b, err := json.Marshal(k)
	if err != nil {
		return fmt.Errorf("keep a recording: %w", err)
	}
	if err := os.WriteFile(path+".json", b, 0o600); err != nil {
		return err
	}
	return r.tape.Save(path)
}

func loadRecording(path, dir string) (*recording, error) {
	b, err := os.ReadFile(path + ".json")
	if err != nil {
		return nil, err
	}
	var k keptRecording
	if err := json.Unmarshal(b, &k); err != nil {
		return nil, fmt.Errorf("load recording %s: %w", path, err)
	}
	t, err := crashdisk.LoadTape(path)
	if err != nil {
		return nil, err
	}
	r, err := newRecording(dir, k.Seed, t, k.Earlier)
	if err == nil {
		r.room, r.inPlace = k.Room, k.InPlace
	}
	return r, err
}
