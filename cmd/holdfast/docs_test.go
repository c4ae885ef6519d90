package main

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

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

// The page of the console has every command of it, with an example that is right.
func TestDocsConsole(t *testing.T) {
	b, err := os.ReadFile("../../docs/console.md")
	if err != nil {
		t.Fatal(err)
	}
	p := Program{Env: func(string) string { return "" }}
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		for _, sub := range c.Commands() {
			walk(sub)
		}
		if row := "| `" + c.CommandPath(); !c.HasSubCommands() && !strings.Contains(string(b), row) {
			t.Errorf("docs have no row for %s", c.CommandPath())
		}
	}
	for _, c := range p.commands().Commands() {
		if c.Name() == "queue" || c.Name() == "scope" {
			walk(c)
		}
	}
	examples := regexp.MustCompile("(?m)\\| `([^`|\\\\]+)[^`]*` \\|$").FindAllStringSubmatch(string(b), -1)
	if len(examples) < 10 {
		t.Errorf("%d examples", len(examples))
	}
	for _, m := range examples {
		args := strings.Fields(m[1])[1:]
		if c, rest, err := p.commands().Find(args); err != nil || c.ParseFlags(rest) != nil || c.ValidateArgs(c.Flags().Args()) != nil {
			t.Errorf("example %q is not a command", m[1])
		}
	}
}
