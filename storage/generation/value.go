package generation

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/klauspost/compress/zstd"
)

// A packed value, little-endian:
//
//	 0  1  version 1
//	 1  1  method: 0 as it is, 1 zstd
//	 2  2  zero
//	 4  4  length of the value, at least 1
//	 8  4  CRC-32C (Castagnoli) of bytes 0 to 8, the payload, and the key
//	12  …  payload
//
// The key is in the sum because a harmed table may answer with another key's value.
const (
	valueVersion = 1
	valueHead    = 12

	asItIs     = 0
	compressed = 1
)

// castagnoli is the polynomial of all sums here.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// newEncoder gives a compressor that keeps little memory. It is made for each build
// and left to the collector after it.
func newEncoder() (*zstd.Encoder, error) {
	return zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
		zstd.WithLowerEncoderMem(true), zstd.WithWindowSize(1<<20), zstd.WithEncoderCRC(false))
}

// appendValue packs a value.
func appendValue(to []byte, enc *zstd.Encoder, key, value []byte) []byte {
	at := len(to)
	to = append(to, valueVersion, compressed, 0, 0)
	to = binary.LittleEndian.AppendUint32(to, uint32(len(value)))
	to = append(to, 0, 0, 0, 0)
	to = enc.EncodeAll(value, to)
	if len(to)-at-valueHead >= len(value) {
		to = append(to[:at+valueHead], value...)
		to[at+1] = asItIs
	}
	binary.LittleEndian.PutUint32(to[at+8:], valueSum(to[at:], key))
	return to
}

func valueSum(packed, key []byte) uint32 {
	sum := crc32.Update(0, castagnoli, packed[:8])
	sum = crc32.Update(sum, castagnoli, packed[valueHead:])
	return crc32.Update(sum, castagnoli, key)
}

// openValue gives the value as it was put, in memory of its own. The length is
// believed only after the sum was right.
func openValue(packed, key []byte) ([]byte, error) {
	if len(packed) <= valueHead {
		return nil, fmt.Errorf("value of %d bytes: %w", len(packed), ErrDamaged)
	}
	if binary.LittleEndian.Uint32(packed[8:]) != valueSum(packed, key) {
		return nil, fmt.Errorf("value's checksum is wrong: %w", ErrDamaged)
	}
	if packed[0] != valueVersion || packed[1] > compressed {
		return nil, fmt.Errorf("value of version %d, method %d: %w", packed[0], packed[1], ErrVersion)
	}
	size := int(binary.LittleEndian.Uint32(packed[4:]))
	value := make([]byte, 0, size)
	if packed[1] == asItIs {
		value = append(value, packed[valueHead:]...)
	} else {
		// One for each value: it keeps nothing, and reading is paced by the uplink.
		dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true))
		if err != nil {
			return nil, fmt.Errorf("make decompressor: %w", err)
		}
		defer dec.Close()
		if value, err = dec.DecodeAll(packed[valueHead:], value); err != nil {
			return nil, fmt.Errorf("decompress value: %w: %w", err, ErrDamaged)
		}
	}
	if len(value) != size || size == 0 {
		return nil, fmt.Errorf("value of %d bytes instead of %d: %w", len(value), size, ErrDamaged)
	}
	return value, nil
}
