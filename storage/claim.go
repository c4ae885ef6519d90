package storage

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"holdfast.dev/holdfast/storage/journal"
)

// The file STORE says what the folder is:
//
//	holdfast store 1
//	id 0123456789abcdef
//	crc32c 01234567        of the two lines above
const storeVersion = 1

// marks are the two files that say so.
type marks struct {
	id    uint64
	whole bool     // STORE was there: the store had been made completely
	write []string // those that are missing or damaged
}

// claim takes the lock and reads the store's identity, or makes one. Nothing is
// written into a folder that is not ours.
func (db *DB) claim() (m marks, err error) {
	if err := makeFolder(db.o.disk, db.dir); err != nil {
		return m, fmt.Errorf("make folder: %w", err)
	}
	empty, err := db.isEmpty()
	if err != nil {
		return m, err
	}
	names := []string{filepath.Join(db.dir, "STORE"), filepath.Join(db.dir, "journal", "STORE")}
	if !empty {
		if m, err = readMarks(names); err != nil {
			return m, err
		}
		if len(m.write) > 0 {
			db.reach("a mark is missing")
		}
		return m, db.takeLock()
	}
	if err := db.takeLock(); err != nil {
		return m, err
	}
	return newMarks(db.o.disk, names)
}

// makeFolder makes dir and what is missing above it, and makes their names
// durable: a store whose folder goes with the power has lost everything.
func makeFolder(disk journal.Disk, dir string) error {
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	above := filepath.Dir(dir)
	if above != dir {
		if err := makeFolder(disk, above); err != nil {
			return err
		}
	}
	if err := disk.Mkdir(dir); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return disk.SyncDir(above)
}

// mend writes the marks that are missing. It comes after the journal was opened:
// STORE is what says that there must be something in it.
func (m marks) mend(disk journal.Disk) error {
	for _, name := range m.write {
		if err := writeMark(disk, name, m.id); err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
	}
	return nil
}

// isEmpty says whether the folder is free to become a store.
func (db *DB) isEmpty() (bool, error) {
	names, err := os.ReadDir(db.dir)
	if err != nil {
		return false, fmt.Errorf("list folder: %w", err)
	}
	for _, n := range names {
		switch n.Name() {
		case "LOCK", "lost+found":
		case "journal": // a founding that was interrupted before its mark was written
			in, err := os.ReadDir(filepath.Join(db.dir, "journal"))
			if err != nil || len(in) > 1 || len(in) == 1 && in[0].Name() != "STORE.tmp" {
				return false, nil
			}
			db.reach("founding interrupted before its first mark")
		default:
			return false, nil
		}
	}
	return true, nil
}

// newMarks begins a new store with the journal's folder and the mark in it.
func newMarks(disk journal.Disk, names []string) (m marks, err error) {
	var b [8]byte
	if _, err := rand.Read(b[:]); err != nil {
		return m, fmt.Errorf("make store id: %w", err)
	}
	m = marks{id: binary.LittleEndian.Uint64(b[:]), write: names[:1]}
	if err := makeFolder(disk, filepath.Dir(names[1])); err != nil {
		return m, fmt.Errorf("make journal folder: %w", err)
	}
	if err := writeMark(disk, names[1], m.id); err != nil {
		return m, fmt.Errorf("write %s: %w", names[1], err)
	}
	return m, nil
}

func writeMark(disk journal.Disk, name string, id uint64) error {
	text := fmt.Sprintf("holdfast store %d\nid %016x\n", storeVersion, id)
	text += fmt.Sprintf("crc32c %08x\n", crc32.Checksum([]byte(text), castagnoli))
	f, err := disk.Create(name + ".tmp")
	if err != nil {
		return err
	}
	err = disk.WriteAt(f, []byte(text), 0)
	if err == nil {
		err = disk.Flush(f)
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = disk.Rename(name+".tmp", name)
	}
	if err != nil {
		return err
	}
	return disk.SyncDir(filepath.Dir(name))
}

