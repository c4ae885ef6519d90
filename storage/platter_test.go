package storage

import (
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"slices"
	"testing"

	"holdfast.dev/holdfast/storage/journal"
)

// A platter plays a tape back up to a moment and becomes what a disk might hold when
// the power goes then.
//
// Names and content have lives of their own. A change of names (a file or folder is
// made, renamed, removed) is on disk once the folder it is in was flushed; until
// then it may have happened or not, alone or with others, but for those that need
// another to have happened. A page that was written is on disk once its file was
// flushed; until then the model of the cut says what it may hold. The flush of a
// file does nothing for its name.
type platter struct {
	page    int // what a write may harm
	lot     *rand.Rand
	root    *node
	pending []naming
}

// node is a file or a folder.
type node struct {
	data []byte           // of a file: what is on disk
	size int              // as the program sees it
	wet  map[int][][]byte // by page: what was written since the last flush, newest last
	lost map[int]bool     // pages that a flush failed for: no later one writes them

	now, dry map[string]*node // of a folder: as the program sees it, and on disk
}

// naming is a change of names that is not on disk yet.
type naming struct {
	what *node
	from *node // the folder that it is taken out of, or nil
	name string
	to   *node // the folder that it comes into, or nil
	as   string
}

// loss is a model of what happens to pages that were not flushed.
type loss struct {
	name string
	page func(p *platter, mood int, old []byte, new [][]byte) []byte
}

var losses = []loss{
	{"blocks reverted", func(p *platter, mood int, old []byte, new [][]byte) []byte {
		if mood == 0 || mood > 1 && p.lot.IntN(2) == 0 {
			return old
		}
		return new[len(new)-1]
	}},
	{"random subsets, torn sectors", func(p *platter, mood int, old []byte, new [][]byte) []byte {
		b := slices.Clone(old)
		for at := 0; at < len(b); at += 512 {
			if n := p.lot.IntN(len(new) + 1); n > 0 {
				copy(b[at:at+512], new[n-1][at:])
			}
		}
		return b
	}},
	{"page noise", func(p *platter, mood int, old []byte, new [][]byte) []byte {
		switch do := p.lot.IntN(3); {
		case mood == 0 || mood == 2 && do == 0:
			b := make([]byte, len(old))
			for i := range b {
				b[i] = byte(p.lot.Uint32())
			}
			return b
		case mood == 1 || do == 1:
			return new[p.lot.IntN(len(new))]
		}
		return old
	}},
}

func newPlatter(lot *rand.Rand, page int) *platter {
	return &platter{page: page, lot: lot, root: folder()}
}

func newFile(data []byte) *node {
	return &node{data: data, size: len(data), wet: map[int][][]byte{}, lost: map[int]bool{}}
}

func folder() *node { return &node{now: map[string]*node{}, dry: map[string]*node{}} }

// at gives the folder that holds a path and the path's last part. Folders that
// nobody has made were there before.
func (p *platter) at(name string) (in *node, base string) {
	in = p.root
	dir, base := path.Split(path.Clean(name))
	for _, part := range split(dir) {
		next := in.now[part]
		if next == nil {
			next = folder()
			in.now[part], in.dry[part] = next, next
		}
		in = next
	}
	return in, base
}

func split(dir string) (parts []string) {
	for dir = path.Clean(dir); dir != "." && dir != "/"; dir = path.Dir(dir) {
		parts = append(parts, path.Base(dir))
	}
	slices.Reverse(parts)
	return parts
}

// find gives what is at a path as the program sees it, or nil.
func (p *platter) find(name string) *node {
	if path.Clean(name) == "." {
		return p.root
	}
	in, base := p.at(name)
	return in.now[base]
}

// fail takes note of an operation that the disk did not make. After a flush that
// failed the kernel calls the pages clean: the next flush does nothing for them.
func (p *platter) fail(op journal.Op) {
	n := p.find(op.Path)
	if op.Kind != journal.OpFlush || n == nil {
		return
	}
	for at := range n.wet {
		n.lost[at] = true
	}
}

