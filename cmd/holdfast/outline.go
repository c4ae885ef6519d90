package main

import (
	"bytes"
	"encoding"
	"errors"
	"fmt"
	"reflect"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"
)

// outline is a document as its keys: where each stands, and which of them do not
// fit the type that the document is for.
//
// It exists because a decoder stops at the first wrong type, takes keys whatever
// their case, and takes a bare number for a duration in nanoseconds. It uses the
// library's syntax tree, whose package is called unstable: the version is pinned,
// and the tests of the messages fail if it changes.
type outline struct {
	doc    []byte
	rest   []byte // doc with blanks in place of what is wrong
	faults []Fault
	broken bool // the form is wrong: what follows the fault was not seen

	places      map[string]int // offset of each path, e.g. "device[1].id"
	expressions []expression
	tables      map[string]int  // how many [[path]] there were
	ignored     map[string]bool // paths that were found wrong once
}

// expression is one key = value.
type expression struct {
	key      string // dotted, without indexes
	from, to int    // offsets
}

// target is what a key stands for: a path in the document, and its type in Config.
type target struct {
	path string       // with indexes: "device[1]"
	name string       // without: "device"
	typ  reflect.Type // nil: nothing is known of it, do not look
}

func newOutline(doc []byte, root reflect.Type) *outline {
	o := &outline{
		doc: doc, rest: bytes.Clone(doc), places: map[string]int{},
		tables: map[string]int{}, ignored: map[string]bool{},
	}
	var p unstable.Parser
	p.Reset(doc)
	at := target{typ: root}
	for p.NextExpression() {
		e := p.Expression()
		switch e.Kind {
		case unstable.Table, unstable.ArrayTable:
			at = o.table(root, e)
		case unstable.KeyValue:
			o.keyValue(at, e)
		}
	}
	if e := (*unstable.ParserError)(nil); errors.As(p.Error(), &e) {
		o.form(p.Range(e.Highlight), e.Message)
	} else if p.Error() != nil {
		o.broken = true
		o.faults = append(o.faults, Fault{Text: plain(p.Error().Error())})
	}
	return o
}

// form is a fault of the document itself.
func (o *outline) form(at unstable.Range, text string) {
	o.broken = true
	offset := int(at.Offset)
	if !bytes.Contains(bytes.TrimRight(o.doc[offset:], "\r\n"), []byte("\n")) && !bytes.HasSuffix(o.doc, []byte("\n")) || len(bytes.TrimSpace(o.doc[offset:])) <= 1 {
		text += "; the file ends here, it may have been cut off"
	}
	o.add(offset, "", "%s", text)
}

// table enters [a.b] or [[a.b]].
func (o *outline) table(root reflect.Type, e *unstable.Node) target {
	at := target{typ: root}
	for k := e.Key(); k.Next(); {
		n := k.Node()
		at = o.step(at, n)
		if at.typ == nil {
			o.blankLine(int(n.Raw.Offset))
			return at
		}
		if isTables(at.typ) {
			if e.Kind == unstable.ArrayTable && k.IsLast() {
				o.tables[at.path]++
			}
			i := o.tables[at.path]
			if i == 0 {
				return o.refuse(at, n, "want [[%s]], one for each", at.name)
			}
			at.path, at.typ = fmt.Sprintf("%s[%d]", at.path, i-1), at.typ.Elem()
			o.places[at.path] = int(n.Raw.Offset)
			continue
		}
		if at.typ.Kind() != reflect.Struct || isText(at.typ) {
			return o.refuse(at, n, "%s, have a table", wanted(at.typ))
		}
		if e.Kind == unstable.ArrayTable && k.IsLast() {
			return o.refuse(at, n, "want [%s], once", at.name)
		}
	}
	return at
}

// refuse reports a table of the wrong form; its keys are not looked at.
func (o *outline) refuse(at target, n *unstable.Node, format string, args ...any) target {
	if !o.ignored[at.path] {
		o.add(int(n.Raw.Offset), at.name, format, args...)
	}
	o.ignored[at.path] = true
	o.blankLine(int(n.Raw.Offset))
	at.typ = nil
	return at
}

