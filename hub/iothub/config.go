package iothub

import "holdfast.dev/holdfast/hub"

// Config is the [iothub] part of the configuration. Without Connection there is
// no cloud.
type Config struct {
	// Connection is the connection string of the gateway's own module identity:
	// HostName=…;DeviceId={gateway};ModuleId=$edgeHub;SharedAccessKey=…
	Connection string `toml:"connection"`
	Address    string `toml:"address"`   // host:port to dial for MQTT; HostName and the transport's port if empty
	HTTPS      string `toml:"https"`     // host:port to dial for HTTPS; HostName:443 if empty
	Transport  string `toml:"transport"` // "mqtt" (8883) if empty, or "websocket" (443)
	CA         string `toml:"ca"`        // PEM file of the roots to trust; the system's if empty
	Proxy      string `toml:"proxy"`     // http://[user:password@]host:port, for both

	Window               int          `toml:"window"`                 // messages under way for one device: 100 if zero
	WindowTotal          int          `toml:"window_total"`           // messages under way in all: 2000 if zero
	WindowBytes          int          `toml:"window_bytes"`           // bytes under way in all: 8 MiB if zero
	Rate                 float64      `toml:"rate"`                   // messages a second in all; no limit if zero
	ConnectionsPerSecond float64      `toml:"connections_per_second"` // opened at most: 20 if zero
	AckTimeout           hub.Duration `toml:"ack_timeout"`            // longest wait for an acknowledgement: 30s if zero; a connection on which nothing at all is heard is given up after a third of it
	ParkRetry            hub.Duration `toml:"park_retry"`             // when a refused device is tried again: 10m if zero
	Priority             *int         `toml:"priority"`               // of telemetry, 0 (first) to 9; 5 if not given
	TTL                  hub.Duration `toml:"ttl"`                    // how long telemetry may wait; for ever if zero
	Full                 string       `toml:"full"`                   // where there is no room: "refuse" new messages if empty, or "evict" the oldest
	Quota                hub.Size     `toml:"quota"`                  // bytes that the messages of one priority may take; no limit of its own if zero
	Live                 bool         `toml:"live"`                   // fresh telemetry goes beside a backlog, not behind it
	LiveShare            int          `toml:"live_share"`             // percent of a live priority for what is fresh: 50 if zero, 1 to 99
	LiveBacklog          int          `toml:"live_backlog"`           // from so many messages on, the first of them 10 s old, what waits is history: 1000 if zero
}
