package main

import (
	"errors"
	"io/fs"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// usedIn gives the bytes that a folder's files take on disk: blocks, not lengths. What
// goes while it looks is not counted.
func usedIn(dir string) (bytes float64, err error) {
	err = filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		var s unix.Stat_t
		switch err := unix.Lstat(path, &s); {
		case errors.Is(err, unix.ENOENT):
			return nil
		case err != nil:
			return &fs.PathError{Op: "lstat", Path: path, Err: err}
		}
		bytes += float64(s.Blocks) * 512 // as stat(2) counts them, whatever a block is
		return nil
	})
	return bytes, err
}
