package iothub

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"
	"time"

	"golang.org/x/time/rate"

	"holdfast.dev/holdfast/hub/wire"
)

const edgeHub = "$edgeHub" // the module every gateway connects as

// settings is a Config that was understood.
type settings struct {
	host    string // HostName: what user name, token and certificate speak of
	device  string // the gateway's device id
	key     []byte
	ws      bool
	mqtt    string // host:port to dial
	https   string
	proxy   string // host:port of the proxy, or ""
	auth    string // value of Proxy-Authorization, or ""
	tls     *tls.Config
	hello   *tls.Config // of a probe; see settings.knock
	window  int
	total   int64
	bytes   int64
	rate    rate.Limit
	opens   rate.Limit
	timings timings
}

// timings are all the waits. They follow from Config.AckTimeout, so that one
// number makes the whole upstream quicker or more patient.
type timings struct {
	ack       time.Duration // see session.overdue
	connect   time.Duration // dial, TLS and CONNACK together
	keepAlive time.Duration // silence after which a ping is sent; whole seconds
	ping      time.Duration // the library's patience with a ping; attend's is shorter
	skip      time.Duration // see session.overdue
	ask       time.Duration // silence after which a ping is sent where something waits for an acknowledgement
	grace     time.Duration // silence after a ping after which the connection is dead; see conn.attend
	idle      time.Duration // a connection that nobody needs is closed after it
	renew     time.Duration // age at which a connection is renewed, plus up to a quarter
	method    time.Duration // longest that a method may take
	slow      time.Duration // first wait after the cloud has refused the credential
	calm      time.Duration // see session.fail
}

// newTimings: with the default AckTimeout of 30 s a connection that has gone
// silent is found out after 30 s at the latest (20 s of silence, ping, 5 s; the
// library looks every 5 s), after 10 s where something waits for an
// acknowledgement. Tokens last an hour, connections are renewed after 40 to 50
// minutes.
func newTimings(ack time.Duration) timings {
	return timings{
		ack:       ack,
		connect:   min(20*time.Second, ack),
		keepAlive: max(time.Second, (ack * 2 / 3).Truncate(time.Second)),
		ping:      ack,
		skip:      ack / 3,
		ask:       max(time.Second, ack/6),
		grace:     max(time.Second, ack/6),
		idle:      5 * time.Minute,
		renew:     40 * time.Minute,
		method:    5 * time.Minute, // the longest responseTimeout that IoT Hub allows a caller
		slow:      30 * time.Second,
		calm:      100 * time.Millisecond,
	}
}

func newSettings(cfg Config, now func() time.Time) (*settings, error) {
	s := &settings{
		window:  orInt(cfg.Window, 100),
		total:   int64(orInt(cfg.WindowTotal, 2000)),
		bytes:   int64(orInt(cfg.WindowBytes, 8<<20)),
		rate:    rate.Inf,
		opens:   20,
		timings: newTimings(cfg.AckTimeout.Or(30 * time.Second)),
	}
	for key, n := range map[string]int64{"window": int64(s.window), "window_total": s.total} {
		if n < 1 || n > 60000 { // an MQTT packet id has 16 bits
			return nil, fmt.Errorf("[iothub] %s: %d is not between 1 and 60000", key, n)
		}
	}
	if s.bytes < 2*wire.MaxMessage {
		return nil, fmt.Errorf("[iothub] window_bytes: %d is too little, two of the largest messages take %d", s.bytes, 2*wire.MaxMessage)
	}
	if cfg.Rate < 0 || cfg.ConnectionsPerSecond < 0 {
		return nil, errors.New("[iothub] rate, connections_per_second: must not be negative")
	}
	if cfg.Rate > 0 {
		s.rate = rate.Limit(cfg.Rate)
	}
	if cfg.ConnectionsPerSecond > 0 {
		s.opens = rate.Limit(cfg.ConnectionsPerSecond)
	}
	for key, read := range map[string]func(Config) error{"connection": s.connection, "proxy": s.readProxy} {
		if err := read(cfg); err != nil {
			return nil, fmt.Errorf("[iothub] %s: %w", key, err)
		}
	}
	if err := s.addresses(cfg); err != nil {
		return nil, err
	}
	roots, err := readRoots(cfg.CA)
	if err != nil {
		return nil, fmt.Errorf("[iothub] ca: %w", err)
	}
	s.tls = &tls.Config{
		ServerName:         s.host, // also where another address is dialled
		RootCAs:            roots,
		MinVersion:         tls.VersionTLS12,
		Time:               now,
		ClientSessionCache: tls.NewLRUClientSessionCache(0),
	}
	// One small key share: the hello is then 0.3 KB instead of 1.7.
	s.hello = &tls.Config{ServerName: s.host, MinVersion: tls.VersionTLS12, CurvePreferences: []tls.CurveID{tls.X25519}}
	return s, nil
}

