package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"holdfast.dev/holdfast/hub/wire"
)

// ackRun is one measurement of acknowledgements.
type ackRun struct {
	window, payload int
	length          time.Duration
	dir, bin        string
	mqtt, status    string // of a gateway that runs already
	connection      string // a device's connection string there
}

func ackCommand() *cobra.Command {
	var a ackRun
	cmd := &cobra.Command{
		Use:   "ack",
		Short: "Measure how many messages one client gets through for one disk flush",
		Long: `One IoT Hub device publishes at full speed with a window of messages under way, to a
gateway of its own without a cloud or to one that runs. The figures of a plain log
on the same disk stand beside it: one fdatasync for each message, and one for each
group as large as the window.`,
		Args: cobra.NoArgs,
	}
	f := cmd.Flags()
	f.IntVar(&a.window, "in-flight", 20, "`publishes` under way")
	f.IntVar(&a.payload, "payload", 128, "`bytes` of a message's body")
	f.DurationVar(&a.length, "for", 5*time.Second, "how long each measurement takes")
	f.StringVar(&a.dir, "dir", "", "work `folder` on the disk to measure; a temporary one if not given")
	f.StringVar(&a.bin, "bin", "bin", "`folder` of the holdfast binary")
	f.StringVar(&a.mqtt, "mqtt", "", "plain MQTT `address` of a gateway that runs already")
	f.StringVar(&a.status, "status", "", "its status page's `address`")
	f.StringVar(&a.connection, "connection", "", "connection `string` of a device there")
	cmd.MarkFlagsRequiredTogether("mqtt", "status", "connection")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if a.window < 1 || a.window > 1000 || a.payload < 0 || a.payload > 200<<10 || a.length < time.Second {
			return errors.New("want --in-flight 1 to 1000, --payload 0 to 204800, --for 1s or more")
		}
		return a.run(cmd.Context(), cmd.OutOrStdout())
	}
	return cmd
}

// pace is what was found of one contender, over all rounds.
type pace struct {
	what              string
	messages, flushes float64
	seconds           float64
}

func (p *pace) add(q pace) {
	p.messages, p.flushes, p.seconds = p.messages+q.messages, p.flushes+q.flushes, p.seconds+q.seconds
}

// ackRounds is how often the contenders take turns: a disk that others use, too,
// is slow for all of them then.
const ackRounds = 5

// run measures the gateway and the plain logs in turn, and prints the table.
func (a *ackRun) run(ctx context.Context, out io.Writer) error {
	dir, temporary, err := workDir(a.dir)
	if err != nil {
		return err
	}
	if temporary {
		defer os.RemoveAll(dir)
	}
	if inMemory(dir) {
		fmt.Fprintf(out, "note: %s is in memory, where a flush costs nothing; give a folder on a disk with --dir\n", dir)
	}
	g, err := a.begin(ctx, dir)
	if g != nil {
		defer g.end()
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "one client of the gateway with %d publishes under way, and plain logs on the same disk, %s each, in turn …\n", a.window, a.length)
	paces := []pace{
		{what: fmt.Sprintf("gateway, %d under way", a.window)},
		{what: "plain log, flushed for each message"},
		{what: fmt.Sprintf("plain log, flushed for each %d", a.window)},
	}
	round := a.length / ackRounds
	for range ackRounds {
		for i, measure := range []func() (pace, error){
			func() (pace, error) { return g.measure(ctx, round) },
			func() (pace, error) { return plainLog(ctx, filepath.Join(dir, "single.log"), 1, a.payload, round) },
			func() (pace, error) {
				return plainLog(ctx, filepath.Join(dir, "group.log"), a.window, a.payload, round)
			},
		} {
			p, err := measure()
			if err != nil {
				return err
			}
			paces[i].add(p)
		}
	}
	_, err = io.WriteString(out, ackTable(paces))
	return err
}

// ackTable writes the figures; the first is the gateway's, the last the plain log's
// that groups alike.
func ackTable(paces []pace) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "\tmessages/s\tflushes/s\tmessages per flush\t")
	for _, p := range paces {
		fmt.Fprintf(w, "%s\t%.0f\t%.0f\t%.1f\t\n", p.what, p.messages/p.seconds, p.flushes/p.seconds, p.messages/p.flushes)
	}
	w.Flush()
	first, last := paces[0], paces[len(paces)-1]
	fmt.Fprintf(&b, "R = gateway / plain log of equal groups = %.2f\n", first.messages/first.seconds/(last.messages/last.seconds))
	return b.String()
}

// ackSubject is a gateway and its one client.
type ackSubject struct {
	kids   *children // nil if the gateway is somebody else's
	own    *gateway
	status string
	device *device
	acked  *atomic.Int64
	window int
	client http.Client
	stop   func()
}

