package main

import (
	"bytes"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func testPage() page {
	return page{
		m:     machine{cpu: "2 cores"},
		begun: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), took: time.Minute,
		figures: []figure{
			{ID: "S1", What: "beside", Value: 5, Unit: "x"},
			figure{ID: "S1", What: "good | fast", Value: 1.02, Unit: "x"}.judged(">= 0.95"),
			figure{ID: "S2", What: "bad", Value: 2, Unit: "flushes"}.judged("<= 1.02").because("the file grows"),
			{ID: "S5", What: "gone", Why: skipped + "it needs root"},
			{ID: "ingest", What: "free", Value: 7, Unit: "messages/s"},
			{ID: "peers", What: "bench peers", Why: skipped + "no binaries"},
		},
	}
}

// TestPageHidesNothing: what was missed, not measured or has failed is on the page.
func TestPageHidesNothing(t *testing.T) {
	p := testPage()
	for form, got := range map[string]string{"markdown": p.markdown(), "text": p.text()} {
		for _, want := range []string{
			"S2, bad: the file grows", "S5, gone: it needs root", "bench peers: no binaries", "S14, ", "S7, ",
			"7 messages/s", "2 cores", "1.02", "2026-01-02",
		} {
			if !strings.Contains(got, want) {
				t.Errorf("%q is not in the %s:\n%s", want, form, got)
			}
		}
		for _, tt := range targets() {
			if !strings.Contains(got, tt.what) {
				t.Errorf("target %s is not in the %s", tt.id, form)
			}
		}
	}
	md := p.markdown()
	if !strings.Contains(md, "| | bad | <= 1.02 | 2 flushes | **missed** |") || !strings.Contains(md, `good \| fast`) {
		t.Errorf("markdown is\n%s", md)
	}
	if good, beside := strings.Index(md, "good"), strings.Index(md, "| | beside"); good > beside {
		t.Error("a row without a target stands before one with")
	}
}

func TestParseRows(t *testing.T) {
	rows, err := parseRows([]byte(`{"id":"S1","what":"x","value":1,"unit":"x"}` + "\n" + `{"id":"S2","what":"y","value":2,"unit":"x","ok":true}` + "\n"))
	if err != nil || len(rows) != 2 || rows[1].OK == nil {
		t.Errorf("rows are %+v, %v", rows, err)
	}
	if rows, err := parseRows(nil); err != nil || rows != nil {
		t.Errorf("nothing is %+v, %v", rows, err)
	}
	for _, bad := range []string{"hello", `{"id":"S1","value":"1"}`, `{"id":"S1","verdict":"ok"}`, "{}{"} {
		if _, err := parseRows([]byte(bad)); err == nil {
			t.Errorf("%q was taken for rows", bad)
		}
	}
}

func TestParseAnonymous(t *testing.T) {
	got, err := parseAnonymous([]byte("55ba-7fff ---p 0 00:00 0  [rollup]\nRss:  900 kB\nAnonymous:            1234 kB\nAnonHugePages: 0 kB\n"))
	if err != nil || got != 1234*1024 {
		t.Errorf("anonymous memory is %v, %v", got, err)
	}
	for _, bad := range []string{"", "Rss: 900 kB\n", "Anonymous: x kB\n"} {
		if _, err := parseAnonymous([]byte(bad)); err == nil {
			t.Errorf("%q was taken for memory", bad)
		}
	}
}

// TestGaugeSees what is allocated while it looks.
func TestGaugeSees(t *testing.T) {
	g := newGauge()
	b := make([]byte, 64<<20)
	for i := range b {
		b[i] = byte(i)
	}
	most, last, err := g.stop()
	if err != nil || most < 64 || last < 64 {
		t.Errorf("most is %v MB, last %v MB, %v", most, last, err)
	}
	_ = b[len(b)-1]
}

func TestMountOf(t *testing.T) {
	const info = "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard\n23 22 0:5 / /dev rw - devtmpfs udev rw\nnonsense\n"
	if got := mountOf([]byte(info), "254:0"); got != "ext4, rw,relatime,rw,discard" {
		t.Errorf("mount is %q", got)
	}
	if got := mountOf([]byte(info), "1:1"); got != "" {
		t.Errorf("an unknown mount is %q", got)
	}
	if got := field([]byte("a\t: 1\nb : 2\n"), "x", "b"); got != "2" {
		t.Errorf("field is %q", got)
	}
	if gibibytes("1048576 kB") != "1.0 GiB" || gibibytes("") != "unknown" {
		t.Error("memory is not read")
	}
}

func TestCompare(t *testing.T) {
	lost, twice := compare(map[uint64]int{1: 1, 2: 1, 3: 1}, map[uint64]int{1: 1, 3: 2, 9: 1})
	if lost != 1 || twice != 1 {
		t.Errorf("%d lost, %d twice, want 1 and 1", lost, twice)
	}
}

// TestAllGoesOn runs a measurement that cannot be done and one that can.
func TestAllGoesOn(t *testing.T) {
	e := everything{measure: &measure{json: true, quick: true, dir: filepath.Join(t.TempDir(), "all")}, tell: io.Discard, bin: t.TempDir()}
	for _, name := range allOf() {
		if name != "peers" {
			e.without = append(e.without, name)
		}
	}
	var out bytes.Buffer
	if err := e.run(t.Context(), &out); err != nil {
		t.Fatal(err)
	}
	rows, err := parseRows(out.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	failed := 0
	for _, f := range rows {
		if f.ID == "peers" && f.skipped() && strings.Contains(f.Why, "exit status 1") {
			failed++
		}
	}
	if failed != 1 {
		t.Errorf("peers without a gateway left %d rows that say so: %+v", failed, rows)
	}
}
