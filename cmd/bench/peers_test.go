package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestServePeer is the process of a peer that is a library, when it is started
// with the arguments of one.
func TestServePeer(t *testing.T) {
	if flag.NArg() == 0 {
		t.Skip("it is started by other tests")
	}
	cmd := serveCommand()
	cmd.SetArgs(flag.Args())
	if err := cmd.ExecuteContext(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// testPeers is a short run over the given brokers, with the fake gateway.
func testPeers(t *testing.T, only ...string) *peersRun {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return &peersRun{
		bin: fakeBin(t), dir: t.TempDir(), quick: true, only: only, ports: &ports{}, report: &report{}, out: t.Output(),
		self:  []string{self, "-test.run=^TestServePeer$", "--"},
		paces: peersPaces{rounds: 1, warm: 20 * time.Millisecond, length: 100 * time.Millisecond, publish: 100 * time.Millisecond, quiet: 500 * time.Millisecond},
	}
}

// TestPeersRun goes through a whole run.
func TestPeersRun(t *testing.T) {
	t.Parallel()
	p := testPeers(t, "mochi")
	p.report.json = true
	var out bytes.Buffer
	if err := p.run(t.Context(), filepath.Join(t.TempDir(), "work"), &out); err != nil {
		t.Fatal(err)
	}
	rows := map[string]figure{}
	for dec := json.NewDecoder(&out); dec.More(); {
		var f figure
		if err := dec.Decode(&f); err != nil {
			t.Fatal(err)
		}
		what, _, _ := strings.Cut(f.What, ", lost of")
		rows[what] = f
	}
	for _, what := range []string{"10 x 100: Holdfast", "10 x 100: " + brokerNames["mochi"],
		"1 x 1: Holdfast, p50", "10 x 100: Holdfast against mochi without a store", "10 x 100: the bare flush of a page",
		"stores on this disk: Holdfast's storage, 16 x 100", "stores on this disk: " + storeNames["badger"] + ", 16 x 100",
		"stores on this disk: " + storeNames["jetstream"] + ", 16 x 100", "stores on this disk: storage against badger, one transaction a message"} {
		if f := rows[what]; f.Value <= 0 || f.Unit == "" {
			t.Errorf("row %q is %+v", what, f)
		}
	}
	if f := rows["kill -9: Holdfast"]; f.OK == nil || !*f.OK {
		t.Errorf("a gateway that keeps all: %+v", f)
	}
	if f := rows["kill -9: mochi without a store"]; f.Value != 100 {
		t.Errorf("mochi keeps nothing, and lost %g %%", f.Value)
	}
	if f, ok := rows["10 x 100: Holdfast against RabbitMQ"]; !ok || !f.skipped() {
		t.Errorf("a peer that was not asked for is not shown as skipped: %+v", f)
	}
	if left, err := filepath.Glob(filepath.Join(p.dir, "*-*")); err != nil || len(left) > 0 {
		t.Errorf("left in the work folder: %v, %v", left, err)
	}
}

// TestLossIsSeen: a gateway that loses each fiftieth message that it acknowledges.
func TestLossIsSeen(t *testing.T) {
	t.Parallel()
	p := testPeers(t, "sink")
	p.env = []string{"BENCH_FAULT=lose"}
	defer p.stop()
	l, err := p.measureLoss(t.Context(), "holdfast")
	if err != nil {
		t.Fatal(err)
	}
	if share := l.share(); share < 1 || share > 3 {
		t.Errorf("it lost 2 %%, %g %% were seen: %+v", share, l)
	}
}

// TestBrokers publishes to each peer that is installed and takes back what the
// subscriber that was away gets: what was counted as acknowledged must be there.
func TestBrokers(t *testing.T) {
	for _, id := range brokerOrder() {
		if id == "holdfast" || strings.HasPrefix(id, "sink") { // above
			continue
		}
		t.Run(id, func(t *testing.T) {
			p := testPeers(t, id)
			if why := p.absent(id); why != "" {
				t.Skip(why)
			}
			t.Parallel()
			if err := p.start(t.Context(), []string{id}, "test"); err != nil {
				t.Fatal(err)
			}
			defer p.stop()
			b := p.brokers[0]
			r := &run{stop: make(chan struct{})}
			all, err := b.publishers(t.Context(), r, load{2, 10}, 0)
			if err != nil {
				t.Fatal(err)
			}
			close(r.stop) // after the first window
			acked := make([][]int, 2)
			for i, pub := range all {
				if err := pub.publish(10); err != nil {
					t.Fatal(err)
				}
				acked[i] = pub.acked
			}
			if n := r.acked.Load(); n != 20 {
				t.Errorf("%d acknowledged, want 20", n)
			}
			b.freeze()
			b.thaw()
			got := newTaken(acked)
			if err := b.collect(t.Context(), time.Second, got.take); err != nil {
				t.Fatal(err)
			}
			if l := got.loss(); l != (loss{acked: 20}) {
				t.Errorf("of 20 that were acknowledged: %+v", l)
			}
		})
	}
}

// TestBrokerThatDies says so, with its last words.
func TestBrokerThatDies(t *testing.T) {
	p := testPeers(t, "sink")
	if err := p.start(t.Context(), []string{"sink"}, "test"); err != nil {
		t.Fatal(err)
	}
	defer p.stop()
	time.AfterFunc(50*time.Millisecond, func() { p.brokers[0].child.cmd.Process.Kill() })
	_, err := p.brokers[0].measure(t.Context(), load{2, 10}, peersPaces{length: time.Minute}, 0)
	if err == nil || !strings.Contains(err.Error(), "sink stopped unexpectedly") {
		t.Errorf("error is %v", err)
	}
}

// TestLoserIsShown: a peer that is faster is a row like another, with the target
// missed.
func TestLoserIsShown(t *testing.T) {
	p := testPeers(t, "mochi", "mosquitto", "mosquitto-persist")
	rates := rounds{"holdfast": {90, 100, 110}, "mochi": {200, 190, 210}, "mosquitto": {80, 80, 80}, "mosquitto-persist": {85, 85, 85}, flushID: {1, 1, 1}}
	p.reportLoad(load{10, 100}, rates, rounds{}, rounds{})
	got := map[string]figure{}
	for _, f := range p.report.figures {
		got[f.What] = f
	}
	mochi := got["10 x 100: Holdfast against mochi without a store"]
	if mochi.Value != 110./210 || mochi.OK == nil || *mochi.OK || mochi.Why == "" {
		t.Errorf("against a faster mochi: %+v", mochi)
	}
	if f := got["10 x 100: Holdfast against mosquitto without durability"]; f.Value != 100./85 || *f.OK {
		t.Errorf("against the faster mosquitto: %+v", f)
	}
	if f := got["10 x 100: Holdfast against RabbitMQ"]; !f.skipped() || f.ID != "S13" {
		t.Errorf("against a broker that is not there: %+v", f)
	}
	var out bytes.Buffer
	if err := p.report.print(&out); err != nil || !strings.Contains(out.String(), "MISSED") {
		t.Errorf("printed, %v:\n%s", err, &out)
	}
}

// TestPeerThatFails costs its own row, not the run.
func TestPeerThatFails(t *testing.T) {
	p := testPeers(t, "sink")
	b, err := p.broker("sink", filepath.Join(p.dir, "x"))
	if err != nil {
		t.Fatal(err)
	}
	p.brokers = []*broker{b}
	if err := p.giveUp(t.Context(), b, "10 x 100", errors.New("it fell over\nand said much")); err != nil {
		t.Fatal(err)
	}
	if f := p.report.figures[0]; !f.skipped() || !strings.HasSuffix(f.Why, ": it fell over") || len(p.brokers) != 0 {
		t.Errorf("row %+v, brokers %v", f, p.brokers)
	}
	if err := p.giveUp(t.Context(), &broker{id: "holdfast"}, "", os.ErrClosed); err == nil {
		t.Error("a run went on without the gateway")
	}
}

func TestPeersMaths(t *testing.T) {
	for _, tt := range []struct {
		values []float64
		want   float64
	}{{[]float64{3}, 3}, {[]float64{9, 1, 5}, 5}, {[]float64{4, 1, 2, 9}, 3}} {
		if got := middle(tt.values); got != tt.want {
			t.Errorf("the middle of %v is %g, want %g", tt.values, got, tt.want)
		}
	}
	if !math.IsNaN(middle(nil)) {
		t.Error("the middle of nothing is a number")
	}
	// The median of the pairs is not the ratio of the medians.
	if f := pairs("x", "", []float64{10, 40, 90}, []float64{10, 20, 30}); f.Value != 2 || f.Low != 1 || f.High != 3 {
		t.Errorf("pairs: %+v", f)
	}
	b := burst{acked: 10, seconds: 2, waits: []time.Duration{1, 2, 3, 4, 5}}
	if b.rate() != 5 || b.wait(0.5) != 3 || b.wait(1) != 5 || (burst{}).wait(0.5) != 0 {
		t.Errorf("rate %g, p50 %d", b.rate(), b.wait(0.5))
	}
	if got := slices.Sorted(maps.Keys(brokerNames)); !slices.Equal(got, slices.Sorted(slices.Values(brokerOrder()))) {
		t.Errorf("brokers with names are %v, in order %v", got, brokerOrder())
	}
}

func TestPeersCommand(t *testing.T) {
	cmd := peersCommand()
	cmd.SetArgs([]string{"--only", "mochi,activemq"})
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	if err := cmd.ExecuteContext(t.Context()); err == nil || !strings.Contains(err.Error(), "activemq: no such broker; there are holdfast, sink, sink-always, mochi") {
		t.Errorf("error is %v", err)
	}
}
