package main

import (
	"bytes"
	"encoding/json"
	"math"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

func TestJudged(t *testing.T) {
	for _, tt := range []struct {
		value  float64
		target string
		ok     bool
	}{
		{0.95, ">= 0.95", true},
		{0.9499, ">= 0.95", false},
		{1.4, "<= 1.4", true},
		{1.41, "<= 1.4", false},
		{0, "= 0", true},
		{1, "= 0", false},
		{math.NaN(), ">= 0", false},
		{math.NaN(), "<= 1", false},
		{math.Inf(1), "<= 1", false},
	} {
		f := figure{ID: "S1", Value: tt.value}.judged(tt.target).because("it is so")
		if f.OK == nil || *f.OK != tt.ok || f.Target != tt.target {
			t.Errorf("%v against %q is %+v, want %v", tt.value, tt.target, f, tt.ok)
		}
		if (f.Why == "") != tt.ok {
			t.Errorf("%v against %q says why: %q", tt.value, tt.target, f.Why)
		}
		if want := map[bool]string{true: "ok", false: "MISSED"}[tt.ok]; f.verdict() != want {
			t.Errorf("verdict is %q, want %q", f.verdict(), want)
		}
	}
	if f := (figure{Value: 1}); f.verdict() != "" || f.because("no").Why != "" {
		t.Errorf("a figure without a target has a verdict")
	}
}

func TestJudgedRefusesNonsense(t *testing.T) {
	for _, bad := range []string{"", "0.95", ">=0.95", "> 1", "about 1"} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("target %q was taken", bad)
				}
			}()
			figure{}.judged(bad)
		}()
	}
}

func TestAmount(t *testing.T) {
	for _, tt := range []struct {
		f    figure
		want string
	}{
		{figure{Value: 1.0321, Unit: "x"}, "1.03 x"},
		{figure{Value: 12345.6, Unit: "messages/s"}, "12346 messages/s"},
		{figure{Value: 41.27, Unit: "MB", Low: 40, High: 43.21}, "41.3 [40..43.2] MB"},
		{figure{Value: 0}, "0"},
		{figure{Why: skipped + "no loop device"}, "–"},
	} {
		if got := tt.f.amount(); got != tt.want {
			t.Errorf("amount of %+v is %q, want %q", tt.f, got, tt.want)
		}
	}
}

// testReport has a row of each kind.
func testReport(t *testing.T, args ...string) *report {
	t.Helper()
	var r *report
	cmd := &cobra.Command{Use: "x"}
	measureFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { r = newReport(cmd, "Rows"); return nil }
	cmd.SetArgs(args)
	if err := cmd.Execute(); err != nil {
		t.Fatal(err)
	}
	r.add(figure{ID: "S1", What: "good", Value: 1.02, Unit: "x"}.judged(">= 0.95"),
		figure{ID: "S2", What: "bad", Value: 2, Unit: "flushes"}.judged("<= 1.02").because("the file grows"),
		figure{ID: "peer-x", What: "free", Value: 7, Unit: "MB"},
		figure{ID: "S4", What: "nothing", Value: math.NaN()}.judged("<= 48"))
	r.skip("S5", "gone", "it needs root")
	r.note("and %d more", 3)
	return r
}

func TestReportTable(t *testing.T) {
	var b bytes.Buffer
	if err := testReport(t, "--quick").print(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Rows (quick", "MISSED", "not measured", "S2, bad: the file grows", "S5, gone: skipped: it needs root", "and 3 more"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is not in:\n%s", want, &b)
		}
	}
}

func TestReportLines(t *testing.T) {
	var b bytes.Buffer
	if err := testReport(t, "--json").print(&b); err != nil {
		t.Fatal(err)
	}
	var got []figure
	for d := json.NewDecoder(&b); d.More(); {
		var f figure
		if err := d.Decode(&f); err != nil {
			t.Fatal(err)
		}
		got = append(got, f)
	}
	if len(got) != 5 {
		t.Fatalf("%d lines, want 5", len(got))
	}
	if f := got[0]; f.OK == nil || !*f.OK || f.Target != ">= 0.95" || f.Value != 1.02 {
		t.Errorf("first line is %+v", f)
	}
	if f := got[1]; f.OK == nil || *f.OK || f.Why != "the file grows" {
		t.Errorf("second line is %+v", f)
	}
	for _, f := range got[3:] {
		if f.OK != nil || !f.skipped() {
			t.Errorf("line %+v is not a skipped one", f)
		}
	}
}
