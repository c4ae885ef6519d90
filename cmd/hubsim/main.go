// Command hubsim is a stand-in for Azure IoT Hub, for a laptop without a cloud.
//
//	hubsim --device gw,edge --device sensor,parent=gw
//
// It listens for MQTT over TLS and for HTTPS, prints a connection string for each
// device, and runs until SIGINT or SIGTERM. Device and service SDKs work against
// it as against the real one; package hub/iothub/hubtest says what it does and
// what it does not. What has arrived is read, and faults are switched on and off,
// over plain HTTP on the control address:
//
//	curl http://127.0.0.1:28080/sim/messages?after=0
//	curl -X PUT -d '{"down":true}' http://127.0.0.1:28080/sim/faults
//
// Exit statuses are 0 (ended by a signal), 1 (a fault at run time) and 2 (wrong
// arguments).
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

// version is set by the linker.
var version = "unknown"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	os.Exit(execute(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// execute is the program without its process; it gives the exit status.
func execute(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	cmd := command(stdout, stderr)
	cmd.SetArgs(args)
	cmd.SetOut(stdout)
	cmd.SetErr(stderr)
	err := cmd.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	fmt.Fprintln(stderr, "hubsim:", err)
	if hint := hintFor(err); hint != "" {
		fmt.Fprintln(stderr, "hint:", hint)
	}
	var usage usageError
	if errors.As(err, &usage) {
		return 2
	}
	return 1
}

// usageError is a fault of the command line.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// hintFor says what to do about err, or "".
func hintFor(err error) string {
	var usage usageError
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return "another program listens there, a second hubsim or the gateway perhaps; give another address with --mqtt, --https or --control"
	case errors.Is(err, syscall.EACCES):
		return "ports below 1024 need root, and files their permission; give another address or file"
	case errors.As(err, &usage):
		return `"hubsim --help" lists all flags`
	}
	return ""
}

func command(stdout, stderr io.Writer) *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use:           "hubsim",
		Short:         "a stand-in for Azure IoT Hub",
		Example:       "  hubsim --device gw,edge --device sensor,parent=gw --ca-out hub-ca.pem",
		Version:       version,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{fmt.Errorf("argument %q is not expected", args[0])}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			level := slog.LevelInfo
			if o.verbose {
				level = slog.LevelDebug
			}
			log := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: level}))
			return run(cmd.Context(), o, stdout, log)
		},
	}
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	o.flags(cmd)
	return cmd
}
