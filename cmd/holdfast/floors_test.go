package main

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "holdfast.dev/holdfast"

// The floors of the house: each room, the rooms of ours it may enter, and the
// foreign libraries that live in it. A room imports only from lower floors, never
// across its own; a package without a row fails. cmd/bench measures peers, so it
// may use what it likes. Test code may go anywhere below the roof.
var floors = map[string]struct{ ours, foreign string }{
	// roof
	"cmd/holdfast": {"hal/link hub hub/wire hub/identity hub/mqtt hub/iothub hub/web hub/console storage", "github.com/spf13/cobra github.com/pelletier/go-toml/v2 golang.org/x/term golang.org/x/sys"},
	"cmd/hubsim":   {"hub hub/wire hub/iothub/hubtest", "github.com/spf13/cobra"},
	"cmd/bench":    {"hub hub/wire hub/identity storage storage/crashdisk hub/iothub/hubtest", "*"},
	// second floor
	"hub/mqtt":           {"hub hub/wire hub/identity storage", "github.com/mochi-mqtt/server/v2 github.com/gorilla/websocket"},
	"hub/mqtt/conform":   {"", "github.com/mochi-mqtt/server/v2 github.com/gorilla/websocket"},
	"hub/iothub":         {"hub hub/wire hub/identity storage", "github.com/eclipse/paho.mqtt.golang github.com/gorilla/websocket golang.org/x/net golang.org/x/sync golang.org/x/time"},
	"hub/iothub/hubtest": {"hub/wire", "github.com/mochi-mqtt/server/v2 github.com/gorilla/websocket golang.org/x/sync golang.org/x/time"},
	"hub/web":            {"hub hub/wire hub/identity storage", ""},
	"hub/console":        {"hub hub/wire hub/identity storage", "github.com/spf13/cobra"},
	// mezzanine
	"hal/link":     {"", "golang.org/x/sys"},
	"hub/identity": {"hub hub/wire storage", "golang.org/x/crypto golang.org/x/sync golang.org/x/time"},
	// first floor
	"hub": {"hub/wire storage", ""},
	// ground
	"storage":            {"storage/journal storage/generation", "golang.org/x/sys golang.org/x/sync"},
	"storage/generation": {"storage/journal", "github.com/dgraph-io/badger/v4 github.com/klauspost/compress golang.org/x/sys"},
	"storage/journal":    {"", "golang.org/x/sys"},
	"storage/crashdisk":  {"", "github.com/hanwen/go-fuse/v2 golang.org/x/sys"},
	"hub/wire":           {"", ""},
}

func TestFloors(t *testing.T) {
	root := filepath.Join("..", "..")
	seen := map[string]bool{}
	err := filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && file != root && (strings.HasPrefix(d.Name(), ".") || d.Name() == "node_modules" || d.Name() == "bin") {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(file, ".go") {
			return nil
		}
		rel, err := filepath.Rel(root, filepath.Dir(file))
		if err != nil {
			return err
		}
		pkg := filepath.ToSlash(rel)
		row, ok := floors[pkg]
		if !ok {
			t.Errorf("%s: package %s has no row in the floors table", file, pkg)
			return nil
		}
		seen[pkg] = true
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, spec := range f.Imports {
			name, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			if why := forbidden(name, row.ours, row.foreign, strings.HasSuffix(file, "_test.go")); why != "" {
				t.Errorf("%s imports %s: %s", file, name, why)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for pkg := range floors {
		if !seen[pkg] {
			t.Errorf("the floors table has a row for %s, which is not there", pkg)
		}
	}
}

// forbidden says why a room may not import name; "" if it may.
func forbidden(name, ours, foreign string, test bool) string {
	if rel, ok := strings.CutPrefix(name, module+"/"); ok {
		switch {
		case slices.Contains(strings.Fields(ours), rel):
		case test && !strings.HasPrefix(rel, "cmd/"):
		default:
			return "it is not on a lower floor"
		}
		return ""
	}
	if first, _, _ := strings.Cut(name, "/"); !strings.Contains(first, ".") || test || foreign == "*" {
		return "" // the standard library; tests may use any peer
	}
	for _, lib := range strings.Fields(foreign) {
		if name == lib || strings.HasPrefix(name, lib+"/") {
			return ""
		}
	}
	return "the library does not live in this room; " + path.Base(name) + " has its own"
}

// The test above proves nothing if its judge lets everything through.
func TestFloorsJudge(t *testing.T) {
	for _, c := range []struct {
		name, ours, foreign string
		test, ok            bool
	}{
		{"fmt", "", "", false, true},
		{module + "/hub", "hub", "", false, true},
		{module + "/hub/mqtt", "hub", "", false, false},
		{module + "/hub/mqtt", "", "", true, true},
		{module + "/cmd/bench", "", "", true, false},
		{"github.com/mochi-mqtt/server/v2/packets", "", "github.com/mochi-mqtt/server/v2", false, true},
		{"github.com/mochi-mqtt/server/v2", "", "", false, false},
		{"github.com/mochi-mqtt/server/v2extra", "", "github.com/mochi-mqtt/server/v2", false, false},
	} {
		if why := forbidden(c.name, c.ours, c.foreign, c.test); (why == "") != c.ok {
			t.Errorf("import of %s from a room with (%s|%s), test %v: %q", c.name, c.ours, c.foreign, c.test, why)
		}
	}
}
