package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"holdfast.dev/holdfast/hub/iothub/hubtest"
)

// run serves until ctx ends.
func run(ctx context.Context, o options, stdout io.Writer, log *slog.Logger) (err error) {
	cfg, err := o.config()
	if err != nil {
		return err
	}
	devices, err := parseDevices(o.devices)
	if err != nil {
		return err
	}
	cfg.Log = log
	if o.received != "" {
		f, err := os.OpenFile(o.received, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
		if err != nil {
			return fmt.Errorf("open received messages: %w", err)
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		cfg.Received = f
	}
	h, err := hubtest.New(cfg)
	if err != nil {
		return err
	}
	if err := register(h, devices); err != nil {
		return errors.Join(err, abandon(h))
	}
	if o.caOut != "" {
		if err := writeFile(o.caOut, h.CAPEM()); err != nil {
			return errors.Join(err, abandon(h))
		}
	}
	greet(stdout, h, o)
	return h.Run(ctx)
}

// abandon ends a hub that has not run, and saves its state.
func abandon(h *hubtest.Hub) error {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return h.Run(ctx)
}

// register puts the devices in once all their parents are known.
func register(h *hubtest.Hub, devices []hubtest.Device) error {
	gateways := map[string]bool{}
	for _, d := range append(h.Devices(), devices...) {
		gateways[d.ID] = d.Edge
	}
	for _, d := range devices {
		if d.Parent != "" && !gateways[d.Parent] {
			return usageError{fmt.Errorf("--device %s: parent %s is not a gateway; give --device %[2]s,edge too", d.ID, d.Parent)}
		}
	}
	for _, d := range devices {
		h.Put(d)
	}
	return nil
}

// writeFile writes text beside the file and puts it in place, so that whoever
// waits for the file never reads half of it.
func writeFile(name string, text []byte) error {
	f, err := os.CreateTemp(filepath.Dir(name), filepath.Base(name)+".*")
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Chmod(0o644), f.Close()); err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		os.Remove(f.Name())
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

// greet prints what a person needs to connect something, in one write: who waits for
// it, a script for example, has all of it or nothing.
func greet(w io.Writer, h *hubtest.Hub, o options) {
	var text bytes.Buffer
	t := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "hubsim %s, a stand-in for Azure IoT Hub: %s\n\n", version, h.Host())
	fmt.Fprintf(t, "MQTT over TLS\t%s\n", h.MQTTAddr())
	fmt.Fprintf(t, "HTTPS, WebSocket\thttps://%s\n", h.HTTPSAddr())
	if addr := h.ControlAddr(); addr != "" {
		fmt.Fprintf(t, "control\thttp://%s/sim/state\n", addr)
	}
	fmt.Fprintf(t, "CA to trust\t%s\n", cmp.Or(o.caOut, "write it with --ca-out FILE"))
	fmt.Fprintf(t, "service\t%s\n\n", h.PolicyConnectionString())
	t.Flush()
	fmt.Fprintln(t, "DEVICE\tBEHIND\tSTATUS\tCONNECTION STRING")
	for _, d := range h.Devices() {
		status := "enabled"
		if d.Disabled {
			status = "disabled"
		}
		name := d.ID
		if strings.Contains(name, "/") {
			name = "  " + name
		} else if d.Edge {
			name += " (gateway)"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", name, cmp.Or(d.Parent, "-"), status, h.ConnectionString(d.ID))
	}
	t.Flush()
	w.Write(text.Bytes()) // who does not read it does not want it
}
