package crashdisk

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Format puts a new, empty ext4 on the disk and mounts it. What was in blocks that
// mkfs does not write stays there, as on a card that is used again.
func (d *Disk) Format() error {
	err := d.leave()
	if err == nil {
		err = d.format()
	}
	if err != nil {
		return fmt.Errorf("format disk %s: %w", d.o.Name, err)
	}
	return nil
}

// format makes an ext4 and mounts it. What mkfs would leave for the kernel to do
// later is done now, or it would be counted as the program's.
func (d *Disk) format() error {
	args := []string{"-q", "-F", "-b", "4096", "-m", "0",
		// Groups of 32 MiB give a small disk a second superblock: a torn write may take
		// the first.
		"-g", "8192",
		"-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0"}
	args = append(append(args, d.o.Mkfs...), d.Device())
	if err := run(0, "mkfs.ext4", args...); err != nil {
		return err
	}
	return d.mount()
}

func (d *Disk) mount() error {
	if err := unix.Mount(d.Device(), d.Dir(), "ext4", unix.MS_NOATIME, d.o.Mount); err != nil {
		return fmt.Errorf("mount %s on %s: %w", d.Device(), d.Dir(), err)
	}
	return nil
}

// secondSuper is the block of the second superblock, see format.
const secondSuper = "8192"

// mend runs e2fsck as one who finds a card that does not mount would.
func mend(device string) error {
	const corrected = 3 // 1: corrected, 2: and reboot if it were the root
	err := run(corrected, "e2fsck", "-fy", device)
	if err != nil {
		if err2 := run(corrected, "e2fsck", "-fy", "-b", secondSuper, "-B", "4096", device); err2 != nil {
			return errors.Join(err, err2)
		}
	}
	return nil
}

// unmount takes a file system down that may be in use for a moment longer.
func unmount(dir string) error {
	var err error
	for range 200 {
		err = unix.Unmount(dir, unix.UMOUNT_NOFOLLOW)
		if !errors.Is(err, unix.EBUSY) {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err == nil || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) { // not mounted
		return nil
	}
	return fmt.Errorf("unmount %s: %w", dir, err)
}

// claim takes the disk's name for this process.
func (d *Disk) claim() error {
	if err := os.MkdirAll(d.root, 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(d.root, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return fmt.Errorf("another process has a disk of this name in %s: %w", d.o.Folder, err)
	}
	d.lock = f
	return nil
}

// takeDown removes what is left of a disk of this name, from the top to the
// bottom. One whose process was killed answers nothing, so it is unmounted lazily.
func (d *Disk) takeDown() error {
	mounts, err := mountsUnder(d.root)
	if err != nil {
		return err
	}
	for i := len(mounts) - 1; i >= 0; i-- {
		if err := unix.Unmount(mounts[i], unix.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount what is left of an earlier disk, %s: %w", mounts[i], err)
		}
	}
	loops, err := loopsUnder(d.root)
	if err != nil {
		return err
	}
	for _, l := range loops {
		if err := freeLoop(l); err != nil {
			return err
		}
	}
	for _, name := range []string{"dev", "mnt", "file"} {
		if err := os.RemoveAll(filepath.Join(d.root, name)); err != nil {
			return err
		}
	}
	return nil
}

// Sweep takes down the disks somewhere under a folder whose processes are gone, as
// after a kill -9, and says how many there were. Open does so for its own name only.
func Sweep(folder string) (n int, err error) {
	mounts, err := mountsUnder(filepath.Clean(folder))
	if err != nil {
		return 0, fmt.Errorf("sweep disks: %w", err)
	}
	roots := make([]string, len(mounts))
	for i, m := range mounts { // each disk has up to two
		roots[i] = filepath.Dir(m)
	}
	slices.Sort(roots)
	for _, root := range slices.Compact(roots) {
		name, ours := strings.CutPrefix(filepath.Base(root), folderPrefix)
		if !ours {
			continue
		}
		d := &Disk{o: Options{Name: name, Folder: filepath.Dir(root)}, root: root}
		if d.claim() != nil { // it lives, or is being taken down by another
			continue
		}
		e := errors.Join(d.takeDown(), d.lock.Close(), os.RemoveAll(root))
		if err = errors.Join(err, e); e == nil {
			n++
		}
	}
	if err != nil {
		return n, fmt.Errorf("sweep disks: %w", err)
	}
	return n, nil
}

// mountsUnder gives the mount points in a folder, oldest first.
func mountsUnder(dir string) ([]string, error) {
	b, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return nil, err
	}
	var out []string
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 1 && strings.HasPrefix(f[1], dir+"/") {
			out = append(out, f[1])
		}
	}
	return out, nil
}
