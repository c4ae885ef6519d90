package crashdisk

import (
	"context"
	"fmt"
	"path/filepath"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// serve mounts the device's other side.
func (d *Disk) serve() error {
	p, err := newPlatter(d.o.Bytes)
	if err != nil {
		return err
	}
	d.p = p
	dir := filepath.Join(d.root, "dev")
	server, err := fs.Mount(dir, &folder{p: p}, &fs.Options{MountOptions: fuse.MountOptions{
		DirectMountStrict: true, // there may be no fusermount
		MaxWrite:          1 << 20,
		DisableXAttrs:     true,
		FsName:            "crashdisk",
		Name:              "crashdisk",
	}})
	if err != nil {
		return fmt.Errorf("mount FUSE on %s: %w", dir, err)
	}
	d.fuse, d.below = server, filepath.Join(dir, "disk")
	return nil
}

// folder is the root of the FUSE file system.
type folder struct {
	fs.Inode
	p *platter
}

func (f *folder) OnAdd(ctx context.Context) {
	file := fs.StableAttr{Mode: syscall.S_IFREG}
	f.AddChild("disk", f.NewPersistentInode(ctx, &diskFile{p: f.p, size: uint64(len(f.p.bytes))}, file), true)
	f.AddChild("marks", f.NewPersistentInode(ctx, &marksFile{p: f.p}, file), true)
}

// diskFile is the one that the loop device is on.
type diskFile struct {
	fs.Inode
	p    *platter
	size uint64
}

func (f *diskFile) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	out.Mode, out.Size, out.Blksize = syscall.S_IFREG|0o600, f.size, 4096
	return 0
}

func (f *diskFile) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	return nil, fuse.FOPEN_DIRECT_IO, 0
}

func (f *diskFile) Read(_ context.Context, _ fs.FileHandle, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	if !f.p.read(dest, off) {
		return nil, syscall.EIO
	}
	return fuse.ReadResultData(dest), 0
}

func (f *diskFile) Write(_ context.Context, _ fs.FileHandle, b []byte, off int64) (uint32, syscall.Errno) {
	if !f.p.write(b, off) {
		return 0, syscall.EIO
	}
	return uint32(len(b)), 0
}

func (f *diskFile) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno {
	if !f.p.flush() {
		return syscall.EIO
	}
	return 0
}

// Allocate is how a loop device says that blocks are to be zero. To a disk that
// forgets, that is a write like any other.
func (f *diskFile) Allocate(_ context.Context, _ fs.FileHandle, off, size uint64, mode uint32) syscall.Errno {
	if mode&(unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_ZERO_RANGE) == 0 {
		return syscall.EOPNOTSUPP
	}
	zeros := make([]byte, 1<<20)
	for end := off + size; off < end; off += uint64(len(zeros)) {
		zeros = zeros[:min(uint64(len(zeros)), end-off)]
		if !f.p.write(zeros, int64(off)) {
			return syscall.EIO
		}
	}
	return 0
}

// marksFile takes what programs say; each write is one mark.
type marksFile struct {
	fs.Inode
	p *platter
}

func (f *marksFile) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	out.Mode = syscall.S_IFREG | 0o200
	return 0
}

func (f *marksFile) Setattr(context.Context, fs.FileHandle, *fuse.SetAttrIn, *fuse.AttrOut) syscall.Errno {
	return 0 // opened with O_TRUNC
}

func (f *marksFile) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	return nil, fuse.FOPEN_DIRECT_IO, 0
}

func (f *marksFile) Write(_ context.Context, _ fs.FileHandle, b []byte, _ int64) (uint32, syscall.Errno) {
	f.p.mark(b)
	return uint32(len(b)), 0
}
