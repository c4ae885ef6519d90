package main

import (
	"slices"
	"strings"
	"testing"
)

// play plays a short history of one device: "p3" published 3, "a3" acknowledged,
// "r3=x" arrived as 3 under the holdfast-id x, "r3" under none.
func play(t *testing.T, history string) *tally {
	t.Helper()
	tal := newTally()
	tal.add(&record{name: "d01", hubID: "d01", mid: true, payload: 64})
	other := &record{name: "d02", hubID: "d02", payload: 64}
	tal.add(other)
	other.publish(1)
	tal.arrive(arrival{Device: "d02", Props: map[string]string{"holdfast-id": "theirs"}, Body: body("d02", 1, 64)})
	for word := range strings.FieldsSeq(history) {
		n := int(word[1] - '0')
		switch word[0] {
		case 'p':
			tal.byName["d01"].publish(n)
		case 'a':
			if tal.byName["d01"].ack(n) {
				tal.acked.Add(1)
			}
		case 'r':
			_, id, ok := strings.Cut(word, "=")
			a := arrival{Device: "d01", Props: map[string]string{"$.mid": messageID("d01", n)}, Body: body("d01", n, 64)}
			if ok {
				a.Props["holdfast-id"] = id
			}
			if !tal.arrive(a) {
				t.Fatalf("%s is not from a device", word)
			}
		}
	}
	return tal
}

func TestVerdicts(t *testing.T) {
	tests := []struct {
		name, history string
		want          row
		wrong         string // a part of the only complaint; "" if all is well
	}{
		{"all well", "p1 a1 p2 a2 r1=x r2=y", row{sent: 2, acked: 2, arrived: 2}, ""},
		{"still under way", "p1 p2", row{sent: 2}, ""},
		{"arrived though not acknowledged", "p1 r1=x", row{sent: 1, arrived: 1}, ""},
		{"lost", "p1 a1 p2 a2 p3 a3 r2=y", row{sent: 3, acked: 3, arrived: 1, lost: []int{1, 3}}, "2 acknowledged messages were lost: numbers 1 3"},
		{"repeated by the device", "p1 p2 r1=x p1 p2 a1 a2 r2=y r1=z r2=w", row{sent: 2, acked: 2, arrived: 2, deviceRepeats: 2}, ""},
		{"more device repeats than a window", "p1 p1 p2 p2 p3 p3 r1=a r2=b r3=c r1=d r2=e r3=f a1 a2 a3",
			row{sent: 3, acked: 3, arrived: 3, deviceRepeats: 3}, "by the device's repeats, at most 2"},
		{"renamed by the gateway", "p1 a1 r1=x r1=y", row{sent: 1, acked: 1, arrived: 1, deviceRepeats: 1}, "under a new holdfast-id"},
		{"repeated by the gateway", "p1 a1 p2 a2 r1=x r2=y r1=x r2=y", row{sent: 2, acked: 2, arrived: 2, gatewayRepeats: 2}, ""},
		{"more gateway repeats than explained", "p1 a1 r1=x r1=x r1=x r1=x r1=x", row{sent: 1, acked: 1, arrived: 1, gatewayRepeats: 4}, "by the gateway's repeats, at most 3"},
		{"overtaken", "p1 a1 p2 a2 p3 a3 r1=x r3=y r2=z", row{sent: 3, acked: 3, arrived: 3, outOfOrder: 1}, "1 arrived after a later one"},
		{"a repeated run is in order", "p1 p2 p3 r1=a r2=b r3=c p1 p2 p3 r1=d r2=e r3=f a1 a2 a3", row{sent: 3, acked: 3, arrived: 3, deviceRepeats: 3}, "at most 2"},
		{"a gap that is filled by the repeat", "p1 p2 r1=a p1 p2 a1 a2 r1=b r2=c", row{sent: 2, acked: 2, arrived: 2, deviceRepeats: 1}, ""},
		{"never sent", "p1 a1 r1=x r2=y", row{sent: 1, acked: 1, arrived: 1}, "never sent"},
		{"nameless", "p1 a1 r1", row{sent: 1, acked: 1, arrived: 1}, "without a holdfast-id"},
		{"another's id", "p1 a1 r1=theirs", row{sent: 1, acked: 1, arrived: 1}, "another message's holdfast-id"},
		{"one id for two", "p1 a1 p2 a2 r1=x r2=x", row{sent: 2, acked: 2, arrived: 2}, "another message's holdfast-id"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := play(t, tt.history).rows(limits{device: 2, gateway: 3})[0]
			if got.sent != tt.want.sent || got.acked != tt.want.acked || got.arrived != tt.want.arrived ||
				!slices.Equal(got.lost, tt.want.lost) || got.deviceRepeats != tt.want.deviceRepeats ||
				got.gatewayRepeats != tt.want.gatewayRepeats || got.outOfOrder != tt.want.outOfOrder {
				t.Errorf("row is %+v, want %+v", got, tt.want)
			}
			switch all := strings.Join(got.wrong, "\n"); {
			case tt.wrong == "" && all != "":
				t.Errorf("complaint %q, want none", all)
			case len(got.wrong) > 1 || !strings.Contains(all, tt.wrong):
				t.Errorf("complaint %q, want one with %q", all, tt.wrong)
			}
		})
	}
}

