package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"holdfast.dev/holdfast/hal/link"
	"holdfast.dev/holdfast/hub"
	"holdfast.dev/holdfast/hub/console"
	"holdfast.dev/holdfast/hub/identity"
	"holdfast.dev/holdfast/hub/iothub"
	"holdfast.dev/holdfast/hub/mqtt"
	"holdfast.dev/holdfast/hub/web"
	"holdfast.dev/holdfast/storage"
)

// gateway is what run puts together.
type gateway struct {
	cfg     Config
	log     *slog.Logger
	lines   *ring
	started time.Time
	clock   storage.Clock

	state, queue *storage.DB
	certs        *Certs
	people       *identity.Directory
	cloud        *iothub.Upstream // nil without a cloud
	core         *hub.Core
	broker       *mqtt.Broker
	https        *Server
	page         *Server
}

// run is the gateway. It sets up, in this order, everything that can fail for a
// reason that a person must cure, so that they are told at once:
//
//	data          the folder that everything is kept in
//	stores        state (who may connect) and queue (messages, ledger)
//	certificates  read, or made
//	cloud         what the connection string says
//	people        devices and accounts: of the file, and of the last good scope
//	broker        MQTT: its listeners, and the sessions that are kept
//	hub           routes
//	listeners     the page, HTTPS
//
// and then keeps the services running until ctx ends.
func (p *Program) run(ctx context.Context, cfg Config, log *slog.Logger, lines *ring) error {
	g := &gateway{cfg: cfg, log: log, lines: lines, started: time.Now(), clock: storage.SystemClock()}
	log.Info("starting", "version", buildVersion(), "data", cfg.Data)
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"data", g.makeData},
		{"stores", g.openStores},
		{"certificates", g.openCertificates},
		{"cloud", g.openCloud},
		{"people", g.openPeople},
		{"broker", g.openBroker},
		{"hub", g.openHub},
		{"listeners", g.openListeners},
	} {
		if err := step.do(); err != nil {
			return errors.Join(fmt.Errorf("%s: %w", step.name, err), g.close())
		}
	}
	err := runGroup(ctx, log, g.services())
	err = errors.Join(err, g.close())
	log.Info("stopped")
	return err
}

// services in the order in which they start; they stop in the reverse order. The
// page and the console come first, so that everything after them can be watched;
// the broker last, so that nothing is taken in before there is a place for it.
func (g *gateway) services() []Service {
	list := []Service{
		{Name: "page", Run: g.page.Run},
		{Name: "console", Run: g.console().Run},
		{Name: "stores", Run: g.watchStores},
		{Name: "certificates", Run: g.certs.Run},
		{Name: "people", Run: g.people.Run},
	}
	if g.cloud != nil {
		list = append(list,
			Service{Name: "cloud", Run: func(ctx context.Context) error { return g.cloud.Run(ctx, g.core) }, Grace: 10 * time.Second},
			Service{Name: "forwarder", Run: g.forwarder().Run},
			Service{Name: "parole", Run: g.parole},
			Service{Name: "links", Run: func(ctx context.Context) error { return link.Watch(ctx, g.cloud.Wake) }},
		)
	}
	return append(list,
		Service{Name: "https", Run: g.https.Run},
		Service{Name: "broker", Run: func(ctx context.Context) error { return g.broker.Run(ctx, g.core) }},
	)
}

// console is where this gateway answers the commands that a person gives beside it.
func (g *gateway) console() *console.Server {
	log := g.log.With("service", "console")
	return &console.Server{
		Path: filepath.Join(g.cfg.Data, controlSocket), Log: log,
		Desk: &console.Desk{Queue: g.queue, Clock: g.clock, Log: log},
	}
}

func (g *gateway) makeData() error {
	if err := os.MkdirAll(g.cfg.Data, 0o700); err != nil {
		return withHint(err, "set data to a folder that the gateway's user may make and write")
	}
	return nil
}

func (g *gateway) openCertificates() (err error) {
	g.certs, err = openCerts(g.cfg.TLS, filepath.Join(g.cfg.Data, "tls"), g.log.With("service", "certificates"))
	if err == nil && g.certs.CA() != "" {
		g.log.Info("devices trust this gateway by its CA", "file", g.certs.CA())
	}
	return err
}

func (g *gateway) openBroker() (err error) {
	g.broker, err = mqtt.New(g.cfg.MQTT, mqtt.Deps{
		Gate: g.people, Store: g.queue, Clock: g.clock,
		TLS: g.certs.Config(), Gateway: g.self(), Log: g.log.With("service", "broker"),
	})
	return err
}

func (g *gateway) openListeners() error {
	g.page = &Server{
		Key: "[status] listen", Other: "127.0.0.1:9601", Listen: g.cfg.Status.Listen,
		Handler: web.New(g.status), Log: g.log.With("service", "page"),
	}
	address := g.cfg.HTTPS.Listen
	if address == "" {
		address = defaultHTTPS
	}
	g.https = &Server{
		Key: "[https] listen", Other: ":8443", Listen: address, Optional: g.cfg.HTTPS.Listen == "",
		TLS: g.certs.Config(), Handler: paths(g.handlers()), Log: g.log.With("service", "https"),
	}
	if err := g.page.Open(); err != nil {
		return err
	}
	return g.https.Open()
}

// handlers are what the rooms serve on 443, by path.
func (g *gateway) handlers() map[string]http.Handler {
	return map[string]http.Handler{"/$iothub/websocket": g.broker.WebSocket()}
}

// close gives everything back, in the reverse order; what was not opened is nil.
func (g *gateway) close() error {
	var errs []error
	for _, s := range []*Server{g.page, g.https} {
		if s != nil {
			errs = append(errs, s.Close())
		}
	}
	if g.broker != nil {
		errs = append(errs, g.broker.Close())
	}
	for _, db := range []*storage.DB{g.queue, g.state} {
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	return errors.Join(errs...)
}
