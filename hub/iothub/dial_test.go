package iothub

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"holdfast.dev/holdfast/hub"
	"holdfast.dev/holdfast/hub/wire"
)

// newProxy is an HTTP proxy that knows CONNECT, and wants auth if it is not "".
func newProxy(t *testing.T, auth string) (addr string, tunnels *atomic.Int32) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	tunnels = &atomic.Int32{}
	var wg sync.WaitGroup
	t.Cleanup(func() { ln.Close(); wg.Wait() })
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { proxyOne(c, auth, tunnels) })
		}
	})
	return ln.Addr().String(), tunnels
}

func proxyOne(c net.Conn, auth string, tunnels *atomic.Int32) {
	defer c.Close()
	in := bufio.NewReader(c)
	req, err := http.ReadRequest(in)
	if err != nil {
		return
	}
	if req.Method != http.MethodConnect || auth != "" && req.Header.Get("Proxy-Authorization") != auth {
		io.WriteString(c, "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n")
		return
	}
	far, err := net.Dial("tcp", req.Host)
	if err != nil {
		io.WriteString(c, "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
		return
	}
	defer far.Close()
	tunnels.Add(1)
	io.WriteString(c, "HTTP/1.1 200 Connection established\r\n\r\n")
	go func() { io.Copy(far, in); far.Close() }()
	io.Copy(c, far)
}

// TestProxy: MQTT, WebSocket and HTTPS all go through the proxy and show their
// credential; a proxy that is not content is named.
func TestProxy(t *testing.T) {
	const auth = "Basic dXNlcjpwYXNzQHdvcmQ=" // user, pass@word
	for _, transport := range []string{"mqtt", "websocket"} {
		r := newRig(t)
		addr, tunnels := newProxy(t, auth)
		r.cfg.Transport, r.cfg.Proxy = transport, "http://user:pass%40word@"+addr
		if transport == "websocket" {
			r.cfg.Address = r.HTTPSAddr()
		}
		u := r.run(t, newFakeHub(nil))
		repeat(t, u, "d1", 3, 5*time.Second)
		if _, err := u.Scope(t.Context()); err != nil {
			t.Errorf("%s: Scope: %v", transport, err)
		}
		if n := tunnels.Load(); n < 3 {
			t.Errorf("%s: %d tunnels, want at least 3: two of MQTT, one of HTTPS", transport, n)
		}
	}
	r := newRig(t)
	addr, _ := newProxy(t, auth)
	for proxy, want := range map[string]string{
		"http://" + addr:                     "wants a user name and password (407)",
		"http://user:wrong-word@" + addr:     "does not accept the user name and password (407)",
		"http://user:wrong-word@127.0.0.1:1": "[iothub] proxy",
	} {
		r.cfg.Proxy = proxy
		u := newUpstream(t, r.cfg)
		stop := start(t, u, newFakeHub(nil))
		until(t, "refused", 5*time.Second, failed(u))
		got := u.State().LastError
		stop()
		if !strings.Contains(got, want) || !strings.Contains(got, "[iothub] proxy") {
			t.Errorf("last error %q, want %q and [iothub] proxy in it", got, want)
		}
		if strings.Contains(got, "wrong-word") {
			t.Errorf("last error holds the password: %s", got)
		}
	}
}

// TestForeignCertificate: the name that is proven is HostName, whatever is dialled.
func TestForeignCertificate(t *testing.T) {
	l := newLiar(t)
	cfg := l.config()
	cfg.Connection = strings.Replace(cfg.Connection, testHost, "another.hub.test", 1)
	u := newUpstream(t, cfg)
	start(t, u, newFakeHub(nil))
	until(t, "refused", 5*time.Second, failed(u))
	if got := u.State().LastError; !strings.Contains(got, "another.hub.test") {
		t.Errorf("last error %q, want the name in it", got)
	}
	if u.Up() {
		t.Errorf("up with a certificate of another name")
	}
}

// TestResumption: connections after the first resume its TLS session.
func TestResumption(t *testing.T) {
	l := newLiar(t)
	u := l.upstream(t, nil)
	for i := range 6 {
		repeat(t, u, fmt.Sprintf("d%d", i), 1, 5*time.Second)
	}
	l.mu.Lock()
	resumed := l.resumed
	l.mu.Unlock()
	if resumed < 4 {
		t.Errorf("%d of 6 connections resumed, want at least 4", resumed)
	}
}

// TestOne: the call is made as IoT Edge's hub makes it, with the chain of the
// gateway, and its answers are told apart. One in the way of a status that does
// not concern the child is not ErrUnknown.
func TestOne(t *testing.T) {
	cert, ca := testCertificate(t, testHost)
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var req scopeRequest
		err := json.NewDecoder(r.Body).Decode(&req)
		token, err2 := wire.ParseSAS(r.Header.Get("Authorization"))
		if err != nil || err2 != nil || !token.Verify([]byte("secret")) || req.AuthChain != "gw" ||
			r.URL.Path != "/devices/gw/modules/$edgeHub/getDeviceAndModuleOnBehalfOf" || r.URL.Query().Get("api-version") != "2020-06-30-preview" {
			t.Errorf("%s %s: %+v", r.Method, r.URL, req)
		}
		device := fmt.Sprintf(`{"deviceId":%q,"status":"enabled","authentication":{"type":"sas","symmetricKey":{"primaryKey":"c2VjcmV0"}}}`, req.TargetDeviceID)
		switch req.TargetDeviceID {
		case "gone":
			w.WriteHeader(http.StatusNotFound)
		case "foreign":
			w.WriteHeader(http.StatusForbidden)
		case "unauthorized":
			w.WriteHeader(http.StatusUnauthorized)
		case "nothing":
			io.WriteString(w, `{"devices":[],"modules":[]}`)
		case "another":
			io.WriteString(w, `{"devices":[{"deviceId":"d"}],"modules":[]}`)
		case "prose":
			io.WriteString(w, `<html>`)
		default:
			modules := ""
			if req.TargetModuleID != "" {
				modules = fmt.Sprintf(`{"deviceId":%q,"moduleId":%q,"authentication":{"type":"none"}}`, req.TargetDeviceID, req.TargetModuleID)
			}
			fmt.Fprintf(w, `{"devices":[%s],"modules":[%s],"continuationLink":null}`, device, modules)
		}
	}))
	srv.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	srv.StartTLS()
	defer srv.Close()
	u := newUpstream(t, Config{
		Connection: "HostName=" + testHost + ";DeviceId=gw;ModuleId=$edgeHub;SharedAccessKey=c2VjcmV0",
		HTTPS:      srv.Listener.Addr().String(), CA: ca,
	})
	for _, id := range []hub.Identity{"d", "d/m"} {
		if e, err := u.One(t.Context(), id); err != nil || e.ID != id || !e.Enabled {
			t.Errorf("One %s: %+v, %v", id, e, err)
		}
	}
	for _, id := range []hub.Identity{"gone", "foreign", "nothing", "another", "gone/m"} {
		if _, err := u.One(t.Context(), id); !errors.Is(err, hub.ErrUnknown) {
			t.Errorf("One %s: %v, want %v", id, err, hub.ErrUnknown)
		}
	}
	if _, err := u.One(t.Context(), "unauthorized"); err == nil || errors.Is(err, hub.ErrUnknown) {
		t.Errorf("One unauthorized: %v, want an error about ourselves", err)
	}
	u.web.CloseIdleConnections()
}
