package crashdisk

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// ErrMissing is wrapped by errors that say what the machine would need.
var ErrMissing = errors.New("not on this machine")

// Missing says what would be needed for a disk, and is nil if all is there. A plain
// one needs no FUSE.
func Missing(plain bool) error {
	var all []string
	if os.Geteuid() != 0 {
		all = append(all, "root, to mount and to attach loop devices (run it with sudo)")
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