// play makes one operation. What a real disk refused then is refused now.
func (p *platter) play(op journal.Op) {
	in, base := p.at(op.Path)
	switch n := p.find(op.Path); {
	case op.Kind == journal.OpMkdir && n == nil:
		p.rename(naming{what: folder(), to: in, as: base})
	case op.Kind == journal.OpCreate:
		p.rename(naming{what: newFile(nil), to: in, as: base})
	case n == nil:
	case op.Kind == journal.OpRename:
		to, as := p.at(op.To)
		p.rename(naming{what: n, from: in, name: base, to: to, as: as})
	case op.Kind == journal.OpRemove:
		p.rename(naming{what: n, from: in, name: base})
	case op.Kind == journal.OpWrite:
		n.write(op, p.page)
	case op.Kind == journal.OpFlush:
		n.flush(p.page)
	case op.Kind == journal.OpSyncDir:
		p.syncDir(n)
	}
}

func (p *platter) rename(c naming) {
	c.apply(func(dir *node) map[string]*node { return dir.now })
	p.pending = append(p.pending, c)
}

// apply makes the change where it can be made: not if what it is about has not come.
func (c naming) apply(view func(dir *node) map[string]*node) {
	if c.from != nil {
		if view(c.from)[c.name] != c.what {
			return
		}
		delete(view(c.from), c.name)
	}
	if c.to != nil {
		view(c.to)[c.as] = c.what
	}
}

func (p *platter) syncDir(dir *node) {
	p.pending = slices.DeleteFunc(p.pending, func(c naming) bool {
		if c.from != dir && c.to != dir {
			return false
		}
		c.apply(func(dir *node) map[string]*node { return dir.dry })
		return true
	})
}

func (n *node) write(op journal.Op, page int) {
	n.size = max(n.size, int(op.Off)+len(op.Data))
	for at := int(op.Off) / page; at*page < int(op.Off)+len(op.Data); at++ {
		b := slices.Clone(n.seen(at, page))
		from := max(0, int(op.Off)-at*page)
		copy(b[from:], op.Data[max(0, at*page-int(op.Off)):])
		n.wet[at] = append(n.wet[at], b)
		delete(n.lost, at)
	}
}

// seen is a page as the program sees it.
func (n *node) seen(at, page int) []byte {
	if w := n.wet[at]; len(w) > 0 {
		return w[len(w)-1]
	}
	return n.old(at, page)
}

// old is a page as it is on disk.
func (n *node) old(at, page int) []byte {
	b := make([]byte, page)
	if at*page < len(n.data) {
		copy(b, n.data[at*page:])
	}
	return b
}

func (n *node) flush(page int) {
	n.data = n.whole(page, n.size, func(at int) []byte {
		if n.lost[at] {
			return n.old(at, page)
		}
		return n.seen(at, page)
	})
	maps.DeleteFunc(n.wet, func(at int, _ [][]byte) bool { return !n.lost[at] })
}

// whole puts a file of size bytes together of its data and pages that were written.
func (n *node) whole(page, size int, wet func(at int) []byte) []byte {
	b := make([]byte, size)
	copy(b, n.data)
	for _, at := range slices.Sorted(maps.Keys(n.wet)) {
		if at*page < size {
			copy(b[at*page:], wet(at))
		}
	}
	return b
}

// fall writes what the disk holds after a cut into an empty folder.
func (p *platter) fall(t *testing.T, m loss, to string) {
	t.Helper()
	names := map[*node]map[string]*node{}
	view := func(dir *node) map[string]*node {
		if names[dir] == nil {
			names[dir] = maps.Clone(dir.dry)
		}
		return names[dir]
	}
	mood, first := p.lot.IntN(3), p.lot.IntN(len(p.pending)+1) // loose; none, some or all, in order
	for i, c := range p.pending {
		if mood == 0 && p.lot.IntN(2) == 0 || mood > 0 && i < first {
			c.apply(view)
		}
	}
	p.put(t, p.root, to, view, func(n *node) []byte { return p.lose(m, n) })
}

// lose draws what is left of a file.
func (p *platter) lose(m loss, n *node) []byte {
	mood := p.lot.IntN(3)
	size := n.size
	if grown := n.size - len(n.data); grown > 0 {
		size = len(n.data) + []int{0, grown, p.lot.IntN(grown + 1)}[p.lot.IntN(3)]
	}
	return n.whole(p.page, size, func(at int) []byte { return m.page(p, mood, n.old(at, p.page), n.wet[at]) })
}

