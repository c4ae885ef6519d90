package journal

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Disk is how a store touches the disk. The zero value goes straight there; a
// test's sees every operation before it is made, and an error it gives stands in
// for the operation.
type Disk func(Op) error

// Op is one operation on the disk.
type Op struct {
	Kind OpKind
	Path string // of the file or folder
	To   string // Rename: its new name
	Off  int64  // Write, WriteOut: where
	Data []byte // Write: what; good during the call
}

// OpKind says what an Op does.
type OpKind uint8

// The operations.
const (
	OpOpen   OpKind = iota + 1 // opens a file that is there
	OpCreate                   // makes a file, or empties it
	OpWrite
	OpRead
	OpFlush // fdatasync or fsync of a file
	OpRename
	OpRemove
	OpList     // reads a folder
	OpSyncDir  // fsync of a folder
	OpMkdir    // makes a folder
	OpWriteOut // starts what was written on its way to the disk; promises nothing
)

func (d Disk) before(op Op) error {
	if d == nil {
		return nil
	}
	return d(op)
}

// Open opens a file that is there for reading and writing.
func (d Disk) Open(path string) (*os.File, error) {
	if err := d.before(Op{Kind: OpOpen, Path: path}); err != nil {
		return nil, err
	}
	return os.OpenFile(path, os.O_RDWR, 0)
}

// OpenRead opens a file that is there for reading. It is the same operation to a
// test; a disk that turned read-only still allows it.
func (d Disk) OpenRead(path string) (*os.File, error) {
	if err := d.before(Op{Kind: OpOpen, Path: path}); err != nil {
		return nil, err
	}
	return os.Open(path)
}

// Create opens a file that is new or emptied for writing.
func (d Disk) Create(path string) (*os.File, error) {
	if err := d.before(Op{Kind: OpCreate, Path: path}); err != nil {
		return nil, err
	}
	return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
}

// WriteAt writes all of p.
func (d Disk) WriteAt(f *os.File, p []byte, off int64) error {
	if err := d.before(Op{Kind: OpWrite, Path: f.Name(), Off: off, Data: p}); err != nil {
		return err
	}
	_, err := f.WriteAt(p, off)
	return err
}

// ReadAt reads as much of p as there is.
func (d Disk) ReadAt(f *os.File, p []byte, off int64) (int, error) {
	if err := d.before(Op{Kind: OpRead, Path: f.Name()}); err != nil {
		return 0, err
	}
	return f.ReadAt(p, off)
}

// WriteOut writes n bytes at off out to the device and waits for that, without a
// cache flush: a later Flush then has little to do and holds nobody up. It makes
// nothing durable.
func (d Disk) WriteOut(f *os.File, off, n int64) error {
	if err := d.before(Op{Kind: OpWriteOut, Path: f.Name(), Off: off}); err != nil {
		return err
	}
	const all = unix.SYNC_FILE_RANGE_WAIT_BEFORE | unix.SYNC_FILE_RANGE_WRITE | unix.SYNC_FILE_RANGE_WAIT_AFTER
	return unix.SyncFileRange(int(f.Fd()), off, n, all)
}

// Flush makes the file's data durable.
func (d Disk) Flush(f *os.File) error {
	if err := d.before(Op{Kind: OpFlush, Path: f.Name()}); err != nil {
		return err
	}
	return unix.Fdatasync(int(f.Fd()))
}

// Rename gives a file or folder another name, and takes that from any other that has it.
func (d Disk) Rename(from, to string) error {
	if err := d.before(Op{Kind: OpRename, Path: from, To: to}); err != nil {
		return err
	}
	return os.Rename(from, to)
}

// Mkdir makes a folder.
func (d Disk) Mkdir(path string) error {
	if err := d.before(Op{Kind: OpMkdir, Path: path}); err != nil {
		return err
	}
	return os.Mkdir(path, 0o700)
}

// Remove removes a file or an empty folder.
func (d Disk) Remove(path string) error {
	if err := d.before(Op{Kind: OpRemove, Path: path}); err != nil {
		return err
	}
	return os.Remove(path)
}

// List reads a folder.
func (d Disk) List(dir string) ([]os.DirEntry, error) {
	if err := d.before(Op{Kind: OpList, Path: dir}); err != nil {
		return nil, err
	}
	return os.ReadDir(dir)
}

// SyncDir makes the names in a folder durable.
func (d Disk) SyncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("open folder: %w", err)
	}
	defer f.Close()
	err = d.before(Op{Kind: OpSyncDir, Path: dir})
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		return fmt.Errorf("flush folder %s: %w", dir, err)
	}
	return nil
}
