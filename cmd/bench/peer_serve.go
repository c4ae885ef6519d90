package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"time"

	mochi "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/hooks/auth"
	"github.com/mochi-mqtt/server/v2/listeners"
	nats "github.com/nats-io/nats-server/v2/server"
	"github.com/spf13/cobra"
)

// served is how a peer that is a library is run.
type served struct {
	mqtt, native string // addresses
	dir          string
	always       bool

	// Of a store, that is measured by its own process.
	load         load
	warm, length time.Duration
	result       string // file that gets the figures
}

// serveCommand is the process of a peer that is a Go library; "bench peers"
// starts it.
func serveCommand() *cobra.Command {
	var s served
	cmd := &cobra.Command{Use: "serve KIND", Hidden: true, Args: cobra.ExactArgs(1)}
	cmd.Flags().StringVar(&s.mqtt, "mqtt", "", "`address` of MQTT")
	cmd.Flags().StringVar(&s.native, "native", "", "`address` of its own protocol")
	cmd.Flags().StringVar(&s.dir, "dir", "", "`folder` of its data")
	cmd.Flags().BoolVar(&s.always, "always", false, "flush each message")
	cmd.Flags().IntVar(&s.load.clients, "producers", 1, "`number` of producers")
	cmd.Flags().IntVar(&s.load.window, "in-flight", 1, "messages of each that are under way")
	cmd.Flags().DurationVar(&s.warm, "warm", 0, "before anything counts")
	cmd.Flags().DurationVar(&s.length, "for", time.Second, "how long it counts")
	cmd.Flags().StringVar(&s.result, "result", "", "`file` that gets the figures")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		switch args[0] {
		case "storage", "badger":
			return s.stores(cmd.Context(), args[0])
		case "sink":
			return s.sink(cmd.Context())
		case "mochi":
			return s.mochi(cmd.Context())
		case "nats":
			return s.nats(cmd.Context())
		}
		return fmt.Errorf("serve %s: want sink, mochi, nats, storage or badger", args[0])
	}
	return cmd
}

// mochi is the broker that the gateway is built on, as its example runs it: any
// client may do anything, nothing is stored.
func (s served) mochi(ctx context.Context) error {
	srv := mochi.New(&mochi.Options{Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))})
	if err := srv.AddHook(new(auth.AllowHook), nil); err != nil {
		return fmt.Errorf("serve mochi: %w", err)
	}
	if err := srv.AddListener(listeners.NewTCP(listeners.Config{ID: "mqtt", Address: s.mqtt})); err != nil {
		return fmt.Errorf("serve mochi: %w", err)
	}
	if err := srv.Serve(); err != nil {
		return fmt.Errorf("serve mochi: %w", err)
	}
	<-ctx.Done()
	return srv.Close()
}

// nats is a NATS server as its documentation sets it up for MQTT, on file storage.
func (s served) nats(ctx context.Context) error {
	o := &nats.Options{ServerName: "bench", JetStream: true, StoreDir: s.dir, SyncAlways: s.always, NoSigs: true, NoLog: true}
	for addr, to := range map[string]struct {
		host *string
		port *int
	}{s.native: {&o.Host, &o.Port}, s.mqtt: {&o.MQTT.Host, &o.MQTT.Port}} {
		host, port := splitPort(addr)
		n, err := strconv.Atoi(port)
		if err != nil {
			return fmt.Errorf("serve nats: address %q: %w", addr, err)
		}
		*to.host, *to.port = host, n
	}
	srv, err := nats.NewServer(o)
	if err != nil {
		return fmt.Errorf("serve nats: %w", err)
	}
	srv.Start()
	if !srv.ReadyForConnections(startTimeout) {
		return errors.New("serve nats: it is not ready in time")
	}
	<-ctx.Done()
	srv.Shutdown()
	srv.WaitForShutdown()
	return nil
}
