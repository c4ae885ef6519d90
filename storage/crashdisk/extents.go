package crashdisk

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The kernel's struct fiemap with room for some extents (linux/fiemap.h); x/sys does
// not have it.
type fiemap struct {
	start, length uint64
	flags         uint32
	mapped        uint32 // extents found
	count         uint32 // extents there is room for
	_             uint32
	extents       [64]extent
}

type extent struct {
	logical, physical, length uint64
	_                         [2]uint64
	flags                     uint32
	_                         [3]uint32
}

const (
	fsIocFiemap   = 0xc020660b // _IOWR('f', 11, struct fiemap)
	extentLast    = 0x0001
	extentUnknown = 0x0002 | 0x0004 // no place yet, or delayed
)

// blocksOf gives the numbers of the blocks that the regular files under dir are on.
func blocksOf(dir string) (map[int64]bool, error) {
	own := map[int64]bool{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if !e.Type().IsRegular() {
			return nil
		}
		return extents(path, own)
	})
	if err != nil {
		return nil, fmt.Errorf("find the blocks of the files in %s: %w", dir, err)
	}
	return own, nil
}

func extents(path string, own map[int64]bool) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	for start := uint64(0); ; {
		m := fiemap{start: start, length: ^uint64(0) - start}
		m.count = uint32(len(m.extents))
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), fsIocFiemap, uintptr(unsafe.Pointer(&m))); errno != 0 {
			return fmt.Errorf("find the blocks of %s: %w", path, errno)
		}
		for _, e := range m.extents[:m.mapped] {
			start = e.logical + e.length
			if e.flags&extentUnknown == 0 {
				for b := e.physical / block; b*block < e.physical+e.length; b++ {
					own[int64(b)] = true
				}
			}
			if e.flags&extentLast != 0 {
				return nil
			}
		}
		if m.mapped == 0 {
			return nil
		}
	}
}
