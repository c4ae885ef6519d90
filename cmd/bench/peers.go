package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// peersRun is Holdfast beside what a user would take instead, in one run, on one
// disk, in turn.
//
// Three tables in one: MQTT clients that publish with QoS 1 through each broker;
// the stores below, without MQTT; and what each broker still has of what it had
// acknowledged when it is killed. Every broker is a child process with a folder
// and loopback ports of its own. Only the one that is measured runs: the others
// are stopped with SIGSTOP meanwhile, so that nobody pays for another's idle work.
type peersRun struct {
	bin     string
	dir     string
	quick   bool
	only    []string // ids of the brokers to measure; empty: all
	self    []string // command line that runs this program again, for the peers that are libraries
	env     []string // added to the environment of the gateway
	ports   *ports
	report  *report
	paces   peersPaces
	brokers []*broker // those that are running
	out     io.Writer // where progress is told
	begun   time.Time
}

// peersPaces is how long things take.
type peersPaces struct {
	rounds       int
	warm, length time.Duration // of one measurement
	publish      time.Duration // before a broker is killed
	quiet        time.Duration // without an arrival: nothing more will come
}

// The long form takes about eight minutes, the quick one some 20 s.
func (p *peersRun) pace() {
	p.paces = peersPaces{rounds: 5, warm: 300 * time.Millisecond, length: 1500 * time.Millisecond,
		publish: 1500 * time.Millisecond, quiet: 3 * time.Second}
	if p.quick {
		p.paces = peersPaces{rounds: 2, warm: 100 * time.Millisecond, length: 300 * time.Millisecond,
			publish: 200 * time.Millisecond, quiet: time.Second}
	}
}

func peersCommand() *cobra.Command {
	p := peersRun{ports: &ports{}}
	cmd := &cobra.Command{
		Use:   "peers",
		Short: "Measure Holdfast against other brokers and stores on the same disk",
		Long: `MQTT clients publish with QoS 1 to the gateway and to mochi, mosquitto, RabbitMQ and
NATS JetStream, whichever of them are there, in turn, with a persistent subscriber
that is away, so that what is taken must be kept. Then the stores without MQTT, and
what each broker still has of what it had acknowledged when it is killed. Rows in
which the gateway loses are shown like the others.

mosquitto and RabbitMQ come from packages of the system ("make peers" installs them);
one that is missing is skipped with a word. Their processes are children of this one
with folders of their own under --dir; what runs on this machine is not touched.
The SD card model needs root, loop devices and /dev/fuse.`,
		Args: cobra.NoArgs,
	}
	m := measureFlags(cmd)
	cmd.Flags().StringVar(&p.bin, "bin", "bin", "`folder` of the holdfast and hubsim binaries")
	cmd.Flags().StringSliceVar(&p.only, "only", nil, "measure only these `brokers` beside the gateway, e.g. rabbitmq,mochi")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := p.checkOnly(); err != nil {
			return err
		}
		exe, err := os.Executable()
		if err != nil {
			return fmt.Errorf("find this program: %w", err)
		}
		p.self, p.quick, p.out = []string{exe, "peers", "serve"}, m.quick, cmd.ErrOrStderr()
		p.report = newReport(cmd, "Holdfast and its peers: MQTT QoS 1, 256-byte messages, acknowledged")
		p.pace()
		return p.run(cmd.Context(), m.dir, cmd.OutOrStdout())
	}
	cmd.AddCommand(serveCommand())
	return cmd
}

func (p *peersRun) checkOnly() error {
	for _, id := range p.only {
		if _, ok := brokerNames[id]; !ok {
			return fmt.Errorf("--only %s: no such broker; there are %s", id, knownBrokers())
		}
	}
	return nil
}

// run measures everything and prints what was measured, also when it ends early.
// The work folder stays when it failed.
func (p *peersRun) run(ctx context.Context, dir string, out io.Writer) error {
	dir, temporary, err := workDir(dir)
	if err != nil {
		return err
	}
	p.dir, p.begun = dir, time.Now()
	if inMemory(dir) {
		p.report.note("note: %s is in memory, where a flush costs nothing; give a folder on a disk with --dir", dir)
	}
	err = errors.Join(p.measure(ctx), p.stop())
	switch {
	case err != nil && !errors.Is(err, context.Canceled):
		p.tell("logs and data of the brokers are kept in %s", dir)
	case temporary:
		err = errors.Join(err, os.RemoveAll(dir))
	}
	return errors.Join(err, p.report.print(out))
}

func (p *peersRun) measure(ctx context.Context) error {
	p.missing()
	for _, l := range p.loads() {
		if err := p.measureLoad(ctx, l); err != nil {
			return err
		}
	}
	if err := p.measureStores(ctx); err != nil {
		return err
	}
	return p.measureLosses(ctx)
}

// missing says once which brokers are not there.
func (p *peersRun) missing() {
	for _, id := range p.chosen() {
		if why := p.absent(id); why != "" {
			p.report.skip("peer-"+id, brokerNames[id], why)
		}
	}
}

// present lists the brokers to measure that are there, the gateway first.
func (p *peersRun) present() []string {
	var out []string
	for _, id := range p.chosen() {
		if p.absent(id) == "" {
			out = append(out, id)
		}
	}
	return out
}

// start starts the brokers, all at once, each in a new folder of the work folder,
// and leaves them running.
func (p *peersRun) start(ctx context.Context, ids []string, label string) error {
	results := make([]chan error, len(ids))
	for i, id := range ids {
		b, err := p.broker(id, filepath.Join(p.dir, strings.ReplaceAll(label, " ", "")+"-"+id))
		if err != nil {
			return err
		}
		p.brokers = append(p.brokers, b)
		results[i] = make(chan error, 1)
		go func() { results[i] <- b.begin(ctx) }()
	}
	begun := slices.Clone(p.brokers[len(p.brokers)-len(ids):])
	errs := make([]error, len(ids))
	for i, r := range results {
		errs[i] = <-r
	}
	for i, err := range errs {
		if err == nil {
			continue
		}
		if err := p.giveUp(ctx, begun[i], label, fmt.Errorf("start %s: %w", ids[i], err)); err != nil {
			return err
		}
	}
	return nil
}

// giveUp goes on without a peer that has failed: that is its row. Without the
// gateway there is nothing to go on with.
func (p *peersRun) giveUp(ctx context.Context, b *broker, what string, err error) error {
	if b.id == "holdfast" || ctx.Err() != nil {
		return err
	}
	p.tell("going on without %s: %v", b.name, err)
	why, _, _ := strings.Cut(err.Error(), "\n")
	p.report.skip("peer-"+b.id, what+": "+b.name, why)
	p.brokers = slices.DeleteFunc(p.brokers, func(o *broker) bool { return o == b })
	return b.end()
}

// stop ends every broker that is running and removes its data.
func (p *peersRun) stop() error {
	var errs []error
	for _, b := range p.brokers {
		errs = append(errs, b.end())
	}
	p.brokers = nil
	return errors.Join(errs...)
}

// freeze stops every broker but one from running.
func (p *peersRun) freeze(but *broker) {
	for _, b := range p.brokers {
		if b != but {
			b.freeze()
		}
	}
	if but != nil {
		but.thaw()
	}
}

func (p *peersRun) tell(format string, args ...any) {
	if p.out != nil {
		fmt.Fprintf(p.out, "%6.1fs  "+format+"\n", append([]any{time.Since(p.begun).Seconds()}, args...)...)
	}
}
