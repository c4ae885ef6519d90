package crashdisk

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// loop is an attached loop device.
type loop struct {
	path string // /dev/loopN
	f    *os.File
}

// attach puts a loop device on a file. It goes by itself when the last who has it
// open goes, so that a killed process leaves one only while it is mounted.
func attach(file string) (*loop, error) {
	back, err := os.OpenFile(file, os.O_RDWR|unix.O_DIRECT, 0)
	if err != nil {
		return nil, fmt.Errorf("attach loop device: %w", err)
	}
	defer back.Close()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("attach loop device: %w", err)
	}
	defer control.Close()
	for {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("attach loop device: get a free one: %w", err)
		}
		path := fmt.Sprintf("/dev/loop%d", n)
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			return nil, fmt.Errorf("attach loop device: %w", err)
		}
		c := unix.LoopConfig{Fd: uint32(back.Fd())}
		c.Info.Flags = unix.LO_FLAGS_DIRECT_IO | unix.LO_FLAGS_AUTOCLEAR
		copy(c.Info.File_name[:len(c.Info.File_name)-1], file)
		if err = unix.IoctlLoopConfigure(int(f.Fd()), &c); err == nil {
			return (&loop{path, f}).direct()
		}
		f.Close()
		if !errors.Is(err, unix.EBUSY) { // busy: somebody else was faster
			return nil, fmt.Errorf("attach loop device %s to %s: %w", path, file, err)
		}
	}
}

// direct makes sure that there is no cache between the device and its file: it
// would swallow the writes that are to be counted.
func (l *loop) direct() (*loop, error) {
	if b, err := os.ReadFile(l.sys("loop/dio")); err != nil || strings.TrimSpace(string(b)) != "1" {
		return nil, errors.Join(fmt.Errorf("attach loop device %s: the file below it has no direct I/O", l.path), err, l.detach())
	}
	return l, nil
}

// sys is a file of the device in /sys.
func (l *loop) sys(name string) string {
	return filepath.Join("/sys/block", filepath.Base(l.path), name)
}

// detach gives the device back, and waits until it has let go of its file.
func (l *loop) detach() error {
	err := unix.IoctlSetInt(int(l.f.Fd()), unix.LOOP_CLR_FD, 0)
	if errors.Is(err, unix.ENXIO) { // is already
		err = nil
	}
	if err = errors.Join(err, l.f.Close()); err != nil {
		return fmt.Errorf("detach %s: %w", l.path, err)
	}
	for range 1000 {
		if _, err := os.Stat(l.sys("loop/backing_file")); err != nil {
			return nil
		}
		time.Sleep(5 * time.Millisecond)
	}
	return fmt.Errorf("detach %s: it is still in use", l.path)
}

// loopsUnder gives the loop devices whose file lies in a folder, from a process
// that is gone.
func loopsUnder(dir string) ([]string, error) {
	files, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		return nil, err
	}
	var devices []string
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // went meanwhile
		}
		if strings.HasPrefix(string(b), dir+"/") || strings.HasPrefix(string(b), "/disk") && strings.HasPrefix(fileOf(f), dir+"/") {
			devices = append(devices, "/dev/"+filepath.Base(filepath.Dir(filepath.Dir(f))))
		}
	}
	return devices, nil
}

// fileOf asks a loop device for the name that it was attached under: once the FUSE
// below is unmounted, the kernel's own name for the file has lost its folder.
func fileOf(backing string) string {
	f, err := os.Open("/dev/" + filepath.Base(filepath.Dir(filepath.Dir(backing))))
	if err != nil {
		return ""
	}
	defer f.Close()
	info, err := unix.IoctlLoopGetStatus64(int(f.Fd()))
	if err != nil {
		return ""
	}
	return unix.ByteSliceToString(info.File_name[:])
}

// freeLoop detaches a device that a process left behind.
func freeLoop(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("free %s: %w", path, err)
	}
	return (&loop{path, f}).detach()
}

// written makes a file of n bytes that was written once, so that its own file
// system has nothing left to allocate when the device is measured.
func written(path string, n int64) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Fallocate(int(f.Fd()), 0, 0, n); err != nil {
		return fmt.Errorf("reserve %d bytes for %s: %w", n, path, err)
	}
	zeros := make([]byte, 1<<20)
	for off := int64(0); off < n; off += int64(len(zeros)) {
		if _, err := f.WriteAt(zeros, off); err != nil {
			return err
		}
	}
	return f.Sync()
}
