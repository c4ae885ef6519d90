package crashdisk

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"slices"
)

// past is the tape that was played on a platter last: what is durable at one of
// its events, and which blocks of the platter may differ from that.
type past struct {
	tape    *Tape
	at      int    // events that are in durable
	durable []byte // what a flush has made so
	differs []bool // by block
}

func (h *past) touch(off int64, n int) {
	if h == nil {
		return
	}
	for b := off / block; b*block < off+int64(n); b++ {
		h.differs[b] = true
	}
}

// loose is a block that was written and not flushed: what it was, and what was
// written, oldest first.
type loose struct {
	block    int64
	versions [][]byte // of 4 KiB; the first is durable
}

func (l loose) newest() []byte { return l.versions[len(l.versions)-1] }

// rewind makes the platter what was durable after so many events of the tape, and
// gives the blocks that were written since, in order of their number. Only blocks
// that differ are copied: most cuts leave most of the disk alone.
func (p *platter) rewind(t *Tape, at int) []loose {
	p.mu.Lock()
	defer p.mu.Unlock()
	flush := at
	for flush > 0 && t.events[flush-1].kind != flushed {
		flush--
	}
	if p.past == nil || p.past.tape != t || p.past.at > flush {
		p.past = &past{tape: t, durable: bytes.Clone(t.base), differs: slices.Repeat([]bool{true}, len(t.base)/block)}
	}
	h := p.past
	for ; h.at < flush; h.at++ {
		if e := t.events[h.at]; e.kind == wrote {
			copy(h.durable[e.off:], e.data)
			h.touch(e.off, len(e.data))
		}
	}
	for b, differs := range h.differs {
		if differs {
			copy(p.bytes[b*block:(b+1)*block], h.durable[b*block:])
			h.differs[b] = false
		}
	}
	return h.since(t.events[flush:at])
}

// since gives the blocks that the events write to.
func (h *past) since(events []event) []loose {
	by := map[int64]*loose{}
	for _, e := range events {
		if e.kind != wrote {
			continue
		}
		for off := e.off; off < e.off+int64(len(e.data)); {
			b := off / block
			end := min((b+1)*block, e.off+int64(len(e.data)))
			l := by[b]
			if l == nil {
				l = &loose{b, [][]byte{h.durable[b*block : (b+1)*block]}}
				by[b] = l
			}
			v := bytes.Clone(l.newest())
			copy(v[off-b*block:], e.data[off-e.off:end-e.off])
			l.versions = append(l.versions, v)
			off = end
		}
	}
	out := make([]loose, 0, len(by))
	for _, l := range by {
		out = append(out, *l)
	}
	// In order, so that one seed means one thing.
	slices.SortFunc(out, func(a, b loose) int { return int(a.block - b.block) })
	return out
}

// put writes one block.
func (p *platter) put(b int64, data []byte) {
	copy(p.bytes[b*block:(b+1)*block], data)
	p.past.touch(b*block, block)
}

// keep makes all that was written true.
func (p *platter) keep(all []loose) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range all {
		p.put(l.block, l.newest())
	}
}

// tear keeps a quarter of the blocks, reverts a quarter, and makes of each of the
// rest a mixture of the sectors that it has had.
func (p *platter) tear(all []loose, lot *rand.Rand) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range all {
		switch lot.IntN(4) {
		case 0:
		case 1:
			p.put(l.block, l.newest())
		default:
			mixed := make([]byte, block)
			for s := 0; s < block; s += sector {
				copy(mixed[s:s+sector], l.versions[lot.IntN(len(l.versions))][s:])
			}
			p.put(l.block, mixed)
		}
	}
}

// noise fills blocks of files with random bytes: all of them in half of the cuts,
// else each is that, kept or reverted. Where metadata were harmed as well, it would
// be ext4 that is tried.
func (p *platter) noise(all []loose, own map[int64]bool, lot *rand.Rand) {
	p.mu.Lock()
	defer p.mu.Unlock()
	every := lot.IntN(2) == 0
	for _, l := range all {
		n := lot.IntN(3)
		if !own[l.block] {
			n = 1 + lot.IntN(2)
		} else if every {
			n = 0
		}
		switch n {
		case 0:
			p.put(l.block, random(lot))
		case 1:
			p.put(l.block, l.newest())
		}
	}
}

func random(lot *rand.Rand) []byte {
	b := make([]byte, 0, block)
	for len(b) < block {
		b = binary.LittleEndian.AppendUint64(b, lot.Uint64())
	}
	return b
}

func zero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