// step goes from a table to one of its keys.
func (o *outline) step(at target, n *unstable.Node) target {
	key := string(n.Data)
	next := target{path: join(at.path, key), name: join(at.name, key)}
	if at.typ == nil || o.ignored[next.path] {
		return next
	}
	f, ok := field(at.typ, key)
	if !ok {
		o.add(int(n.Raw.Offset), next.name, "is not known%s", nearest(at, key))
		o.ignored[next.path] = true
		return next
	}
	next.typ = f
	if _, known := o.places[next.path]; !known {
		o.places[next.path] = int(n.Raw.Offset)
	}
	return next
}

// keyValue looks at one key = value of table at.
func (o *outline) keyValue(at target, e *unstable.Node) {
	before := len(o.faults)
	from, to := int(e.Raw.Offset), int(e.Raw.Offset+e.Raw.Length)
	of := o.member(at, e)
	o.expressions = append(o.expressions, expression{of.name, from, to})
	if len(o.faults) > before || of.typ == nil {
		o.blank(from, to)
	}
}

// member follows the key of e, which may be dotted, and compares the value.
func (o *outline) member(at target, e *unstable.Node) target {
	offset := -1
	for k := e.Key(); k.Next(); {
		if at.typ != nil && (at.typ.Kind() != reflect.Struct || isText(at.typ)) {
			o.add(offset, at.name, "%s, have a table", wanted(at.typ))
			return at
		}
		offset = int(k.Node().Raw.Offset)
		at = o.step(at, k.Node())
	}
	if at.typ != nil {
		o.value(at, e.Value(), offset)
	}
	return at
}

// value compares a value with the type that is wanted of it.
func (o *outline) value(at target, n *unstable.Node, offset int) {
	if n.Raw.Length > 0 && n.Kind != unstable.InlineTable {
		offset = int(n.Raw.Offset)
	}
	if at.typ.Kind() == reflect.Pointer {
		at.typ = at.typ.Elem()
	}
	if !accepts(at.typ, n.Kind) {
		o.add(offset, at.name, "%s, have %s", wanted(at.typ), have(n.Kind))
		return
	}
	switch n.Kind {
	case unstable.Array:
		for i, it := 0, n.Children(); it.Next(); i++ {
			o.value(target{fmt.Sprintf("%s[%d]", at.path, i), at.name, at.typ.Elem()}, it.Node(), offset)
		}
	case unstable.InlineTable:
		o.places[at.path] = offset
		for it := n.Children(); it.Next(); {
			o.member(at, it.Node())
		}
	default:
		o.places[at.path] = offset // of the value: that is what is judged
	}
}

// place gives the line and column of a path, or of the nearest table around it.
func (o *outline) place(path string) (line, col int) {
	for path != "" {
		if offset, ok := o.places[path]; ok {
			return o.position(offset)
		}
		path = path[:max(strings.LastIndexAny(path, ".["), 0)]
	}
	return 0, 0
}

func (o *outline) position(offset int) (line, col int) {
	offset = min(max(offset, 0), len(o.doc))
	before := o.doc[:offset]
	return bytes.Count(before, []byte("\n")) + 1, offset - bytes.LastIndexByte(before, '\n')
}

func (o *outline) add(offset int, key, format string, args ...any) {
	line, col := o.position(offset)
	o.faults = append(o.faults, Fault{line, col, key, fmt.Sprintf(format, args...)})
}

func (o *outline) expressionAt(line, col int) (expression, bool) {
	for _, x := range o.expressions {
		l, c := o.position(x.from)
		endLine, endCol := o.position(x.to)
		if (line > l || line == l && col >= c) && (line < endLine || line == endLine && col <= endCol) {
			return x, o.rest[x.from] != ' '
		}
	}
	return expression{}, false
}

// blank keeps the line ends, so that places stay what they are.
func (o *outline) blank(from, to int) {
	for i := from; i < to; i++ {
		if o.rest[i] != '\n' && o.rest[i] != '\r' {
			o.rest[i] = ' '
		}
	}
}

func (o *outline) blankLine(offset int) {
	from := bytes.LastIndexByte(o.doc[:offset], '\n') + 1
	to := len(o.doc)
	if i := bytes.IndexByte(o.doc[offset:], '\n'); i >= 0 {
		to = offset + i
	}
	o.blank(from, to)
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

func isTables(t reflect.Type) bool {
	return t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Struct
}

func isText(t reflect.Type) bool {
	return reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]())
}
