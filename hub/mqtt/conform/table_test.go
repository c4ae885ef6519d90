package conform

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
)

func TestMain(m *testing.M) {
	if was, err := ServeMochi(); was {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// TestTable asks all targets all rows. It fails for each row that Holdfast fails,
// and if Holdfast passes fewer than a peer does. With -v it prints the table.
//
// HOLDFAST_CONFORM_ROWS, a comma-separated list of numbers or their beginnings,
// such as "3.3.1-5,4.", picks rows while one works on them.
func TestTable(t *testing.T) {
	suites := pick(t, Suites(), os.Getenv("HOLDFAST_CONFORM_ROWS"))
	targets := start(t)
	columns := make([]Column, len(targets))
	errs := make([]error, len(targets))
	var wg sync.WaitGroup
	for i, target := range targets {
		wg.Go(func() { columns[i], errs[i] = Run(target, suites) })
	}
	wg.Wait()
	for i, err := range errs {
		if err != nil {
			t.Errorf("%s: %v", targets[i].Name, err)
		}
	}
	t.Logf("\n%s", Table(suites, columns))
	ours := columns[0]
	for i, s := range suites {
		for j, v := range ours.Verdicts[i] {
			if v.Outcome == Fail {
				t.Errorf("MQTT %s [MQTT-%s] %s: %s", s.Name, s.Rows[j].ID, s.Rows[j].What, v.Seen)
			}
		}
		for _, peer := range columns[1:] {
			if a, b := ours.Count(i, Pass), peer.Count(i, Pass); a < b {
				t.Errorf("MQTT %s: holdfast passes %d rows, %s %d", s.Name, a, peer.Name, b)
			}
		}
	}
	if t.Failed() && targets[0].life() > 1 {
		t.Logf("holdfast's log:\n%s", targets[0].logText())
	}
}

// start starts the targets, Holdfast first. A peer that is not installed is left
// out, which is said.
func start(t *testing.T) []*Target {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var targets []*Target
	for _, begin := range []func() (*Target, error){
		func() (*Target, error) { return Holdfast(t.TempDir()) },
		func() (*Target, error) { return Mochi(t.TempDir(), program) },
		func() (*Target, error) { return Mosquitto(t.TempDir()) },
	} {
		target, err := begin()
		if errors.Is(err, ErrNotInstalled) {
			t.Logf("A COLUMN IS MISSING: %v (make conform installs it)", err)
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(target.Stop)
		targets = append(targets, target)
	}
	return targets
}

func pick(t *testing.T, suites []Suite, want string) []Suite {
	if want == "" {
		return suites
	}
	for i := range suites {
		suites[i].Rows = slices.DeleteFunc(suites[i].Rows, func(r Row) bool {
			return !slices.ContainsFunc(strings.Split(want, ","), func(p string) bool { return strings.HasPrefix(r.ID, p) })
		})
	}
	t.Logf("ONLY SOME ROWS: HOLDFAST_CONFORM_ROWS=%s", want)
	return suites
}

// TestStatements holds that every statement of the standards is a row, or is listed
// with the reason why it is none.
func TestStatements(t *testing.T) {
	for _, s := range Suites() {
		for _, f := range s.Faults() {
			t.Errorf("MQTT %s: %s", s.Name, f)
		}
	}
}
