package hubtest

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"
)

// Config says how a Hub listens and what it is called. The zero value works.
type Config struct {
	Host        string          // the name that tokens and user names carry; "hub.local" if empty
	MQTT        string          // listen address of MQTT over TLS; "127.0.0.1:0" if empty
	HTTPS       string          // listen address of REST and WebSocket; "127.0.0.1:0" if empty
	Control     string          // plain HTTP listen address of /sim/, on loopback, which no fault touches; none if empty
	Certificate tls.Certificate // for both TLS listeners; a fresh CA and leaf are made if it is zero
	Policy      string          // name of the service policy; "iothubowner" if empty
	PolicyKey   []byte          // its key; random if nil
	State       string          // JSON file that registry, twins, policy key and CA survive in; none if empty
	Log         *slog.Logger    // discarded if nil
	Received    io.Writer       // telemetry as JSON Lines as it arrives, or nil
}

// Hub is a stand-in for Azure IoT Hub. All methods may be called by several
// goroutines at once, before, during and after Run.
type Hub struct {
	cfg      Config
	log      *slog.Logger
	tls      *tls.Config
	ca       []byte
	caState  string // CA certificate and key for the state file
	registry *registry
	messages *messages
	gate     *gate
	mqtt     *endpoint
	https    *endpoint
	control  net.Listener // or nil
	faults   faults
	calls    calls
	over     chan struct{} // closed when Run ends

	connectWait time.Duration // how long a new connection may take to say CONNECT

	mu       sync.Mutex
	ended    bool
	running  sync.WaitGroup // connections; entered under mu
	clients  map[string]*client
	connects map[string]int
	sessions map[string]*session
	arrived  chan struct{} // closed when a client connects or subscribes; nil if nobody waits
}

// New makes a hub that listens at once; connections are answered once Run is
// called. It fails when an address cannot be listened on or the state file is
// not one of ours.
func New(cfg Config) (*Hub, error) {
	cfg = cfg.withDefaults()
	h := &Hub{
		cfg:         cfg,
		log:         cfg.Log,
		registry:    newRegistry(),
		messages:    newMessages(cfg.Received),
		gate:        newGate(),
		over:        make(chan struct{}),
		connectWait: time.Minute, // as IoT Edge's hub
		clients:     map[string]*client{},
		connects:    map[string]int{},
		sessions:    map[string]*session{},
	}
	h.faults.limit = rate.NewLimiter(rate.Inf, 1)
	if err := h.restore(); err != nil {
		return nil, err
	}
	if err := h.listen(); err != nil {
		h.closeListeners()
		return nil, err
	}
	return h, nil
}

func (c Config) withDefaults() Config {
	set := func(s *string, def string) {
		if *s == "" {
			*s = def
		}
	}
	set(&c.Host, "hub.local")
	set(&c.MQTT, "127.0.0.1:0")
	set(&c.HTTPS, "127.0.0.1:0")
	set(&c.Policy, "iothubowner")
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

func (h *Hub) listen() (err error) {
	if h.mqtt, err = listen(h.cfg.MQTT, h.gate, h.log); err != nil {
		return fmt.Errorf("listen for MQTT: %w", err)
	}
	if h.https, err = listen(h.cfg.HTTPS, h.gate, h.log); err != nil {
		return fmt.Errorf("listen for HTTPS: %w", err)
	}
	if h.cfg.Control == "" {
		return nil
	}
	if h.control, err = net.Listen("tcp", h.cfg.Control); err != nil {
		return fmt.Errorf("listen for control: %w", err)
	}
	return nil
}

func (h *Hub) closeListeners() {
	for _, e := range []*endpoint{h.mqtt, h.https} {
		if e != nil {
			e.Close()
		}
	}
	if h.control != nil {
		h.control.Close()
	}
}

// MQTTAddr is the host:port of MQTT over TLS.
func (h *Hub) MQTTAddr() string { return h.mqtt.addr }

// HTTPSAddr is the host:port of REST, and of WebSocket at /$iothub/websocket.
func (h *Hub) HTTPSAddr() string { return h.https.addr }

// ControlAddr is the host:port of the control listener, or "".
func (h *Hub) ControlAddr() string {
	if h.control == nil {
		return ""
	}
	return h.control.Addr().String()
}

// CAPEM is the certificate to trust, in PEM.
func (h *Hub) CAPEM() []byte { return append([]byte(nil), h.ca...) }

// Host is the name that tokens and user names carry.
func (h *Hub) Host() string { return h.cfg.Host }

// Run serves until ctx ends, then closes everything: listeners, connections,
// waiting calls. It may be called once. The error is nil unless serving or
// writing the state failed.
func (h *Hub) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	rest, control := h.server(h.rest()), h.server(h.controls())
	g.Go(func() error { return ended(h.serveMQTT()) })
	g.Go(func() error { return ended(rest.Serve(tls.NewListener(h.https, h.httpTLS()))) })
	if h.control != nil {
		g.Go(func() error { return ended(control.Serve(h.control)) })
	}
	g.Go(func() error { return h.keepState(ctx) })
	g.Go(func() error {
		<-ctx.Done()
		h.end()
		rest.Close() // their errors are those of listeners closed already
		control.Close()
		return nil
	})
	err := g.Wait()
	h.running.Wait()
	return err
}

// end closes what could keep a goroutine waiting, listeners first so that nobody
// new comes in while the others leave.
func (h *Hub) end() {
	h.mu.Lock()
	h.ended = true
	h.mu.Unlock()
	close(h.over)
	h.closeListeners()
}

func ended(err error) error {
	if errors.Is(err, net.ErrClosed) || errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

func (h *Hub) server(handler http.Handler) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: time.Minute,
		ErrorLog:          slog.NewLogLogger(h.log.Handler(), slog.LevelDebug),
	}
}

func (h *Hub) httpTLS() *tls.Config {
	c := h.tls.Clone()
	c.NextProtos = []string{"http/1.1"} // a WebSocket is not opened over HTTP/2
	return c
}

// enter counts one more connection that Run waits for; false when Run has ended.
func (h *Hub) enter() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ended {
		return false
	}
	h.running.Add(1)
	return true
}

func randomKey() []byte {
	key := make([]byte, 32)
	rand.Read(key) // never fails
	return key
}
