package main

import (
	"bytes"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestProfiles(t *testing.T) {
	base := profile{devices: 6, rate: 10, duration: time.Minute, outage: 20 * time.Second, kills: 1, payload: 128, window: 20}
	if p := quick(base); !p.once || p.duration >= 40*time.Second || p.check() != nil {
		t.Errorf("quick is %+v (%v), want a run that ends by itself within a minute", p, p.check())
	}
	p := prove(base)
	if p.devices != 20 || p.messages != 50000 || p.rate != 0 || p.outage != 30*time.Second || p.kills != 2 || !p.once || p.check() != nil {
		t.Errorf("prove is %+v (%v)", p, p.check())
	}
	if l := p.bounds(100); l.device != 40 || l.gateway != 3300 {
		t.Errorf("prove's bounds are %+v, want two windows of 20, and 1,100 for each of two kills and a cut", l)
	}
	given := base
	given.outage, given.devices = 5*time.Second, 3
	p.override(given, func(name string) bool { return name == "outage" })
	if p.outage != 5*time.Second || p.devices != 20 {
		t.Errorf("after --prove --outage 5s: outage %s, %d devices", p.outage, p.devices)
	}
}

func TestProfileIsChecked(t *testing.T) {
	good := profile{devices: 2, duration: time.Minute, outage: time.Second, window: 1}
	if err := good.check(); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		change func(*profile)
		want   string
	}{
		{func(p *profile) { p.devices = 0 }, "--devices"},
		{func(p *profile) { p.rate = -1 }, "--rate"},
		{func(p *profile) { p.messages = 1 }, "--messages"},
		{func(p *profile) { p.outage = 0 }, "--outage"},
		{func(p *profile) { p.outage = 59 * time.Second }, "--duration"},
		{func(p *profile) { p.kills = -1 }, "--kills"},
		{func(p *profile) { p.payload = 300 << 10 }, "--payload"},
		{func(p *profile) { p.window = 0 }, "--in-flight"},
	} {
		p := good
		tt.change(&p)
		if err := p.check(); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: %v, want a word on %s", p, err, tt.want)
		}
	}
}

func TestStagesAddUp(t *testing.T) {
	p := profile{devices: 7, messages: 1000, kills: 2}
	sum := 0
	for i := range p.devices {
		last := 0
		for stage := 1; stage <= p.stages(); stage++ {
			n := p.limit(i, stage)
			if n <= last {
				t.Errorf("device %d may send up to %d in stage %d, %d before", i, n, stage, last)
			}
			last = n
		}
		sum += last
	}
	if sum != p.messages {
		t.Errorf("all devices together send %d, want %d", sum, p.messages)
	}
}

func TestMembers(t *testing.T) {
	for _, tt := range []struct{ n, ordinary int }{{1, 0}, {2, 0}, {3, 1}, {6, 2}, {20, 2}} {
		ordinary := 0
		for _, m := range members(tt.n) {
			if m.ordinary {
				ordinary++
			}
		}
		if ordinary != tt.ordinary {
			t.Errorf("%d of %d are ordinary clients, want %d", ordinary, tt.n, tt.ordinary)
		}
	}
}

func TestConsole(t *testing.T) {
	synctest.Test(t, testConsole) // where no time passes
}

func testConsole(t *testing.T) {
	var out bytes.Buffer
	c := &console{out: &out, start: time.Now()}
	c.line("one", "1")
	c.line("two", "2") // too soon for a log
	c.say("now %d", 3)
	if got, want := out.String(), "   0.0s  one\n   0.0s  now 3\n"; got != want {
		t.Errorf("without a terminal: %q, want %q", got, want)
	}
	out.Reset()
	c = &console{out: &out, start: time.Now(), width: func() int { return 20 }}
	c.line("one", "1")
	c.line("two is longer than the line", "2 is too long")
	c.say("now")
	want := "\r\x1b[K   0.0s  one" + "\r\x1b[K   0.0s  2 is too l" + "\r\x1b[K" + "   0.0s  now\n"
	if got := out.String(); got != want {
		t.Errorf("on a terminal: %q, want %q", got, want)
	}
}

func TestThousands(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567", -1000: "-1,000", -100: "-100"} {
		if got := thousands(n); got != want {
			t.Errorf("thousands(%d) is %q, want %q", n, got, want)
		}
	}
}