func orInt(n, def int) int {
	if n == 0 {
		return def
	}
	return n
}

// connection takes the connection string apart. No part of it is ever quoted in
// an error but the names of its fields.
func (s *settings) connection(cfg Config) error {
	module, key := "", ""
	for part := range strings.SplitSeq(cfg.Connection, ";") {
		k, v, ok := strings.Cut(strings.TrimSpace(part), "=")
		switch {
		case k == "" && !ok: // an empty string, or a semicolon at the end
		case k == "HostName":
			s.host = v
		case k == "DeviceId":
			s.device = v
		case k == "ModuleId":
			module = v
		case k == "SharedAccessKey":
			key = v
		case k == "SharedAccessKeyName":
			return errors.New("this is the connection string of a service policy; want that of the gateway's module $edgeHub")
		case k == "GatewayHostName":
			return errors.New("GatewayHostName is not taken here; put the parent's host and port into address")
		default:
			return errors.New("want HostName=…;DeviceId=…;ModuleId=$edgeHub;SharedAccessKey=… and nothing else")
		}
	}
	switch {
	case s.host == "":
		return errors.New("HostName is missing")
	case strings.ContainsAny(s.host, "/ :"):
		return errors.New("HostName must be a bare host name; a port goes into address")
	case module == "":
		return errors.New("ModuleId is missing: this is a device's connection string; want that of its module $edgeHub")
	case module != edgeHub:
		return fmt.Errorf("ModuleId is %q; the gateway connects as its module $edgeHub", module)
	}
	if err := wire.CheckID(s.device); err != nil {
		return fmt.Errorf("DeviceId: %w", err)
	}
	var err error
	if s.key, err = wire.DecodeKey(key); err != nil {
		return fmt.Errorf("SharedAccessKey: %w", err)
	}
	return nil
}

func (s *settings) addresses(cfg Config) error {
	port := "8883"
	switch cfg.Transport {
	case "", "mqtt":
	case "websocket":
		s.ws, port = true, "443"
	default:
		return fmt.Errorf(`[iothub] transport: %q is neither "mqtt" nor "websocket"`, cfg.Transport)
	}
	s.mqtt, s.https = net.JoinHostPort(s.host, port), net.JoinHostPort(s.host, "443")
	if cfg.Address != "" {
		s.mqtt = cfg.Address
	}
	if cfg.HTTPS != "" {
		s.https = cfg.HTTPS
	}
	if _, _, err := net.SplitHostPort(s.mqtt); err != nil {
		return fmt.Errorf("[iothub] address: %w; want host:port", err)
	}
	if _, _, err := net.SplitHostPort(s.https); err != nil {
		return fmt.Errorf("[iothub] https: %w; want host:port", err)
	}
	return nil
}

func (s *settings) readProxy(cfg Config) error {
	if cfg.Proxy == "" {
		return nil
	}
	u, err := url.Parse(cfg.Proxy)
	if err != nil || u.Scheme != "http" || u.Hostname() == "" || u.Port() == "" || strings.Trim(u.Path, "/") != "" {
		return errors.New("want http://[user:password@]host:port") // what url.Parse says quotes the password
	}
	s.proxy = u.Host
	if u.User != nil {
		password, _ := u.User.Password()
		s.auth = "Basic " + base64.StdEncoding.EncodeToString([]byte(u.User.Username()+":"+password))
	}
	return nil
}

func readRoots(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil // the system's
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s: no certificate in PEM form in it", file)
	}
	return pool, nil
}