func TestArrivalIsCompared(t *testing.T) {
	good := func() arrival {
		return arrival{Device: "d01", Props: map[string]string{"$.mid": "d01-1", "holdfast-id": "x"}, Body: body("d01", 1, 64)}
	}
	tests := []struct {
		name   string
		change func(*arrival)
		wrong  string
	}{
		{"as sent", func(*arrival) {}, ""},
		{"another body", func(a *arrival) { a.Body = body("d01", 1, 65) }, "altered"},
		{"another identity", func(a *arrival) { a.Device = "d02" }, "another identity"},
		{"another message id", func(a *arrival) { a.Props["$.mid"] = "d01-2" }, "another identity or message id"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tal := play(t, "p1 a1")
			a := good()
			tt.change(&a)
			tal.arrive(a)
			got := strings.Join(tal.rows(limits{})[0].wrong, "\n")
			if (tt.wrong == "") != (got == "") || !strings.Contains(got, tt.wrong) {
				t.Errorf("complaint %q, want %q", got, tt.wrong)
			}
		})
	}
}

func TestTallyCounts(t *testing.T) {
	tal := play(t, "p1 a1 a1 p2 a2 r1=x r1=x p1 r1=y")
	if got := tal.acked.Load(); got != 2 {
		t.Errorf("acknowledged %d, want 2", got)
	}
	if got := tal.arrived.Load(); got != 2 { // one of d02
		t.Errorf("arrived %d, want 2", got)
	}
	if got := tal.missing(); got != 1 {
		t.Errorf("missing %d, want 1", got)
	}
	if tal.arrive(arrival{Device: "x", Body: []byte("hello")}) || tal.others.Load() != 1 {
		t.Errorf("a stranger's message was taken for a device's")
	}
}

func TestSome(t *testing.T) {
	for _, tt := range []struct {
		in   []int
		want string
	}{
		{[]int{7}, "7"},
		{[]int{1, 2, 3, 7, 9, 10}, "1-3 7 9-10"},
		{[]int{1, 3, 5, 7, 9, 11, 13}, "1 3 5 7 9 …"},
	} {
		if got := some(tt.in); got != tt.want {
			t.Errorf("some(%v) is %q, want %q", tt.in, got, tt.want)
		}
	}
}

func TestLedger(t *testing.T) {
	good := ledger{Accepted: 10, Delivered: 10}
	for _, tt := range []struct {
		name  string
		l     ledger
		acked int64
		wrong string
	}{
		{"all delivered", good, 10, ""},
		{"repeats are kept twice", good, 8, ""},
		{"does not add up", ledger{Accepted: 10, Delivered: 9}, 10, "does not add up"},
		{"expired", ledger{Accepted: 10, Delivered: 9, Expired: 1}, 10, "1 were expired"},
		{"unknown", good, 11, "knows of 10"},
		{"unrouted", ledger{Accepted: 9, Delivered: 9, Unrouted: 1}, 10, "no queue wanted 1"},
	} {
		got := strings.Join(tt.l.wrong(tt.acked), "\n")
		if (tt.wrong == "") != (got == "") || !strings.Contains(got, tt.wrong) {
			t.Errorf("%s: complaint %q, want %q", tt.name, got, tt.wrong)
		}
	}
}
