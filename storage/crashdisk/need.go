package crashdisk

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrMissing is wrapped by errors that say what the machine would need.
var ErrMissing = errors.New("not on this machine")

// Missing says what would be needed for a disk, and is nil if all is there. A plain
// one needs no FUSE.
func Missing(plain bool) error {
	var all []string
	switch {
	case os.Geteuid() != 0:
		all = append(all, "root, to mount and to attach loop devices (run it with sudo)")
	case !mayMount():
		all = append(all, "CAP_SYS_ADMIN, to mount and to attach loop devices (a container must be privileged)")
	}
	need := func(device, why string) {
		if f, err := os.OpenFile(device, os.O_RDWR, 0); err != nil {
			all = append(all, fmt.Sprintf("%s (%s: %v)", device, why, errors.Unwrap(err)))
		} else {
			f.Close()
		}
	}
	need("/dev/loop-control", "modprobe loop; in a container, pass the device in")
	if !plain {
		need("/dev/fuse", "modprobe fuse; in a container, pass the device in")
	}
	for _, tool := range []string{"mkfs.ext4", "e2fsck"} {
		if _, err := program(tool); err != nil {
			all = append(all, tool+" (apt install e2fsprogs)")
		}
	}
	if len(all) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %s", ErrMissing, strings.Join(all, "; "))
}

// mayMount says whether root is root here; in most containers it is not.
func mayMount() bool {
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	return unix.Capget(&head, &sets[0]) == nil && sets[0].Effective&(1<<unix.CAP_SYS_ADMIN) != 0
}

// program finds one of e2fsprogs, also where sbin is not in the path.
func program(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/sbin/", "/sbin/"} {
		if path, err := exec.LookPath(dir + name); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("find %s: %w", name, exec.ErrNotFound)
}

// run runs one of e2fsprogs and gives what it said where it did not like something.
func run(ok int, name string, args ...string) error {
	path, err := program(name)
	if err != nil {
		return err
	}
	out, err := exec.Command(path, args...).CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() >= 0 && exit.ExitCode() <= ok {
		err = nil
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
