package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// machine is where something was measured. What cannot be found out is "unknown".
type machine struct {
	cpu, memory, kernel, files, disk, root string
}

// machineOf describes this machine, and the disk under a folder.
func machineOf(dir string) (machine, error) {
	var u unix.Utsname
	var s unix.Stat_t
	if err := errors.Join(unix.Uname(&u), unix.Stat(dir, &s)); err != nil {
		return machine{}, fmt.Errorf("describe the machine: %w", err)
	}
	cpu, _ := os.ReadFile("/proc/cpuinfo")
	memory, _ := os.ReadFile("/proc/meminfo")
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	number := fmt.Sprintf("%d:%d", unix.Major(s.Dev), unix.Minor(s.Dev))
	m := machine{
		cpu:    fmt.Sprintf("%d cores, %s (%s)", runtime.NumCPU(), orUnknown(field(cpu, "model name", "Model")), runtime.GOARCH),
		memory: gibibytes(field(memory, "MemTotal")),
		kernel: unix.ByteSliceToString(u.Sysname[:]) + " " + unix.ByteSliceToString(u.Release[:]),
		files:  orUnknown(mountOf(mounts, number)),
		disk:   diskOf("/sys/dev/block/" + number),
		root:   "root",
	}
	if os.Geteuid() != 0 {
		m.root = "an ordinary user"
	}
	return m, nil
}

func (m machine) lines() []string {
	return []string{
		"processor: " + m.cpu, "memory: " + m.memory, "kernel: " + m.kernel, "file system: " + m.files, "disk: " + m.disk,
		"built with " + runtime.Version() + ", run as " + m.root,
	}
}

func orUnknown(s string) string {
	if s == "" {
		return "unknown"
	}
	return s
}

// field gives the value of the first of some names in "name : value" lines.
func field(b []byte, names ...string) string {
	for _, name := range names {
		for lines := bufio.NewScanner(bytes.NewReader(b)); lines.Scan(); {
			if k, v, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(k) == name {
				return strings.TrimSpace(v)
			}
		}
	}
	return ""
}

// gibibytes makes "11.8 GiB" of "12345678 kB".
func gibibytes(s string) string {
	kb, err := strconv.ParseFloat(strings.TrimSuffix(s, " kB"), 64)
	if err != nil {
		return "unknown"
	}
	return fmt.Sprintf("%.1f GiB", kb/(1<<20))
}

// mountOf gives type and options of the file system with a device number
// (proc_pid_mountinfo(5): fields 3 and 6, and after the dash type, source, options).
func mountOf(mountinfo []byte, number string) string {
	for lines := bufio.NewScanner(bytes.NewReader(mountinfo)); lines.Scan(); {
		mount, kind, ok := strings.Cut(lines.Text(), " - ")
		m, k := strings.Fields(mount), strings.Fields(kind)
		if ok && len(m) >= 6 && len(k) >= 3 && m[2] == number {
			return k[0] + ", " + m[5] + "," + k[2]
		}
	}
	return ""
}

// diskOf describes a block device by its folder in sysfs; a partition's parent is the
// disk.
func diskOf(link string) string {
	dir, err := filepath.EvalSymlinks(link)
	if err != nil {
		return "unknown"
	}
	read := func(path string) string {
		b, err := os.ReadFile(filepath.Join(dir, path))
		if err != nil {
			return ""
		}
		return strings.TrimSpace(string(b))
	}
	if read("partition") != "" {
		dir = filepath.Dir(dir)
	}
	parts := []string{filepath.Base(dir)}
	if model := strings.TrimSpace(read("device/vendor") + " " + read("device/model")); model != "" {
		parts = append(parts, model)
	}
	if sectors, err := strconv.ParseUint(read("size"), 10, 64); err == nil {
		parts = append(parts, fmt.Sprintf("%.0f GB", float64(sectors)*512/1e9))
	}
	if read("queue/rotational") == "1" {
		parts = append(parts, "rotating")
	}
	if cache := read("queue/write_cache"); cache != "" {
		parts = append(parts, "cache "+cache)
	}
	return strings.Join(parts, ", ")
}
