package main

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"
)

// defaultHTTPS is where WebSocket clients expect the gateway.
const defaultHTTPS = ":443"

// Server is one HTTP server: the page (plain, on the loopback interface), or the
// one on 443 that the rooms give their handlers to.
type Server struct {
	Key      string // configuration key of the address, for errors
	Other    string // an address that needs no privilege, for hints
	Listen   string // address, or "off"
	Optional bool   // nobody asked for this address: do without it where it is not allowed
	TLS      *tls.Config
	Handler  http.Handler
	Log      *slog.Logger

	mu     sync.Mutex
	opened net.Listener // by Open, until Run takes it
}

// Open opens the listener ahead of Run, so that an address that cannot be had is
// told when the program starts. It may be left out.
func (s *Server) Open() error {
	if s.Listen == "off" {
		return nil
	}
	l, err := listen(s.Listen, s.Key, s.Other)
	if err != nil && s.Optional && (errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.EADDRINUSE)) {
		s.Log.Warn("going on without a listener", "error", err, "hint", hintOf(err))
		s.Listen = "off"
		return nil
	}
	if err != nil {
		return err
	}
	s.Log.Info("listening", "address", l.Addr().String())
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opened = l
	return nil
}

// Run serves until ctx ends, then lets the requests that are under way finish for
// a moment.
func (s *Server) Run(ctx context.Context) error {
	l, err := s.listener()
	if err != nil {
		return err
	}
	if l == nil {
		<-ctx.Done()
		return nil
	}
	server := &http.Server{
		Handler:           s.Handler,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute, // no limit on the whole: a WebSocket lasts for weeks
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(s.Log.Handler(), slog.LevelDebug), // every port scanner is one of these
	}
	if s.TLS != nil {
		l = tls.NewListener(l, s.TLS) // and so HTTP/1.1: HTTP/2 has no upgrade to WebSocket that clients know
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	if server.Shutdown(last) != nil {
		_ = server.Close() // whoever is still there has had their moment
	}
	<-ended
	return nil
}

func (s *Server) listener() (net.Listener, error) {
	s.mu.Lock()
	l := s.opened
	s.opened = nil
	s.mu.Unlock()
	if l != nil || s.Listen == "off" {
		return l, nil
	}
	if err := s.Open(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	l, s.opened = s.opened, nil
	return l, nil
}

// Close gives back a listener that was opened and never run.
func (s *Server) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.opened == nil {
		return nil
	}
	err := s.opened.Close()
	s.opened = nil
	return err
}

// paths makes one handler of several, by path. What no room has taken answers 404.
func paths(handlers map[string]http.Handler) http.Handler {
	mux := http.NewServeMux()
	for path, h := range handlers {
		mux.Handle(path, h)
	}
	return mux
}
