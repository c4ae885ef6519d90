package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// storeMark remembers, in a file beside it, which store a folder held. The two may
// lie on partitions of their own, and one that is not mounted is an empty folder.
type storeMark struct {
	file   string // the id in hexadecimal, and a newline
	folder string
}

// read gives the id that is remembered; "" if there is none yet.
func (m storeMark) read() (string, error) {
	text, err := os.ReadFile(m.file)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return strings.TrimSpace(string(text)), err
}

// expect fails where there should be a store and is none. It comes before the store
// is opened, which would make a new one.
func (m storeMark) expect() error {
	id, err := m.read()
	if id == "" || err != nil {
		return err
	}
	for _, name := range []string{"STORE", filepath.Join("journal", "STORE")} {
		if _, err := os.Stat(filepath.Join(m.folder, name)); !errors.Is(err, fs.ErrNotExist) {
			return nil // there is one, or something that opening it will tell of
		}
	}
	return m.wrong(fmt.Errorf("store %s: there is none, and there was one (id %s)", m.folder, id))
}

// keep remembers id, or fails where another one is remembered.
func (m storeMark) keep(id uint64) error {
	was, err := m.read()
	if err != nil {
		return err
	}
	is := fmt.Sprintf("%016x", id)
	switch was {
	case is:
		return nil
	case "":
		return writeFile(m.file, []byte(is+"\n"), 0o600)
	}
	return m.wrong(fmt.Errorf("store %s: it is another one (id %s) than before (id %s)", m.folder, is, was))
}

func (m storeMark) wrong(err error) error {
	return withHint(err, "bring the old one back: is its partition mounted? If it is lost for good, with what waited in it, remove %s", m.file)
}
