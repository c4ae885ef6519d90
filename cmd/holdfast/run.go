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

	"holdfast.dev/holdfast/hub/web"
)

// gateway is what run puts together.
type gateway struct {
	cfg     Config
	log     *slog.Logger
	lines   *ring
	started time.Time

	certs *Certs
	https *Server
	page  *Server
}

// run is the gateway. It sets up, in this order, everything that can fail for a
// reason that a person must cure, so that they are told at once:
//
//	data          the folder that everything is kept in
//	certificates  read, or made
//	listeners     the page, HTTPS
//
// and then keeps the services running until ctx ends.
func (p *Program) run(ctx context.Context, cfg Config, log *slog.Logger, lines *ring) error {
	g := &gateway{cfg: cfg, log: log, lines: lines, started: time.Now()}
	log.Info("starting", "version", buildVersion(), "data", cfg.Data)
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"data", g.makeData},
		{"certificates", g.openCertificates},
		{"listeners", g.openListeners},
	} {
		if err := step.do(); err != nil {
			return errors.Join(fmt.Errorf("%s: %w", step.name, err), g.closeListeners())
		}
	}
	err := runGroup(ctx, log, g.services())
	log.Info("stopped")
	return errors.Join(err, g.closeListeners())
}

// services in the order in which they start; they stop in the reverse order. The
// page comes first, so that everything after it can be watched.
func (g *gateway) services() []Service {
	return []Service{
		{Name: "page", Run: g.page.Run},
		{Name: "certificates", Run: g.certs.Run},
		{Name: "https", Run: g.https.Run},
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
	return map[string]http.Handler{}
}

func (g *gateway) closeListeners() error {
	var errs []error
	for _, s := range []*Server{g.page, g.https} {
		if s != nil {
			errs = append(errs, s.Close())
		}
	}
	return errors.Join(errs...)
}

// status is what the page shows.
func (g *gateway) status() web.Status {
	return web.Status{
		Version: buildVersion(),
		Started: g.started.UTC(),
		Uptime:  time.Since(g.started).Seconds(),
		Link:    web.Link{Configured: g.cfg.IoTHub.Connection != "", Since: g.started.UTC()},
		Log:     g.lines.last(50),
	}
}
