package generation

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// seal copies the closed database from scratch, seals the copy and gives it its
// name. The order is the whole point: every file is on the disk before SEAL is
// written, SEAL and the names of all before the folder is renamed, the new name
// before the caller hears of it and lets go of what it came from.
func (s *Set) seal(ctx context.Context, number uint32, scratch string, directory []byte) (Mark, error) {
	tmp := s.path(number) + ".tmp"
	if err := s.disk.Mkdir(tmp); err != nil {
		return Mark{}, err
	}
	names, err := databaseFiles(scratch)
	if err != nil {
		return Mark{}, err
	}
	sealed := seal{store: s.o.StoreID, number: number, directory: directory}
	if sealed.files, err = s.copyAll(ctx, scratch, tmp, names); err != nil {
		return Mark{}, err
	}
	b := sealed.encode()
	if len(b) > sealLimit {
		return Mark{}, fmt.Errorf("SEAL of %d bytes, may have %d: directory is too large", len(b), sealLimit)
	}
	if err := s.writeSeal(filepath.Join(tmp, sealName), b); err != nil {
		return Mark{}, err
	}
	if err := s.disk.SyncDir(tmp); err != nil {
		return Mark{}, err
	}
	if err := ctx.Err(); err != nil {
		return Mark{}, err
	}
	if err := s.disk.Rename(tmp, s.path(number)); err != nil {
		return Mark{}, err
	}
	if err := s.disk.SyncDir(s.dir); err != nil {
		return Mark{}, err
	}
	return sealed.mark(), nil
}

// databaseFiles lists what makes the database: LOCK is of the process, and DISCARD
// counts garbage for a collection that never comes.
func databaseFiles(scratch string) ([]string, error) {
	files, err := os.ReadDir(scratch)
	if err != nil {
		return nil, fmt.Errorf("list scratch: %w", err)
	}
	var names []string
	for _, f := range files {
		switch name := f.Name(); {
		case name == "LOCK" || name == "DISCARD":
		case filepath.Ext(name) == ".mem":
			return nil, fmt.Errorf("database in scratch left %s: it was not closed well", name)
		default:
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}

// copyAll copies the files and then flushes each: the first flush takes the names and
// sizes of all with it, so that the others cost the disk one flush and not two.
func (s *Set) copyAll(ctx context.Context, scratch, to string, names []string) (files []file, err error) {
	var open []*os.File
	defer func() {
		for _, f := range open {
			err = errors.Join(err, f.Close())
		}
	}()
	for _, name := range names {
		dst, err := s.disk.Create(filepath.Join(to, name))
		if err != nil {
			return nil, err
		}
		open = append(open, dst)
		f, err := s.copyFile(ctx, filepath.Join(scratch, name), dst)
		if err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	for _, f := range open {
		if err := s.disk.Flush(f); err != nil {
			return nil, err
		}
	}
	return files, nil
}

// copyFile copies a slice at a time, each written out before the next, so that what
// the flush at the end has to wait for is little: a flush of 16 MB would hold the
// journal's for a second on a slow card.
func (s *Set) copyFile(ctx context.Context, from string, dst *os.File) (done file, err error) {
	src, err := os.Open(from)
	if err != nil {
		return file{}, fmt.Errorf("copy from scratch: %w", err)
	}
	defer src.Close()
	done.name = filepath.Base(dst.Name())
	buf := make([]byte, slice)
	for {
		if err := ctx.Err(); err != nil {
			return file{}, err
		}
		begin := time.Now()
		n, err := io.ReadFull(src, buf)
		if n > 0 {
			if err := s.disk.WriteAt(dst, buf[:n], done.size); err != nil {
				return file{}, err
			}
			if err := s.disk.WriteOut(dst, done.size, int64(n)); err != nil {
				return file{}, err
			}
			done.sum = crc32.Update(done.sum, castagnoli, buf[:n])
			done.size += int64(n)
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return done, nil
		}
		if err != nil {
			return file{}, fmt.Errorf("copy from scratch: %w", err)
		}
		// As long as that took, the card is left to the commits.
		if s.o.Hurry != nil && s.o.Hurry() {
			continue
		}
		select {
		case <-ctx.Done():
		case <-time.After(min(time.Since(begin), longestRest)):
		}
	}
}

// longestRest is the longest pause between two slices.
const longestRest = 100 * time.Millisecond

func (s *Set) writeSeal(path string, b []byte) (err error) {
	f, err := s.disk.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := s.disk.WriteAt(f, b, 0); err != nil {
		return err
	}
	return s.disk.Flush(f)
}