// begin connects to the gateway that is given, or to one of its own. What it gives
// beside an error is to be ended, too.
func (a *ackRun) begin(ctx context.Context, dir string) (*ackSubject, error) {
	s := &ackSubject{status: a.status, window: a.window, stop: func() {}, client: http.Client{Timeout: 2 * time.Second}}
	mqtt, connection := a.mqtt, a.connection
	if mqtt == "" {
		s.kids = newChildren(dir)
		g, key, err := ackGateway(ctx, s.kids, a.bin)
		s.own = g
		if err != nil {
			return s, err
		}
		mqtt, s.status = g.mqtt, g.status
		connection = "HostName=" + hubHost + ";DeviceId=bench;SharedAccessKey=" + key
	}
	var err error
	if s.device, s.acked, err = ackDevice(connection, mqtt, a.window, a.payload); err != nil {
		return s, err
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() { s.device.Run(ctx); close(ended) }()
	s.stop = func() { cancel(); <-ended }
	return s, nil
}

// end disconnects the client and stops what begin has started.
func (s *ackSubject) end() {
	s.stop()
	if s.own != nil && s.own.child != nil {
		s.own.child.stop(10 * time.Second)
	}
	if s.kids != nil {
		s.kids.close()
	}
}

// ackGateway starts a gateway whose cloud is away: port 9 (discard) refuses, so
// everything is kept.
func ackGateway(ctx context.Context, kids *children, bin string) (*gateway, string, error) {
	g, err := newGateway(kids, bin, &ports{}, false)
	if err != nil {
		return nil, "", err
	}
	var c gatewayConfig
	key := newKey()
	c.Device = []deviceConfig{{ID: "bench", PrimaryKey: key}}
	c.IoTHub.Connection = "HostName=" + hubHost + ";DeviceId=" + gatewayID + ";ModuleId=$edgeHub;SharedAccessKey=" + newKey()
	c.IoTHub.Address, c.IoTHub.HTTPS = loopback(9), loopback(9)
	if err := g.configure(c); err != nil {
		return nil, "", err
	}
	return g, key, g.start(ctx)
}

// ackDevice makes the client, and the count of what was acknowledged to it.
func ackDevice(connection, addr string, window, payload int) (*device, *atomic.Int64, error) {
	f := map[string]string{}
	for part := range strings.SplitSeq(connection, ";") {
		k, v, _ := strings.Cut(part, "=")
		f[k] = v
	}
	host, id := f["HostName"], f["DeviceId"]
	key, err := wire.DecodeKey(f["SharedAccessKey"])
	if host == "" || id == "" || err != nil {
		return nil, nil, errors.New("connection string: want HostName=…;DeviceId=…;SharedAccessKey=…")
	}
	var acked atomic.Int64
	d := newDevice(id, window, &record{name: id, payload: payload})
	d.onAck = func() { acked.Add(1) }
	d.topic = func(n int) string {
		return wire.TelemetryTopic(id, "", wire.NewBag(wire.MessageID, messageID(id, n)))
	}
	d.login = func() login {
		return login{addr: addr, clientID: id, keepAlive: keepAlive,
			user:   wire.User{Host: host, Device: id, APIVersion: "2021-04-12", ClientType: "holdfast-bench"}.String(),
			secret: wire.NewSAS(host, id, "", key, time.Now().Add(tokenLife))}
	}
	return d, &acked, nil
}

// measure lets the client publish for a while and looks at both ends of a stretch
// of it.
func (s *ackSubject) measure(ctx context.Context, length time.Duration) (pace, error) {
	s.device.send(1<<30, 0)
	defer s.device.halt()
	moving := s.acked.Load() + int64(10*s.window)
	begun, err := until(ctx, startTimeout, func() bool { return s.acked.Load() >= moving })
	if err != nil {
		return pace{}, err
	}
	if !begun {
		_, _, _, err := s.device.state()
		return pace{}, fmt.Errorf("publish: %d acknowledged within %s (last error: %v)", s.acked.Load(), startTimeout, err)
	}
	before, err := readStatus(ctx, &s.client, s.status)
	if err != nil {
		return pace{}, err
	}
	n, start := s.acked.Load(), time.Now()
	if !pause(ctx, length) {
		return pace{}, ctx.Err()
	}
	seconds, n := time.Since(start).Seconds(), s.acked.Load()-n
	after, err := readStatus(ctx, &s.client, s.status)
	if err != nil {
		return pace{}, err
	}
	flushes := after.Store.Commits - before.Store.Commits
	if flushes == 0 {
		return pace{}, fmt.Errorf("publish: %d acknowledged without a single flush", n)
	}
	return pace{messages: float64(n), flushes: float64(flushes), seconds: seconds}, nil
}
