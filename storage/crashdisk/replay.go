package crashdisk

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Model says what becomes of the blocks that were not flushed when the power goes.
type Model uint8

// The models.
const (
	Revert Model = iota // all are as they were at the last flush
	Torn                // each is as it was, or as written, or a mixture of its 512-byte sectors
	Noise               // those of files are random bytes, in half of the cuts all of them; ext4's own are kept or reverted by lot
)

// Models is how many there are.
const Models = 3

func (m Model) String() string { return [...]string{"revert", "torn", "noise"}[m] }

// Cut is one power cut.
type Cut struct {
	At    int    // events of the tape before it
	Model Model  // what becomes of what was not flushed
	Seed  uint64 // of the lot, where the model has one
}

// Lay unmounts the disk and makes it what the cut leaves of the tape's. It is
// quickest where the cuts of one tape come in order.
func (d *Disk) Lay(t *Tape, c Cut) error {
	if d.p == nil || len(t.base) != len(d.p.bytes) {
		return fmt.Errorf("replay on disk %s: it must be served here and as large as the one that was recorded", d.o.Name)
	}
	if c.At < 0 || c.At > len(t.events) || c.Model >= Models {
		return fmt.Errorf("replay on disk %s: %+v is no cut of a tape of %d events", d.o.Name, c, len(t.events))
	}
	if err := d.leave(); err != nil {
		return fmt.Errorf("replay on disk %s: %w", d.o.Name, err)
	}
	loose := d.p.rewind(t, c.At)
	var own map[int64]bool
	if c.Model == Noise {
		var err error
		if own, err = d.ownBlocks(loose); err != nil {
			return fmt.Errorf("replay on disk %s: %w", d.o.Name, err)
		}
		d.p.rewind(t, c.At)
	}
	lot := rand.New(rand.NewPCG(c.Seed, uint64(c.At)))
	switch c.Model {
	case Torn:
		d.p.tear(loose, lot)
	case Noise:
		d.p.noise(loose, own, lot)
	}
	return nil
}

// leave unmounts the disk and makes the kernel forget what it knows of it.
func (d *Disk) leave() error {
	if err := unmount(d.Dir()); err != nil {
		return err
	}
	if err := unix.IoctlSetInt(int(d.loop.f.Fd()), unix.BLKFLSBUF, 0); err != nil {
		return fmt.Errorf("drop the cache of %s: %w", d.Device(), err)
	}
	return nil
}

// ownBlocks gives the blocks of the files as they would be had all been kept.
func (d *Disk) ownBlocks(loose []loose) (map[int64]bool, error) {
	d.p.keep(loose)
	if _, err := d.Mount(); err != nil {
		return nil, fmt.Errorf("find the blocks of the files: %w", err)
	}
	own, err := blocksOf(d.Dir())
	return own, errors.Join(err, d.leave())
}

// Mounted says how a disk came up.
type Mounted struct {
	Mended bool // it did not mount before e2fsck -fy
	Found  int  // what e2fsck put into lost+found
}

// Mount mounts the disk, after e2fsck if it does not mount without.
func (d *Disk) Mount() (Mounted, error) {
	var m Mounted
	if err := d.mount(); err != nil {
		m.Mended = true
		if err := mend(d.Device()); err != nil {
			return m, fmt.Errorf("mount disk %s: %w", d.o.Name, err)
		}
		if err := d.mount(); err != nil {
			return m, fmt.Errorf("mount disk %s after e2fsck: %w", d.o.Name, err)
		}
	}
	found, err := os.ReadDir(filepath.Join(d.Dir(), "lost+found"))
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	m.Found = len(found)
	return m, err
}

// Unmount unmounts the disk; Lay does so too.
func (d *Disk) Unmount() error {
	if err := d.leave(); err != nil {
		return fmt.Errorf("unmount disk %s: %w", d.o.Name, err)
	}
	return nil
}

// Save writes the disk, as it is now, to a file that can be mounted or looked at
// with debugfs.
func (d *Disk) Save(path string) error {
	if d.p == nil {
		return fmt.Errorf("save disk %s: another process serves it, or it is plain", d.o.Name)
	}
	d.p.mu.Lock()
	defer d.p.mu.Unlock()
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("save disk %s: %w", d.o.Name, err)
	}
	for off := 0; off < len(d.p.bytes) && err == nil; off += block {
		if b := d.p.bytes[off : off+block]; !zero(b) { // the rest are holes
			_, err = f.WriteAt(b, int64(off))
		}
	}
	err = errors.Join(err, f.Truncate(int64(len(d.p.bytes))), f.Close())
	if err != nil {
		return fmt.Errorf("save disk %s: %w", d.o.Name, err)
	}
	return nil
}
