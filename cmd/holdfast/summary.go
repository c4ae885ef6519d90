package main

import (
	"fmt"
	"strings"
)

// summary says in a few lines what a configuration amounts to, without its
// secrets.
func summary(c Config) string {
	or := func(s, def string) string {
		if s == "" {
			return def
		}
		return s
	}
	cloud := "none"
	if c.IoTHub.Connection != "" {
		cloud = fmt.Sprintf("%s at %s over %s", connectionField(c.IoTHub.Connection, "DeviceId"),
			connectionField(c.IoTHub.Connection, "HostName"), or(c.IoTHub.Transport, "mqtt"))
	}
	cert := "made by the gateway"
	if c.TLS.Certificate != "" {
		cert = c.TLS.Certificate
	}
	var b strings.Builder
	for _, line := range [][2]string{
		{"data", c.Data},
		{"cloud", cloud},
		{"mqtt", or(c.MQTT.Listen, ":1883")},
		{"mqtt over tls", or(c.MQTT.TLSListen, ":8883")},
		{"mqtt over websocket", or(c.HTTPS.Listen, defaultHTTPS)},
		{"page", c.Status.Listen},
		{"certificate", cert},
		{"devices", fmt.Sprint(len(c.Devices))},
		{"accounts", fmt.Sprint(len(c.Accounts))},
		{"forwards", fmt.Sprint(len(c.Forwards))},
	} {
		fmt.Fprintf(&b, "  %-20s %s\n", line[0], printable(line[1]))
	}
	return b.String()
}

// connectionField is one field of a connection string that has been judged; never
// asked for the key.
func connectionField(s, name string) string {
	for part := range strings.SplitSeq(s, ";") {
		if v, ok := strings.CutPrefix(strings.TrimSpace(part), name+"="); ok {
			return v
		}
	}
	return ""
}
