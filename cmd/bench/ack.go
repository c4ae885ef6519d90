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
	"golang.org/x/sys/unix"

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

// pace is what one measurement found.
type pace struct {
	what              string
	messages, flushes float64 // a second
}

// run measures the gateway and the plain logs, and prints the table.
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
	fmt.Fprintf(out, "the gateway, one client, %d publishes under way, for %s …\n", a.window, a.length)
	gateway, err := a.gateway(ctx, dir)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "a plain log on the same disk, twice %s …\n", a.length)
	single, err := plainLog(ctx, filepath.Join(dir, "single.log"), 1, a.payload, a.length)
	if err != nil {
		return err
	}
	group, err := plainLog(ctx, filepath.Join(dir, "group.log"), a.window, a.payload, a.length)
	if err != nil {
		return err
	}
	_, err = io.WriteString(out, ackTable([]pace{gateway, single, group}))
	return err
}

// ackTable writes the figures; the first is the gateway's, the last the plain log's
// that groups alike.
func ackTable(paces []pace) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "\tmessages/s\tflushes/s\tmessages per flush\t")
	for _, p := range paces {
		fmt.Fprintf(w, "%s\t%.0f\t%.0f\t%.1f\t\n", p.what, p.messages, p.flushes, p.messages/p.flushes)
	}
	w.Flush()
	fmt.Fprintf(&b, "R = gateway / plain log of equal groups = %.2f\n", paces[0].messages/paces[len(paces)-1].messages)
	return b.String()
}

// gateway measures one client at a gateway: the one given, or one of its own.
func (a *ackRun) gateway(ctx context.Context, dir string) (pace, error) {
	mqtt, status, connection := a.mqtt, a.status, a.connection
	if mqtt == "" {
		kids := newChildren(dir)
		defer kids.close()
		g, key, err := ackGateway(ctx, kids, a.bin)
		if g != nil && g.child != nil {
			defer g.child.stop(10 * time.Second)
		}
		if err != nil {
			return pace{}, err
		}
		mqtt, status = g.mqtt, g.status
		connection = "HostName=" + hubHost + ";DeviceId=bench;SharedAccessKey=" + key
	}
	d, acked, err := ackDevice(connection, mqtt, a.window, a.payload)
	if err != nil {
		return pace{}, err
	}
	ctx, stop := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() { d.Run(ctx); close(ended) }()
	defer func() { stop(); <-ended }()
	d.send(1<<30, 0)
	return a.measure(ctx, d, acked, status)
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

// measure looks at both ends of a stretch of steady publishing.
func (a *ackRun) measure(ctx context.Context, d *device, acked *atomic.Int64, addr string) (pace, error) {
	begun, err := until(ctx, startTimeout, func() bool { return acked.Load() >= int64(10*a.window) })
	if err != nil {
		return pace{}, err
	}
	if !begun {
		_, _, _, err := d.state()
		return pace{}, fmt.Errorf("publish: %d acknowledged within %s (last error: %v)", acked.Load(), startTimeout, err)
	}
	client := &http.Client{Timeout: 2 * time.Second}
	before, err := readStatus(ctx, client, addr)
	if err != nil {
		return pace{}, err
	}
	n, start := acked.Load(), time.Now()
	if !pause(ctx, a.length) {
		return pace{}, ctx.Err()
	}
	span, n := time.Since(start).Seconds(), acked.Load()-n
	after, err := readStatus(ctx, client, addr)
	if err != nil {
		return pace{}, err
	}
	flushes := after.Store.Commits - before.Store.Commits
	if flushes == 0 {
		return pace{}, fmt.Errorf("publish: %d acknowledged without a single flush", n)
	}
	return pace{fmt.Sprintf("gateway, %d under way", a.window), float64(n) / span, float64(flushes) / span}, nil
}

// plainLog appends messages to a file, flushing after each group: what the disk
// can do if nothing else is done.
func plainLog(ctx context.Context, path string, group, payload int, length time.Duration) (pace, error) {
	f, err := os.Create(path)
	if err != nil {
		return pace{}, fmt.Errorf("measure a plain log: %w", err)
	}
	defer os.Remove(path)
	defer f.Close()
	buf := []byte(strings.Repeat("x", max(1, payload)*group))
	start, flushes := time.Now(), 0
	for time.Since(start) < length && ctx.Err() == nil {
		if _, err := f.Write(buf); err != nil {
			return pace{}, fmt.Errorf("measure a plain log: %w", err)
		}
		if err := unix.Fdatasync(int(f.Fd())); err != nil {
			return pace{}, fmt.Errorf("measure a plain log: flush: %w", err)
		}
		flushes++
	}
	span := time.Since(start).Seconds()
	what := "plain log, flushed for each message"
	if group > 1 {
		what = fmt.Sprintf("plain log, flushed for each %d", group)
	}
	return pace{what, float64(flushes*group) / span, float64(flushes) / span}, ctx.Err()
}

// inMemory says whether a folder is on tmpfs.
func inMemory(dir string) bool {
	var s unix.Statfs_t
	return unix.Statfs(dir, &s) == nil && s.Type == unix.TMPFS_MAGIC
}
