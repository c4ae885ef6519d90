package main

import (
	"bytes"
	"errors"
	"reflect"
	"sort"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// parse reads a configuration in three steps, so that one fault does not hide the
// others: an outline of the document is compared with the type Config (unknown
// keys, wrong types); what is wrong is blanked and the rest decoded (values that
// do not parse); what was decoded is judged (values that make no sense).
func parse(doc []byte) (Config, []Fault) {
	doc, fault := plainText(doc)
	if fault != nil {
		return Config{}, []Fault{*fault}
	}
	o := newOutline(doc, reflect.TypeFor[Config]())
	c, whole := o.decode()
	if whole {
		j := judge{place: o.place}
		j.config(c)
		o.faults = append(o.faults, j.faults...)
	}
	sort.SliceStable(o.faults, func(i, k int) bool {
		a, b := o.faults[i], o.faults[k]
		return a.Line < b.Line || a.Line == b.Line && a.Column < b.Column
	})
	return c, o.faults
}

// plainText takes off the mark that some editors put at the beginning of a file.
func plainText(doc []byte) ([]byte, *Fault) {
	if bytes.HasPrefix(doc, []byte("\xff\xfe")) || bytes.HasPrefix(doc, []byte("\xfe\xff")) {
		return nil, &Fault{Line: 1, Column: 1, Text: "the file is UTF-16 text; save it as UTF-8"}
	}
	return bytes.TrimPrefix(doc, []byte("\xef\xbb\xbf")), nil
}

// decode decodes what the outline found nothing wrong with. Each value that does
// not decode is a fault, and is blanked too. whole is false when the form of the
// document is at fault, so that more would only be guessed.
func (o *outline) decode() (c Config, whole bool) {
	if o.broken {
		return Config{}, false
	}
	for {
		c = Config{}
		d := toml.NewDecoder(bytes.NewReader(o.rest))
		d.DisallowUnknownFields() // the outline has found them; this holds the two to each other
		err := d.Decode(&c)
		if err == nil {
			return c, true
		}
		if e := (*toml.StrictMissingError)(nil); errors.As(err, &e) {
			for i := range e.Errors {
				o.fault(e.Errors[i].Key(), e.Errors[i], "is not known")
			}
			return c, false
		}
		e := (*toml.DecodeError)(nil)
		if !errors.As(err, &e) {
			o.faults = append(o.faults, Fault{Text: plain(err.Error())})
			return c, false
		}
		line, col := e.Position()
		x, ok := o.expressionAt(line, col)
		if !ok {
			o.fault(e.Key(), *e, plain(e.Error()))
			return c, false
		}
		o.fault(strings.Split(x.key, "."), *e, plain(e.Error()))
		o.blank(x.from, x.to)
	}
}

func (o *outline) fault(key toml.Key, e toml.DecodeError, text string) {
	line, col := e.Position()
	o.faults = append(o.faults, Fault{Line: line, Column: col, Key: strings.Join(key, "."), Text: text})
}

// plain takes the library's name off its messages.
func plain(s string) string { return strings.TrimPrefix(s, "toml: ") }
