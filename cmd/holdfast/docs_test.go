package main

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"holdfast.dev/holdfast/hub/identity"
)

func readDocs(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// The example in the docs is a configuration without a fault.
func TestDocsExample(t *testing.T) {
	_, rest, _ := strings.Cut(readDocs(t), "```toml\n")
	example, _, ok := strings.Cut(rest, "```")
	if !ok {
		t.Fatal("no example")
	}
	file := filepath.Join(t.TempDir(), "holdfast.toml")
	if err := os.WriteFile(file, []byte(example), 0o600); err != nil {
		t.Fatal(err)
	}
	c, faults, err := Load(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range faults {
		t.Error(f.In("example"))
	}
	if len(c.Accounts) != 1 || !identity.Check(c.Accounts[0].Password, []byte("example")) {
		t.Error("the account's password is not the one that the comment says")
	}
}

// The tables have a row for every key, and none for a key that there is not.
func TestDocsKeys(t *testing.T) {
	var want, got []string
	for table, typ := range fields(reflect.TypeFor[Config]()) {
		if isTables(typ) {
			typ = typ.Elem()
		}
		if typ.Kind() != reflect.Struct {
			want = append(want, table)
			continue
		}
		for key := range fields(typ) {
			want = append(want, table+"."+key)
		}
	}
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z_.]+)` \\|").FindAllStringSubmatch(readDocs(t), -1) {
		got = append(got, m[1])
	}
	for _, k := range want {
		if !slices.Contains(got, k) {
			t.Errorf("docs have no row for %s", k)
		}
	}
	for _, k := range got {
		if !slices.Contains(want, k) {
			t.Errorf("docs have a row for %s, which there is not", k)
		}
	}
}