// readMarks reads the store's identity, from the copy where the first is gone or
// damaged.
func readMarks(names []string) (m marks, err error) {
	ids, errs := [2]uint64{}, [2]error{}
	gone := 0
	for i, name := range names {
		ids[i], errs[i] = readMark(name)
		if errors.Is(errs[i], ErrVersion) {
			return m, errs[i]
		}
		if errors.Is(errs[i], fs.ErrNotExist) {
			gone++
		}
	}
	switch {
	case gone == 2:
		return m, fmt.Errorf("%w: it holds other files and no STORE; give the path of a store or of an empty folder", ErrForeign)
	case errs[0] != nil && errs[1] != nil:
		return m, fmt.Errorf("%w: neither STORE nor its copy in journal can be read; nothing was changed: %w", ErrDamaged, errors.Join(errs[0], errs[1]))
	case errs[0] == nil && errs[1] == nil && ids[0] != ids[1]:
		return m, fmt.Errorf("%w: STORE says %016x, journal/STORE says %016x; put the journal folder back where it belongs", ErrDamaged, ids[0], ids[1])
	}
	m.whole = !errors.Is(errs[0], fs.ErrNotExist)
	for i := range names {
		if errs[i] != nil {
			m.write = append(m.write, names[i])
		} else {
			m.id = ids[i]
		}
	}
	return m, nil
}

func readMark(name string) (uint64, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return 0, err
	}
	text := string(b)
	i := strings.Index(text, "crc32c ")
	var version int
	var id uint64
	if _, err := fmt.Sscanf(text, "holdfast store %d\nid %x\n", &version, &id); err != nil || i < 0 {
		return 0, fmt.Errorf("%s is not readable as a store's mark", name)
	}
	sum, err := strconv.ParseUint(strings.TrimSpace(text[i+len("crc32c "):]), 16, 32)
	if err != nil || uint32(sum) != crc32.Checksum(b[:i], castagnoli) {
		return 0, fmt.Errorf("%s: checksum does not match", name)
	}
	if version > storeVersion {
		return 0, fmt.Errorf("%w: version %d, this program knows %d", ErrVersion, version, storeVersion)
	}
	return id, nil
}

func (db *DB) takeLock() error {
	f, err := os.OpenFile(filepath.Join(db.dir, "LOCK"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("open lock: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		who := make([]byte, 32)
		n, _ := f.Read(who) // the pid is a courtesy
		_ = f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return fmt.Errorf("%w (pid %s); stop it, or give another folder", ErrLocked, strings.TrimSpace(string(who[:n])))
		}
		return fmt.Errorf("lock: %w", err)
	}
	db.lock = f
	// A courtesy; a full disk has no room for it, and must be opened all the same.
	if err := f.Truncate(0); err == nil {
		_, _ = fmt.Fprintf(f, "%d\n", os.Getpid())
	}
	return nil
}

func (db *DB) unlock() error {
	if db.lock == nil {
		return nil
	}
	return db.lock.Close()
}

// usage is what can be said of a journal without reading its frames.
type usage struct {
	segments bool // there are some
	content  bool // more than a founding leaves that was interrupted
}

// wasUsed looks at the journal before it is opened.
func (db *DB) wasUsed() (u usage) {
	names, err := filepath.Glob(filepath.Join(db.dir, "journal", "????????????????"))
	if err != nil || len(names) == 0 {
		return u
	}
	u.segments = true
	if len(names) > 1 || filepath.Base(names[0]) != fmt.Sprintf("%016x", 1) {
		u.content = true
		return u
	}
	b, err := os.ReadFile(names[0])
	// The first frame of a new store is one page; nothing was acknowledged in it.
	u.content = err != nil || len(b) > journal.Page && len(bytes.Trim(b[journal.Page:], "\x00")) > 0
	return u
}
