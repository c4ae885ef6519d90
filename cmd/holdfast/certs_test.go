package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func newSite(t *testing.T) *site {
	t.Helper()
	return &site{dir: filepath.Join(t.TempDir(), "tls"), names: []string{"127.0.0.1", "gw.example", "localhost"}, now: time.Now}
}

func (s *site) must(t *testing.T, want ...string) {
	t.Helper()
	made, err := s.ensure()
	if err != nil {
		t.Fatal(err)
	}
	for i := range made {
		made[i] = filepath.Base(made[i])
	}
	if got, want := strings.Join(made, " "), strings.Join(want, " "); got != want {
		t.Errorf("made %q, want %q", got, want)
	}
}

func (s *site) read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(s.file(name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func (s *site) parse(t *testing.T, name string) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode([]byte(s.read(t, name)))
	if block == nil {
		t.Fatalf("%s is not PEM", name)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func TestSiteMakesAndKeeps(t *testing.T) {
	s := newSite(t)
	s.must(t, "ca.pem", "server.pem")
	for name, mode := range map[string]fs.FileMode{"ca.key": 0o600, "server.key": 0o600, "ca.pem": 0o644, "server.pem": 0o644} {
		if info, err := os.Stat(s.file(name)); err != nil || info.Mode() != mode {
			t.Errorf("%s: mode %v, %v; want %v", name, info.Mode(), err, mode)
		}
	}
	ca, cert := s.parse(t, "ca.pem"), s.parse(t, "server.pem")
	pool := x509.NewCertPool()
	pool.AddCert(ca)
	for _, name := range s.names {
		if _, err := cert.Verify(x509.VerifyOptions{Roots: pool, DNSName: name}); err != nil {
			t.Errorf("verify as %s: %v", name, err)
		}
	}
	if _, err := cert.Verify(x509.VerifyOptions{Roots: pool, DNSName: "other.example"}); err == nil {
		t.Error("the certificate serves a name that it was not made for")
	}
	for c, want := range map[*x509.Certificate]time.Duration{ca: caLife, cert: serverLife} {
		if d := time.Until(c.NotAfter); d > want || d < want-time.Minute {
			t.Errorf("%s lasts %v, want %v", c.Subject, d, want)
		}
	}
	before := s.read(t, "server.pem")
	s.must(t) // nothing
	if s.read(t, "server.pem") != before {
		t.Error("a good certificate was made anew")
	}
}

func TestSiteRenews(t *testing.T) {
	tests := []struct {
		name   string
		change func(s *site)
		made   []string
	}{
		{"31 % remains", func(s *site) { s.now = func() time.Time { return time.Now().Add(serverLife / 100 * 69) } }, nil},
		{"29 % remains", func(s *site) { s.now = func() time.Time { return time.Now().Add(serverLife / 100 * 71) } }, []string{"server.pem"}},
		{"new name", func(s *site) { s.names = append(s.names, "new.example") }, []string{"server.pem"}},
		{"new address", func(s *site) { s.names = append(s.names, "10.9.8.7") }, []string{"server.pem"}},
		{"name gone", func(s *site) { s.names = s.names[:1] }, nil},
		{"crashed before ca.pem", func(s *site) { rm(s, "ca.pem", "server.pem", "server.key") }, []string{"ca.pem", "server.pem"}},
		{"crashed before server.key", func(s *site) { rm(s, "server.pem", "server.key") }, []string{"server.pem"}},
		{"crashed before server.pem", func(s *site) { rm(s, "server.pem") }, []string{"server.pem"}},
		{"clock before the epoch", func(s *site) { s.now = func() time.Time { return time.Unix(0, 0) } }, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newSite(t)
			s.must(t, "ca.pem", "server.pem")
			keys := s.read(t, "ca.key")
			tt.change(s)
			s.must(t, tt.made...)
			if s.read(t, "ca.key") != keys {
				t.Error("the CA's key was replaced")
			}
			s.must(t)
			cert := s.parse(t, "server.pem")
			if err := cert.CheckSignatureFrom(s.parse(t, "ca.pem")); err != nil {
				t.Error(err)
			}
		})
	}
}

func rm(s *site, names ...string) {
	for _, n := range names {
		_ = os.Remove(s.file(n))
	}
}

// Whatever is wrong is said, and no file is touched.
func TestSiteNeverReplaces(t *testing.T) {
	write := func(name, text string) func(*site) {
		return func(s *site) { _ = os.WriteFile(s.file(name), []byte(text), 0o600) }
	}
	tests := []struct {
		name   string
		change func(s *site)
		want   string
	}{
		{"half a CA key", write("ca.key", "-----BEGIN PRIV"), "ca.key is not PEM"},
		{"empty CA certificate", write("ca.pem", ""), "ca.pem is not PEM"},
		{"CA key gone", func(s *site) { rm(s, "ca.key") }, "ca.key is missing, but its certificate is there"},
		{"server key gone", func(s *site) { rm(s, "server.key") }, "server.key is missing, but its certificate is there"},
		{"server key of another", func(s *site) {
			b, _ := os.ReadFile(s.file("ca.key"))
			_ = os.WriteFile(s.file("server.key"), b, 0o600)
		}, "server.pem does not belong to"},
		{"junk in PEM", write("server.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), "server.pem is not a certificate"},
		{"junk key in PEM", write("server.key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"), "server.key is not an ECDSA key"},
		{"key is a folder", func(s *site) { rm(s, "server.key"); _ = os.Mkdir(s.file("server.key"), 0o700) }, "read key"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newSite(t)
			s.must(t, "ca.pem", "server.pem")
			tt.change(s)
			before := snapshot(t, s.dir)
			_, err := s.ensure()
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("ensure: %v, want %q", err, tt.want)
			}
			if tt.name != "key is a folder" && hintOf(err) == "" {
				t.Error("no hint")
			}
			if after := snapshot(t, s.dir); after != before {
				t.Errorf("files were changed:\n%s\n%s", before, after)
			}
		})
	}
}

func snapshot(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		text, _ := os.ReadFile(filepath.Join(dir, e.Name())) // a folder has none
		b.WriteString(e.Name() + "\n" + string(text))
	}
	return b.String()
}

func TestCertsServe(t *testing.T) {
	log, _ := testLog()
	c, err := openCerts(TLSConfig{Names: []string{"Gw.Example"}}, filepath.Join(t.TempDir(), "tls"), log)
	if err != nil {
		t.Fatal(err)
	}
	pem, err := os.ReadFile(c.CA())
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	for _, name := range []string{"gw.example", "localhost", "127.0.0.1"} {
		if err := handshake(t, c.Config(), &tls.Config{RootCAs: roots, ServerName: name}); err != nil {
			t.Errorf("handshake as %s: %v", name, err)
		}
	}
	old := &tls.Config{RootCAs: roots, ServerName: "localhost", MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}
	if handshake(t, c.Config(), old) == nil {
		t.Error("TLS 1.1 is taken")
	}
}

func handshake(t *testing.T, server, client *tls.Config) error {
	t.Helper()
	a, b := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = tls.Server(a, server).Handshake() // the client tells
		_ = a.Close()
	}()
	defer func() { _ = b.Close(); <-done }()
	return tls.Client(b, client).Handshake()
}

