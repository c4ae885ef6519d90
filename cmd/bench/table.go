package main

import (
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"
)

// table writes the rows and their sum.
func table(rows []row) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "device\tkind\tsent\tacknowledged\tarrived\tlost\trepeated by device\tby gateway\tout of order\t")
	var sum row
	var lost int
	for _, r := range rows {
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t\n", r.name, r.kind, r.sent, r.acked, r.arrived,
			len(r.lost), r.deviceRepeats, r.gatewayRepeats, r.outOfOrder)
		sum.sent, sum.acked, sum.arrived = sum.sent+r.sent, sum.acked+r.acked, sum.arrived+r.arrived
		sum.deviceRepeats, sum.gatewayRepeats = sum.deviceRepeats+r.deviceRepeats, sum.gatewayRepeats+r.gatewayRepeats
		sum.outOfOrder, lost = sum.outOfOrder+r.outOfOrder, lost+len(r.lost)
	}
	fmt.Fprintf(w, "all\t\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t\n", sum.sent, sum.acked, sum.arrived, lost,
		sum.deviceRepeats, sum.gatewayRepeats, sum.outOfOrder)
	w.Flush()
	return b.String()
}

// verdict prints the table and says what is wrong, as an error, or that nothing is.
func (o *outage) verdict() error {
	l := o.p.bounds(o.gw.window)
	rows := o.tally.rows(l)
	o.con.text("\n" + table(rows) + "\n")
	o.con.text(fmt.Sprintf("Repeats carry what a receiver needs to drop them: by device, the same message number again because the\n"+
		"gateway's death swallowed its acknowledgement (at most %d a device here); by gateway, the same holdfast-id\n"+
		"again because the uplink's end or a death swallowed the hub's (at most %d).\n", l.device, l.gateway))
	if o.watch != nil {
		o.con.text(fmt.Sprintf("While the cloud was gone a local subscriber heard %d messages, of %d that were acknowledged to MQTT accounts.\n",
			o.local.heard, o.local.acked))
	}
	wrong := o.wrong(rows)
	if len(wrong) == 0 {
		o.con.text("Nothing acknowledged was lost.\n\n")
		return nil
	}
	return errors.New("the promise was not kept:\n  " + strings.Join(wrong, "\n  "))
}

// wrong says what must not be, in words.
func (o *outage) wrong(rows []row) []string {
	var out []string
	for i, r := range rows {
		out = append(out, r.wrong...)
		if r.sent == 0 {
			out = append(out, r.name+": sent nothing")
		}
		if waits := r.sent - r.acked; waits > 0 {
			_, _, _, err := o.devices[i].state()
			out = append(out, fmt.Sprintf("%s: %d were never acknowledged (%v)", r.name, waits, err))
		}
		if _, _, strays, _ := o.devices[i].state(); strays > 0 {
			out = append(out, fmt.Sprintf("%s: %d acknowledgements were for nothing under way", r.name, strays))
		}
	}
	v := o.view()
	if v.backlog > 0 || v.parked > 0 {
		out = append(out, fmt.Sprintf("the gateway still has %d messages in its queues and %d parked", v.backlog, v.parked))
	}
	if v.gateway {
		out = append(out, v.ledger.wrong(o.tally.acked.Load())...)
	} else {
		out = append(out, "the gateway does not answer")
	}
	if o.watch != nil && o.local.acked > 0 && o.local.heard == 0 {
		out = append(out, "the local subscriber heard nothing during the outage")
	}
	return out
}
