// Package crashdisk is a disk that forgets what was not flushed, counts what it is
// asked for, and may take as long over it as a flash card does: for tests and
// measurements.
//
// Below a real ext4 there is a real loop device, and below that a file whose other
// side is this package. So what is measured and cut is what the kernel makes of a
// program's writes, its own journal and metadata among them, not what the program
// believes to have asked for.
//
// The few types are Disk (a mounted file system, and what its device was asked
// for), Delay (how long the device takes), Tape (everything that reached the
// device, in order, with the marks that programs made in between) and Cut (one
// instant of a tape at which the power goes, and what becomes of the blocks that
// were not flushed by then). To record: Open, Record, let a program work in Dir,
// Eject. To replay, on a disk of the same size: Lay, Mount, look.
//
//	{folder}/holdfast-crashdisk-{name}/
//	    lock     held while the disk is there
//	    dev/     FUSE: "disk", the device's other side, and "marks"
//	    file     instead of dev: a plain disk's file
//	    mnt/     the ext4 on the loop device
//
// It needs root, /dev/fuse, /dev/loop-control and e2fsprogs; Missing says which of
// them is not there.
//
// A process that serves a Disk must not touch the disk's files through mmap: the
// garbage collector stops the goroutine that would have to answer the page fault,
// and waits for the one that has it. What maps files (badger, bbolt) runs in another
// process than the one that serves, or is served by another (Options.Server); reads
// and writes by system call are safe anywhere, and so is a plain disk.
package crashdisk

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
)

// Options of a Disk. Only Name is needed.
type Options struct {
	Name   string   // letters, digits, "-"; what is left of an earlier disk of that name is taken down first
	Folder string   // where its folder is made; os.TempDir if empty
	Bytes  int64    // size: 256 MiB if zero, at least 16 MiB, a multiple of 1 MiB
	Plain  bool     // on a file of Folder's own disk, written once before: it counts, and does nothing else
	Delay  Delay    // how long the device takes once it is mounted; not for a plain one
	Mkfs   []string // further arguments of mkfs.ext4, e.g. "-O", "verity", which switches large folios off
	Mount  string   // options of the mount, e.g. "data=journal"
	Server []string // a program, with its arguments, that calls Serve; if empty, this process serves
}

// Disk is a mounted file system on a device that is watched.
type Disk struct {
	o      Options
	root   string // its folder
	lock   *os.File
	below  string // the file under the loop device
	p      *platter
	fuse   interface{ Unmount() error }
	server *server // instead of p and fuse
	loop   *loop
}

// folderPrefix begins the name of each disk's folder.
const folderPrefix = "holdfast-crashdisk-"

var plainName = regexp.MustCompile(`^[a-zA-Z0-9-]{1,40}$`)

// Open makes a disk, puts an empty ext4 on it, and mounts it. An error that wraps
// ErrMissing says what this machine would need.
func Open(o Options) (*Disk, error) {
	d, err := open(o)
	if err != nil {
		return nil, err
	}
	if err := d.format(); err != nil {
		return nil, errors.Join(fmt.Errorf("open disk %s: %w", o.Name, err), d.Close())
	}
	if err := d.slow(o.Delay); err != nil { // from now on: nobody wants to wait for mkfs
		return nil, errors.Join(fmt.Errorf("open disk %s: %w", o.Name, err), d.Close())
	}
	return d, nil
}

// open makes a disk without anything on it.
func open(o Options) (*Disk, error) {
	if err := Missing(o.Plain); err != nil {
		return nil, fmt.Errorf("open disk %s: %w", o.Name, err)
	}
	if !plainName.MatchString(o.Name) {
		return nil, fmt.Errorf("open disk %q: its name may have letters, digits and \"-\", up to 40", o.Name)
	}
	if o.Folder == "" {
		o.Folder = os.TempDir()
	}
	if o.Bytes == 0 {
		o.Bytes = 256 << 20
	}
	if o.Bytes < 16<<20 || o.Bytes%(1<<20) != 0 {
		return nil, fmt.Errorf("open disk %s: its size is %d bytes, want a multiple of 1 MiB, 16 or more", o.Name, o.Bytes)
	}
	if o.Plain && o.Delay != (Delay{}) {
		return nil, fmt.Errorf("open disk %s: a plain disk is as fast as it is", o.Name)
	}
	d := &Disk{o: o, root: filepath.Join(o.Folder, folderPrefix+o.Name)}
	if err := d.build(); err != nil {
		return nil, errors.Join(fmt.Errorf("open disk %s: %w", o.Name, err), d.Close())
	}
	return d, nil
}

func (d *Disk) build() error {
	if err := d.claim(); err != nil {
		return err
	}
	if err := d.takeDown(); err != nil {
		return err
	}
	for _, dir := range []string{"mnt", "dev"} {
		if err := os.MkdirAll(filepath.Join(d.root, dir), 0o755); err != nil {
			return err
		}
	}
	var err error
	switch {
	case d.o.Plain:
		d.below = filepath.Join(d.root, "file")
		err = written(d.below, d.o.Bytes)
	case len(d.o.Server) > 0:
		err = d.hire()
	default:
		err = d.serve()
	}
	if err != nil {
		return err
	}
	d.loop, err = attach(d.below)
	return err
}

// Dir is where the file system is mounted.
func (d *Disk) Dir() string { return filepath.Join(d.root, "mnt") }

// Device is the block device, e.g. /dev/loop3.
func (d *Disk) Device() string { return d.loop.path }

// Close unmounts the disk and takes everything down that belongs to it; what was
// on it is gone. The error says what is still there: a process that has a file
// open, most often.
func (d *Disk) Close() error {
	if d.lock == nil {
		return nil
	}
	err := d.slow(Delay{})
	if d.loop != nil {
		err = errors.Join(err, unmount(d.Dir()), d.loop.detach())
		d.loop = nil
	}
	if d.fuse != nil {
		err = errors.Join(err, d.fuse.Unmount())
		d.fuse = nil
	}
	if d.p != nil {
		err = errors.Join(err, d.p.release())
		d.p = nil
	}
	if d.server != nil {
		err = errors.Join(err, d.server.dismiss())
		d.server = nil
	}
	if err == nil {
		err = d.takeDown() // removes the folders too
	}
	err = errors.Join(err, d.lock.Close())
	d.lock = nil
	if err == nil {
		err = os.RemoveAll(d.root)
	}
	if err != nil {
		return fmt.Errorf("close disk %s: %w", d.o.Name, err)
	}
	return nil
}

// slow makes the device take its time from now on.
func (d *Disk) slow(t Delay) error {
	if d.p != nil {
		d.p.slow(t)
	}
	if d.server != nil {
		_, err := d.server.tell(order{Slow: &t})
		return err
	}
	return nil
}
