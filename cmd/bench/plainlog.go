package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// plainLog appends messages to a file, flushing after each group: what the disk
// can do if nothing else is done.
func plainLog(ctx context.Context, path string, group, payload int, length time.Duration) (pace, error) {
	f, err := os.Create(path)
	if err != nil {
		return pace{}, fmt.Errorf("measure a plain log: %w", err)
	}
	defer os.Remove(path)
	defer f.Close()
	buf := []byte(strings.Repeat("x", max(1, payload)*group))
	start, flushes := time.Now(), 0
	for time.Since(start) < length && ctx.Err() == nil {
		if _, err := f.Write(buf); err != nil {
			return pace{}, fmt.Errorf("measure a plain log: %w", err)
		}
		if err := unix.Fdatasync(int(f.Fd())); err != nil {
			return pace{}, fmt.Errorf("measure a plain log: flush: %w", err)
		}
		flushes++
	}
	return pace{messages: float64(flushes * group), flushes: float64(flushes), seconds: time.Since(start).Seconds()}, ctx.Err()
}

// inMemory says whether a folder is on tmpfs.
func inMemory(dir string) bool {
	var s unix.Statfs_t
	return unix.Statfs(dir, &s) == nil && s.Type == unix.TMPFS_MAGIC
}
