package storage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
)

// What is missing at either end of the journal leaves no gap in its sequences. At
// the old end the picture gives it away: it counts records that are nowhere to be
// found. At the new end it is the file NEXT, which is written with each new segment
// and when the store is closed:
//
//	 0  8  "HFNEXT1" and a newline
//	 8  8  sequence of the next record, little-endian
//	16  8  store id
//	24  4  CRC-32C of the bytes before
//
// It is a lower bound and nothing depends on it, so it is written in place: if a
// power cut harms it, it says nothing.
const (
	nextName  = "NEXT"
	nextMagic = "HFNEXT1\n"
	nextSize  = 28
)

// ID is the store's own, drawn when it was made.
func (db *DB) ID() uint64 { return db.id }

// missing counts where ledger and index differ: what the one holds open and the
// other does not have, or the reverse. Called with db.mu held, after countOpen.
func (db *DB) missing() (n uint64) {
	for _, row := range db.ledger {
		n += uint64(max(row.Balance(), -row.Balance()))
	}
	return n
}

// agrees says whether the ledger counts as open what the index has. Called with
// db.mu held or in replay.
func (db *DB) agrees() bool {
	open := map[rowKey]uint64{}
	db.count(func(k rowKey, _ bool, n uint64) { open[k] += n })
	for k, row := range db.ledger {
		if row.Pending+row.Parked != open[k] {
			return false
		}
		delete(open, k)
	}
	return len(open) == 0
}

// reportMissing says what is missing at either end. known is whether damage was
// seen in replay: then it has been reported and counted already.
func (db *DB) reportMissing(known bool, old uint64) error {
	if !known && old > 0 {
		if db.o.check {
			return fmt.Errorf("ledger and index differ by %d records, though nothing was damaged", old)
		}
		db.log.Error("ledger and journal differ: older segments are missing, or were damaged in an earlier life", "records", old)
		db.stats.Damage = append(db.stats.Damage, Damage{File: filepath.Join(db.dir, "journal"), Records: old})
	}
	at, ok := db.readNext()
	if found := db.j.Next(); ok && found < at {
		db.log.Error("the end of the journal is missing", "records", at-found)
		db.stats.Damage = append(db.stats.Damage, Damage{File: filepath.Join(db.dir, "journal"), Records: at - found})
		db.markNext()
	}
	return nil
}

func (db *DB) readNext() (next uint64, ok bool) {
	b, err := os.ReadFile(filepath.Join(db.dir, nextName))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		db.log.Warn("it cannot be told whether the end of the journal is there", "error", err)
	}
	if len(b) != nextSize || string(b[:8]) != nextMagic ||
		crc32.Checksum(b[:24], castagnoli) != binary.LittleEndian.Uint32(b[24:]) || binary.LittleEndian.Uint64(b[16:]) != db.id {
		return 0, false
	}
	return binary.LittleEndian.Uint64(b[8:]), true
}

// markNext notes how far the journal has come. It is a courtesy: where it cannot be
// written, the store goes on.
func (db *DB) markNext() {
	b := append(make([]byte, 0, nextSize), nextMagic...)
	b = binary.LittleEndian.AppendUint64(b, db.j.Next())
	b = binary.LittleEndian.AppendUint64(b, db.id)
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
	disk, name := db.o.disk, filepath.Join(db.dir, nextName)
	f, err := disk.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		f, err = disk.Create(name)
	}
	if err == nil {
		if err = disk.WriteAt(f, b, 0); err == nil {
			err = disk.Flush(f)
		}
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		db.log.Warn("end of the journal is not noted", "error", err)
	}
}
