package journal

import (
	"encoding/binary"
	"hash/crc32"
)

const (
	version    = "HFJ1"
	headerSize = 40
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// header is the head of a frame; see the package comment for its bytes.
type header struct {
	length, crc, n uint32
	first, store   uint64
}

// frameSize is what a frame with a body of n bytes takes, in whole pages.
func frameSize(n int) int { return (headerSize + n + Page - 1) / Page * Page }

// appendFrame appends the frame's bytes, padded to the page.
func appendFrame(dst []byte, h header, body []byte) []byte {
	start, size := len(dst), frameSize(len(body))
	dst = append(dst, version...)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(body)))
	dst = binary.LittleEndian.AppendUint32(dst, 0)
	dst = binary.LittleEndian.AppendUint32(dst, h.n)
	dst = binary.LittleEndian.AppendUint64(dst, h.first)
	dst = binary.LittleEndian.AppendUint64(dst, h.store)
	dst = binary.LittleEndian.AppendUint64(dst, 0)
	dst = append(dst, body...)
	frame := dst[start:]
	binary.LittleEndian.PutUint32(frame[8:], checksum(frame[:headerSize], body))
	pad := size - len(frame)
	return append(dst, zeros[:pad]...)
}

var zeros [Page]byte

// parseHeader reads a header; ok is false if the bytes are none of ours.
func parseHeader(b []byte) (h header, ok bool) {
	if len(b) < headerSize || string(b[:4]) != version {
		return h, false
	}
	h.length = binary.LittleEndian.Uint32(b[4:])
	h.crc = binary.LittleEndian.Uint32(b[8:])
	h.n = binary.LittleEndian.Uint32(b[12:])
	h.first = binary.LittleEndian.Uint64(b[16:])
	h.store = binary.LittleEndian.Uint64(b[24:])
	return h, true
}

func checksum(head, body []byte) uint32 {
	c := crc32.Update(0, castagnoli, head[12:headerSize])
	c = crc32.Update(c, castagnoli, head[4:8])
	return crc32.Update(c, castagnoli, body)
}
