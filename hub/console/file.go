package console

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// writeFile lets fill write a file, which is there as a whole or not at all: it is
// written aside, flushed, renamed, and its name flushed. It gives the number of
// lines. Only the owner may read it: it has what devices have sent.
func writeFile(name string, fill func(io.Writer) error) (lines int, err error) {
	dir := filepath.Dir(name)
	f, err := os.CreateTemp(dir, filepath.Base(name)+".*.tmp") // mode 0600
	if err != nil {
		return 0, fmt.Errorf("write %s: %w", name, err)
	}
	defer os.Remove(f.Name()) // gone already when all went well
	w := &lineCounter{w: f}
	if err := fill(w); err != nil {
		return 0, errors.Join(err, f.Close())
	}
	err = f.Sync()
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err == nil {
		err = syncFolder(dir)
	}
	if err != nil {
		return 0, fmt.Errorf("write %s: %w", name, err)
	}
	return w.lines, nil
}

func syncFolder(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// lineCounter counts the lines that go through it.
type lineCounter struct {
	w     io.Writer
	lines int
}

func (c *lineCounter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.lines += bytes.Count(p[:n], []byte("\n"))
	return n, err
}