// show writes what the program sees into an empty folder: what a process finds that
// comes after one that was killed.
func (p *platter) show(t *testing.T, to string) {
	t.Helper()
	p.put(t, p.root, to, func(dir *node) map[string]*node { return dir.now }, func(n *node) []byte {
		return n.whole(p.page, n.size, func(at int) []byte { return n.seen(at, p.page) })
	})
}

func (p *platter) put(t *testing.T, dir *node, to string, view func(*node) map[string]*node, data func(*node) []byte) {
	t.Helper()
	if err := os.MkdirAll(to, 0o700); err != nil {
		t.Fatal(err)
	}
	in := view(dir)
	for _, name := range slices.Sorted(maps.Keys(in)) {
		if n := in[name]; n.now != nil {
			p.put(t, n, filepath.Join(to, name), view, data)
		} else if err := os.WriteFile(filepath.Join(to, name), data(n), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// load takes a folder as it stands for what is on disk.
func (p *platter) load(t *testing.T, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || name == dir {
			return err
		}
		rel, err := filepath.Rel(dir, name)
		if err != nil {
			return err
		}
		n := folder()
		if !d.IsDir() {
			b, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			n = newFile(b)
		}
		in, base := p.at(filepath.ToSlash(rel))
		in.now[base], in.dry[base] = n, n
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// The platter is what all proofs stand on.
func TestPlatter(t *testing.T) {
	ops := func(p *platter, ops ...journal.Op) {
		for _, op := range ops {
			p.play(op)
		}
	}
	page := func(b byte) []byte { return slices.Repeat([]byte{b}, journal.Page) }
	create, write, flush := journal.Op{Kind: journal.OpCreate, Path: "d/f"}, journal.Op{Kind: journal.OpWrite, Path: "d/f", Data: page('1')}, journal.Op{Kind: journal.OpFlush, Path: "d/f"}
	sync := journal.Op{Kind: journal.OpSyncDir, Path: "d"}
	again := journal.Op{Kind: journal.OpWrite, Path: "d/f", Data: page('2')}
	move := journal.Op{Kind: journal.OpRename, Path: "d/f", To: "d/g"}
	for _, c := range []struct {
		name string
		ops  []journal.Op
		want []string // first bytes of d/f and d/g, - where it is not there, * where it is noise
	}{
		{"flushed file without a name", []journal.Op{create, write, flush}, []string{"--", "1-"}},
		{"name without a flush", []journal.Op{create, sync, write}, []string{"e-", "1-", "*-", "0-"}},
		{"all of it", []journal.Op{create, write, flush, sync}, []string{"1-"}},
		{"written again", []journal.Op{create, write, flush, sync, again}, []string{"1-", "2-", "*-"}},
		{"renamed", []journal.Op{create, write, flush, sync, move}, []string{"1-", "-1"}},
		{"renamed for good", []journal.Op{create, write, flush, sync, move, sync}, []string{"-1"}},
		{"renamed before it had a name", []journal.Op{create, write, flush, move}, []string{"--", "1-", "-1"}},
		{"folder renamed", []journal.Op{create, write, flush, sync, {Kind: journal.OpRename, Path: "d", To: "e"}}, []string{"1-", "--"}},
	} {
		seen := map[string]bool{}
		lot := rand.New(rand.NewPCG(1, 1))
		for i := range 300 {
			p := newPlatter(lot, journal.Page)
			ops(p, c.ops...)
			dir := t.TempDir()
			p.fall(t, losses[i%len(losses)], dir)
			got := ""
			for _, name := range []string{"d/f", "d/g"} {
				b, err := os.ReadFile(filepath.Join(dir, name))
				switch {
				case err != nil:
					got += "-"
				case len(b) == 0:
					got += "e"
				case b[0] == 0:
					got += "0"
				case slices.Contains([]byte("12"), b[0]) && b[0] == b[len(b)-1]:
					got += string(b[0])
				default:
					got += "*"
				}
			}
			if seen[got] = true; !slices.Contains(c.want, got) {
				t.Fatalf("%s: disk holds %s, want one of %v", c.name, got, c.want)
			}
		}
		for _, w := range c.want {
			if !seen[w] {
				t.Errorf("%s: disk never holds %s, only %v", c.name, w, slices.Sorted(maps.Keys(seen)))
			}
		}
	}
}
