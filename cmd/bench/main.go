// Command bench shows and measures what the gateway promises: that nothing it has
// acknowledged is lost, whoever dies.
//
//	bench outage    devices send while the uplink is cut and the gateway is killed;
//	                a table says what became of every message
//	bench ack       how many messages one client gets through for one disk flush
//	bench steady, ingest, backlog, drain, memory, reopen, full, latency
//	                the store by itself, beside a plain log, badger and bbolt
//	bench powercut  the power goes while a store works, again and again
//	bench peers     other brokers and stores, on the same disk
//	bench all       all of these that measure, as one page
//
// In an outage everything is real but the cloud: the gateway and the stand-in hub are
// processes of their own, started from --bin, and the devices are MQTT connections that
// behave as the SDKs do. The few types are device (a publisher that numbers its
// messages and sends again what nobody acknowledged), relay (the uplink, which can
// be cut), child (a process that can be killed), and tally (what was sent,
// acknowledged and has arrived, and the verdict over it). The tally trusts nobody:
// the devices say what was acknowledged, the hub says what arrived, and the
// gateway's own figures are shown but never believed.
//
// A measurement is a trial: contenders that take turns on one bed (a disk, perhaps one
// that counts or is slow), figures with their targets, and a report. What was read back
// is compared with what was kept, whoever the contender is.
//
// Child processes die with this one. A work folder made by bench is removed when
// all is well and kept, its path printed, when not.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

func main() {
	// The children are in process groups of their own, so Ctrl-C reaches only this
	// process, which stops them in order.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := command().ExecuteContext(ctx)
	stop()
	switch {
	case errors.Is(err, context.Canceled):
		fmt.Fprintln(os.Stderr, "bench: interrupted")
		os.Exit(130) // as a shell says it
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func command() *cobra.Command {
	root := &cobra.Command{
		Use:           "bench",
		Short:         "Show and measure what the gateway promises",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.CompletionOptions.DisableDefaultCmd = true
	root.AddCommand(outageCommand(), ackCommand(),
		ingestCommand(), steadyCommand(), backlogCommand(), drainCommand(), memoryCommand(), reopenCommand(), fullCommand(), latencyCommand(),
		powercutCommand(), peersCommand(), allCommand(),
		serveDiskCommand(), holdStoreCommand(), openStoreCommand(), floodStoreCommand(), accountStoreCommand())
	return root
}