func TestCertsOfConfiguration(t *testing.T) {
	log, _ := testLog()
	s, other := newSite(t), newSite(t)
	s.must(t, "ca.pem", "server.pem")
	other.must(t, "ca.pem", "server.pem")
	cert, key := s.file("server.pem"), s.file("server.key")
	c, err := openCerts(TLSConfig{Certificate: cert, Key: key}, "", log)
	if err != nil {
		t.Fatal(err)
	}
	if c.CA() != "" {
		t.Errorf("CA %q of a certificate that is not ours", c.CA())
	}
	first := c.current
	if err := c.renew(); err != nil || c.current != first {
		t.Errorf("renew with nothing new: %v", err)
	}
	if _, err := openCerts(TLSConfig{Certificate: cert, Key: other.file("server.key")}, "", log); err == nil || hintOf(err) == "" {
		t.Errorf("a pair that does not match: %v, want an error with a hint", err)
	}
	if _, err := openCerts(TLSConfig{Certificate: cert + ".none", Key: key}, "", log); err == nil {
		t.Error("a certificate that is not there: no error")
	}

	// Somebody puts another pair in place, certificate first: in between, the old one stays.
	copyFile(t, other.file("server.pem"), cert)
	if err := c.renew(); err == nil || c.current != first {
		t.Errorf("renew with half a pair: %v, want an error and the old certificate", err)
	}
	copyFile(t, other.file("server.key"), key)
	if err := c.renew(); err != nil || c.current == first {
		t.Errorf("renew with a new pair: %v", err)
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	text, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := writeFile(to, text, 0o600); err != nil {
		t.Fatal(err)
	}
}
