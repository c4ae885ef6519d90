package main

import (
	"fmt"
	"iter"
	"reflect"

	"github.com/pelletier/go-toml/v2/unstable"

	"holdfast.dev/holdfast/hub"
)

// fields are the keys of a table and what they are for, in the order of the type.
func fields(t reflect.Type) iter.Seq2[string, reflect.Type] {
	return func(yield func(string, reflect.Type) bool) {
		for i := range t.NumField() {
			if key := t.Field(i).Tag.Get("toml"); key != "" && !yield(key, t.Field(i).Type) {
				return
			}
		}
	}
}

// field is the type of one key. The decoder would take "Listen" for "listen"; one
// spelling is enough to document.
func field(t reflect.Type, key string) (reflect.Type, bool) {
	for k, typ := range fields(t) {
		if k == key {
			return typ, true
		}
	}
	return nil, false
}

// nearest says what might have been meant by a key that is not known: one of the
// same table that is spelled like it, else the same key of another table.
func nearest(at target, key string) string {
	best, found := len(key)/3+1, ""
	for k, typ := range fields(at.typ) {
		if d := distance(key, k); d <= best && d < len(k) {
			best, found = d-1, written(k, typ)
		}
	}
	if found != "" {
		return fmt.Sprintf(` (did you mean "%s"?)`, found)
	}
	root := reflect.TypeFor[Config]()
	if _, ok := field(root, key); ok && at.name != "" {
		return " here: it belongs at the top of the file, before the first [table]"
	}
	for table, typ := range fields(root) {
		inner := typ
		if isTables(inner) {
			inner = inner.Elem()
		}
		if inner.Kind() != reflect.Struct || table == at.name {
			continue
		}
		if _, ok := field(inner, key); ok {
			return fmt.Sprintf(` here (did you mean it to be in %s?)`, written(table, typ))
		}
	}
	return ""
}

// written is a key as it stands in the file.
func written(key string, t reflect.Type) string {
	switch {
	case isTables(t):
		return "[[" + key + "]]"
	case t.Kind() == reflect.Struct:
		return "[" + key + "]"
	}
	return key
}

// distance is how many letters must be added, dropped, changed or swapped with
// their neighbour to make a of b (optimal string alignment).
func distance(a, b string) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for k := range rows[0] {
		rows[0][k] = k
	}
	for i := 1; i <= len(a); i++ {
		for k := 1; k <= len(b); k++ {
			cost := 1
			if a[i-1] == b[k-1] {
				cost = 0
			}
			rows[i][k] = min(rows[i-1][k]+1, rows[i][k-1]+1, rows[i-1][k-1]+cost)
			if i > 1 && k > 1 && a[i-1] == b[k-2] && a[i-2] == b[k-1] {
				rows[i][k] = min(rows[i][k], rows[i-2][k-2]+1)
			}
		}
	}
	return rows[len(a)][len(b)]
}

// accepts says whether a value of kind k can be a t.
func accepts(t reflect.Type, k unstable.Kind) bool {
	if isText(t) {
		return k == unstable.String
	}
	switch t.Kind() {
	case reflect.String:
		return k == unstable.String
	case reflect.Bool:
		return k == unstable.Bool
	case reflect.Int, reflect.Int64, reflect.Uint64:
		return k == unstable.Integer
	case reflect.Float64:
		return k == unstable.Float || k == unstable.Integer
	case reflect.Slice:
		return k == unstable.Array
	case reflect.Struct:
		return k == unstable.InlineTable
	}
	return false
}

// wanted says in words what a value has to be.
func wanted(t reflect.Type) string {
	switch t {
	case reflect.TypeFor[hub.Duration]():
		return `want a duration in quotes, like "90s"`
	case reflect.TypeFor[hub.Size]():
		return `want a size in quotes, like "512MiB"`
	}
	switch t.Kind() {
	case reflect.Pointer:
		return wanted(t.Elem())
	case reflect.String:
		return "want text in quotes"
	case reflect.Bool:
		return "want true or false"
	case reflect.Int, reflect.Int64, reflect.Uint64:
		return "want a whole number"
	case reflect.Float64:
		return "want a number"
	case reflect.Slice:
		if isTables(t) {
			return "want a list of tables"
		}
		return `want a list, like ["a", "b"]`
	}
	return "want a table"
}

// have says in words what a value is.
func have(k unstable.Kind) string {
	switch k {
	case unstable.String:
		return "text"
	case unstable.Bool:
		return "true or false"
	case unstable.Integer:
		return "a whole number"
	case unstable.Float:
		return "a number with a fraction"
	case unstable.Array:
		return "a list"
	case unstable.InlineTable:
		return "a table"
	}
	return "a date or time"
}
