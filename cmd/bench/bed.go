package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"holdfast.dev/holdfast/storage/crashdisk"
)

// bed is a file system to measure on, and perhaps a disk under it that counts.
type bed struct {
	name string
	dir  string
	disk *crashdisk.Disk // nil: nobody counts
}

// plainBed is a folder of the disk as it is.
func plainBed(dir string) *bed { return &bed{name: "this disk", dir: dir} }

// countingBed is an ext4 of its own on a loop device with direct I/O, whose file lies
// in dir.
func countingBed(dir, name string, bytes int64) (*bed, error) {
	d, err := crashdisk.Open(crashdisk.Options{Name: name, Folder: dir, Bytes: bytes, Plain: true})
	if err != nil {
		return nil, err
	}
	return &bed{name: "a loop device", dir: d.Dir(), disk: d}, nil
}

// cardBed is the same on a device that takes as long as an SD card and lies in
// memory.
func cardBed(dir, name string, bytes int64) (*bed, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	d, err := crashdisk.Open(crashdisk.Options{Name: name, Folder: dir, Bytes: bytes, Delay: crashdisk.SDCard(),
		Server: []string{self, serveDisk}})
	if err != nil {
		return nil, err
	}
	return &bed{name: "SD model", dir: d.Dir(), disk: d}, nil
}

// serveDisk is the subcommand that serves a disk: badger maps files, and a process
// must not map those of a disk that it serves.
const serveDisk = "serve-disk"

func serveDiskCommand() *cobra.Command {
	return &cobra.Command{Use: serveDisk, Hidden: true, Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return crashdisk.Serve(os.Stdin, os.Stdout) }}
}

// end takes the disk down.
func (b *bed) end() error {
	if b.disk == nil {
		return nil
	}
	return b.disk.Close()
}

// room gives a new folder's path in the bed.
func (b *bed) room(name string) string { return filepath.Join(b.dir, name) }

// settle writes everything that waits in the page cache, so that it is not counted
// to whoever comes next.
func (b *bed) settle() error {
	f, err := os.Open(b.dir)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		return fmt.Errorf("write back %s: %w", b.dir, err)
	}
	return nil
}

// counted runs something and gives what the disk was asked for by it: the flushes
// until it is done, and the bytes until all of it has left the page cache.
func (b *bed) counted(run func() error) (crashdisk.Counts, error) {
	if err := b.settle(); err != nil {
		return crashdisk.Counts{}, err
	}
	before, err := b.disk.Counts()
	if err != nil {
		return crashdisk.Counts{}, err
	}
	if err := run(); err != nil {
		return crashdisk.Counts{}, err
	}
	done, err := b.disk.Counts()
	if err != nil {
		return crashdisk.Counts{}, err
	}
	if err := b.settle(); err != nil {
		return crashdisk.Counts{}, err
	}
	settled, err := b.disk.Counts()
	done.Bytes = settled.Bytes
	return done.Minus(before), err
}

// counting gives a bed that counts to a measurement and takes it down behind it. If
// this machine cannot have one, there is a row for each id that says why.
func (t *trial) counting(mb int64, run func(*bed) error, ids ...string) error {
	return t.with(countingBed, "counted by a loop device", mb, run, ids...)
}

// card does the same with the SD model.
func (t *trial) card(mb int64, run func(*bed) error, ids ...string) error {
	return t.with(cardBed, "on the SD model", mb, run, ids...)
}

func (t *trial) with(make func(dir, name string, bytes int64) (*bed, error), what string, mb int64, run func(*bed) error, ids ...string) error {
	if t.tiny {
		mb = min(mb, 256)
	}
	b, err := make(t.work, "bench", mb<<20)
	if errors.Is(err, crashdisk.ErrMissing) {
		for _, id := range ids {
			t.skip(id, what, err.Error())
		}
		return nil
	}
	if err != nil {
		return err
	}
	err = run(b)
	return errors.Join(err, b.end())
}

// dropCaches makes the kernel forget what it has read; only root may ask for it.
func dropCaches() error {
	unix.Sync()
	if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0); err != nil {
		return fmt.Errorf("drop the page cache: %w", err)
	}
	return nil
}
