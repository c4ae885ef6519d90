package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestServer(t *testing.T) {
	log, _ := testLog()
	certs, err := openCerts(TLSConfig{}, filepath.Join(t.TempDir(), "tls"), log)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := os.ReadFile(certs.CA())
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	s := &Server{Key: "[https] listen", Listen: "127.0.0.1:0", TLS: certs.Config(), Log: log,
		Handler: paths(map[string]http.Handler{"/$iothub/websocket": http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "here") })})}
	if err := s.Open(); err != nil {
		t.Fatal(err)
	}
	address := s.opened.Addr().String()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()

	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true}}
	for path, want := range map[string]int{"/$iothub/websocket": 200, "/": 404} {
		res, err := client.Get("https://" + address + path)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, res.Body)
		_ = res.Body.Close()
		if res.StatusCode != want || res.ProtoMajor != 1 {
			t.Errorf("GET %s: %s %s, want %d over HTTP/1.1", path, res.Proto, res.Status, want)
		}
	}
	client.CloseIdleConnections()
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Run: %v", err)
	}
	if c, err := net.Dial("tcp", address); err == nil {
		_ = c.Close()
		t.Error("the port is still open")
	}
}

func TestServerPortInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	log, out := testLog()
	s := &Server{Key: "[https] listen", Other: ":8443", Listen: l.Addr().String(), Log: log}
	err = s.Open()
	if err == nil || !strings.HasPrefix(err.Error(), "[https] listen: ") || !strings.Contains(hintOf(err), `set [https] listen = ":8443", or "off"`) {
		t.Errorf("Open: %v, hint %q", err, hintOf(err))
	}
	if err := s.Run(t.Context()); err == nil {
		t.Error("Run: no error")
	}
	s.Optional = true
	if err := s.Open(); err != nil || !strings.Contains(out.String(), "going on without a listener") {
		t.Errorf("Open of a default: %v; log %s", err, out)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Run(ctx); err != nil {
		t.Errorf("Run without a listener: %v", err)
	}
}

func TestServerOff(t *testing.T) {
	s := &Server{Listen: "off"}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Open(); err != nil {
		t.Error(err)
	}
	if err := s.Run(ctx); err != nil {
		t.Error(err)
	}
}
