package mqtt

import "holdfast.dev/holdfast/hub"

// Config is the [mqtt] part of the configuration. The zero value works.
type Config struct {
	Listen     string       `toml:"listen"`      // plain TCP: ":1883" if empty, "off" for none
	TLSListen  string       `toml:"tls_listen"`  // TLS: ":8883" if empty, "off" for none
	MaxClients int          `toml:"max_clients"` // connections at once: 1000 if zero
	Window     int          `toml:"window"`      // publishes of one client that wait for the disk: 100 if zero
	KeepAlive  hub.Duration `toml:"keep_alive"`  // longest a client may be silent: 10m if zero

	MaxSessions   int          `toml:"max_sessions"`   // sessions that are kept, connected or not: 4 × max_clients if zero
	SessionExpiry hub.Duration `toml:"session_expiry"` // longest a session outlives its connection: 7d if zero
	SessionQuota  hub.Size     `toml:"session_quota"`  // most that waits on disk for one session: 64MiB if zero
	PerAddress    int          `toml:"per_address"`    // connections at once from one address: 100 if zero
}

// ForwardConfig is one [[forward]] of the configuration: which messages of
// ordinary clients also go up.
type ForwardConfig struct {
	Filter   string       `toml:"filter"`   // an MQTT topic filter, e.g. "plant/#"
	Priority *int         `toml:"priority"` // 0 (first) to 9; 5 if not given, as telemetry
	TTL      hub.Duration `toml:"ttl"`      // how long it may wait; for ever if zero
	Live     bool         `toml:"live"`     // fresh ones go beside a backlog, not behind it
}
