package crashdisk

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Counts are what a device was asked for.
type Counts struct {
	Writes  uint64 // requests, after merging; the kernel counts one that only flushes, too
	Bytes   uint64 // written
	Flushes uint64 // of the device's cache
}

// Minus is what came after an earlier count.
func (c Counts) Minus(before Counts) Counts {
	return Counts{c.Writes - before.Writes, c.Bytes - before.Bytes, c.Flushes - before.Flushes}
}

// Counts gives what the kernel says the device was asked for since it was attached:
// fields 5, 7 and 16 of /sys/block/{device}/stat, which are writes, sectors of 512
// bytes, and flushes (Documentation/block/stat.rst).
func (d *Disk) Counts() (Counts, error) {
	b, err := os.ReadFile(d.loop.sys("stat"))
	if err != nil {
		return Counts{}, fmt.Errorf("count what disk %s was asked for: %w", d.o.Name, err)
	}
	fields := strings.Fields(string(b))
	if len(fields) < 17 {
		return Counts{}, fmt.Errorf("count what disk %s was asked for: %d fields in %s, flushes are counted since Linux 5.5",
			d.o.Name, len(fields), d.loop.sys("stat"))
	}
	var n [17]uint64
	for i := range n {
		if n[i], err = strconv.ParseUint(fields[i], 10, 64); err != nil {
			return Counts{}, fmt.Errorf("count what disk %s was asked for: %w", d.o.Name, err)
		}
	}
	return Counts{Writes: n[4], Bytes: 512 * n[6], Flushes: n[15]}, nil
}

// Received gives what came out at the other side of the device, since the disk was
// opened: large writes arrive in pieces of at most 1 MiB. Zero for a plain disk.
func (d *Disk) Received() (Counts, error) {
	switch {
	case d.p != nil:
		return d.p.received(), nil
	case d.server != nil:
		return d.server.tell(order{})
	}
	return Counts{}, nil
}
