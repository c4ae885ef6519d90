package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// Certs is the certificate that devices see, on every listener with TLS.
//
// It is the one of the configuration, or else one that the gateway makes for
// itself, signed by a site CA of its own, in the folder {data}/tls:
//
//	ca.key      the site CA's key, 0600      made once, stays
//	ca.pem      its certificate, 20 years    what devices are given to trust
//	server.key  the server's key, 0600       made once, stays
//	server.pem  its certificate, 5 years     renewed
//
// Each file is written whole or not at all, a key before its certificate, and a
// key is never replaced; so a crash between two files leaves a key alone, and a
// certificate is made for it at the next start. Everything else that does not fit
// (a certificate without its key, a pair that does not match, a file that is not
// PEM) is an error that says which file to look at: devices trust ca.pem, and a
// new one in its place would lock all of them out.
type Certs struct {
	log       *slog.Logger
	cert, key string // files
	site      *site  // nil if the files are the configuration's

	mu      sync.Mutex
	current *tls.Certificate
	state   [2]fileState // of the two files when current was read
}

type fileState struct {
	size int64
	mod  time.Time
}

// certLook is how often the files are looked at for a change, and the age of the
// certificate is judged.
const certLook = time.Hour

// openCerts reads the certificate, and makes what is missing. dir is where the
// gateway's own files are.
func openCerts(c TLSConfig, dir string, log *slog.Logger) (*Certs, error) {
	s := &Certs{log: log, cert: c.Certificate, key: c.Key}
	if s.cert == "" {
		s.site = &site{dir: dir, names: namesOf(c.Names), now: time.Now}
		s.cert, s.key = filepath.Join(dir, "server.pem"), filepath.Join(dir, "server.key")
	}
	return s, s.renew()
}

// CA is the file that devices are given to trust, or "" if the certificate is the
// configuration's.
func (s *Certs) CA() string {
	if s.site == nil {
		return ""
	}
	return filepath.Join(s.site.dir, "ca.pem")
}

// Config is what TLS listeners use. It follows renewals by itself.
func (s *Certs) Config() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12, // old device SDKs do not know 1.3
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.current, nil
		},
	}
}

// Run renews the certificate in time and takes one that somebody has put in its
// place, until ctx ends. A file that cannot be used is a line in the log; the
// certificate in use stays.
func (s *Certs) Run(ctx context.Context) error {
	tick := time.NewTicker(certLook)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := s.renew(); err != nil {
			s.log.Warn("certificate cannot be renewed, the old one stays", "error", err, "hint", hintOf(err))
		}
	}
}

// renew makes what is missing or old and reads the files if they have changed.
func (s *Certs) renew() error {
	if s.site != nil {
		made, err := s.site.ensure()
		if err != nil {
			return err
		}
		for _, file := range made {
			s.log.Info("certificate made", "file", file)
		}
	}
	state, err := stateOf(s.cert, s.key)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current != nil && state == s.state {
		return nil
	}
	pair, err := tls.LoadX509KeyPair(s.cert, s.key)
	if err != nil {
		return pairError(s.cert, s.key, err)
	}
	if now := time.Now(); now.After(pair.Leaf.NotAfter) {
		s.log.Warn("certificate is over", "file", s.cert, "since", pair.Leaf.NotAfter)
	}
	s.current, s.state = &pair, state
	return nil
}

func stateOf(files ...string) (state [2]fileState, err error) {
	for i, f := range files {
		info, err := os.Stat(f)
		if errors.Is(err, fs.ErrPermission) {
			return state, withHint(fmt.Errorf("read certificate: %w", err), "the gateway's user must be able to read it")
		}
		if err != nil {
			return state, withHint(fmt.Errorf("read certificate: %w", err), "put the file there, or leave out [tls] certificate and key: the gateway makes its own")
		}
		state[i] = fileState{info.Size(), info.ModTime()}
	}
	return state, nil
}

func pairError(cert, key string, err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return withHint(fmt.Errorf("read certificate: %w", err), "the gateway's user must be able to read it")
	}
	return withHint(fmt.Errorf("read certificate %s with key %s: %w", cert, key, err),
		"the two must be PEM and belong together; put the right ones in place")
}

// siteError is about a file of the folder that the gateway filled itself.
func siteError(file, what string, remove ...string) error {
	return withHint(fmt.Errorf("certificate file %s %s", file, what),
		"put it back from a copy, or remove %v and start again: a new one is made, and if it is the CA, devices must be given the new ca.pem", remove)
}
