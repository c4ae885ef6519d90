package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"holdfast.dev/holdfast/hub/iothub/hubtest"
	"holdfast.dev/holdfast/hub/wire"
)

// options are the flags.
type options struct {
	mqtt, https, control string
	host                 string
	state                string
	received             string
	caOut                string
	cert, certKey        string
	policyKey            string
	devices              []string
	verbose              bool
}

func (o *options) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.SortFlags = false
	// Not 8883 and 443, nor 18883 and so on: a gateway on the same machine has those.
	f.StringVar(&o.mqtt, "mqtt", "127.0.0.1:28883", "listen `address` of MQTT over TLS")
	f.StringVar(&o.https, "https", "127.0.0.1:28443", "listen `address` of HTTPS and WebSocket")
	f.StringVar(&o.control, "control", "127.0.0.1:28080", `listen `+"`address`"+` of the control calls, plain HTTP on loopback; "off" for none`)
	f.StringVar(&o.host, "host", "hub.local", "the hub's `name`, in user names and tokens")
	f.StringArrayVar(&o.devices, "device", nil, "register a `device` or module: \"id[,parent=gw][,edge][,disabled][,key=BASE64]\" (repeatable)")
	f.StringVar(&o.state, "state", "", "JSON `file` that devices, twins and the CA survive a restart in")
	f.StringVar(&o.received, "received", "", "`file` to which telemetry is appended as JSON Lines")
	f.StringVar(&o.caOut, "ca-out", "", "`file` to which the CA's certificate is written, for clients to trust")
	f.StringVar(&o.cert, "cert", "", "PEM `file` of a server certificate (with --cert-key); one is made if not given")
	f.StringVar(&o.certKey, "cert-key", "", "PEM `file` of its key")
	f.StringVar(&o.policyKey, "policy-key", "", "`base64` key of the service policy iothubowner; random if not given")
	f.BoolVarP(&o.verbose, "verbose", "v", false, "log each connection")
}

// config makes of the flags what hubtest wants; files are not opened.
func (o *options) config() (hubtest.Config, error) {
	c := hubtest.Config{Host: o.host, MQTT: o.mqtt, HTTPS: o.https, State: o.state}
	if o.control != "off" {
		c.Control = o.control
	}
	if o.policyKey != "" {
		key, err := wire.DecodeKey(o.policyKey)
		if err != nil {
			return c, usageError{fmt.Errorf("--policy-key: %w", err)}
		}
		c.PolicyKey = key
	}
	if (o.cert == "") != (o.certKey == "") {
		return c, usageError{errors.New("--cert and --cert-key belong together")}
	}
	if o.cert != "" {
		cert, err := tls.LoadX509KeyPair(o.cert, o.certKey)
		if err != nil {
			return c, fmt.Errorf("read server certificate %s and key %s: %w", o.cert, o.certKey, err)
		}
		c.Certificate = cert
	}
	return c, nil
}

// parseDevices reads the values of --device. A parent must be among them or, as
// known says, in the registry already.
func parseDevices(values []string) ([]hubtest.Device, error) {
	var out []hubtest.Device
	for _, v := range values {
		d, err := parseDevice(v)
		if err != nil {
			return nil, usageError{fmt.Errorf("--device %s: %w", withoutKey(v), err)}
		}
		out = append(out, d)
	}
	return out, nil
}

func parseDevice(value string) (hubtest.Device, error) {
	words := strings.Split(value, ",")
	d := hubtest.Device{ID: words[0]}
	device, module, isModule := strings.Cut(d.ID, "/")
	if err := wire.CheckID(device); err != nil {
		return d, fmt.Errorf("device %w", err)
	}
	if isModule {
		if err := wire.CheckID(module); err != nil {
			return d, fmt.Errorf("module %w", err)
		}
	}
	for _, word := range words[1:] {
		key, val, _ := strings.Cut(word, "=")
		switch {
		case word == "edge":
			d.Edge = true
		case word == "disabled":
			d.Disabled = true
		case key == "parent" && val != "":
			d.Parent = val
		case key == "key":
			secret, err := wire.DecodeKey(val)
			if err != nil {
				return d, err
			}
			d.Primary = secret
		default:
			return d, fmt.Errorf("%q is not known: want parent=ID, edge, disabled or key=BASE64", key)
		}
	}
	if isModule && (d.Edge || d.Parent != "") {
		return d, errors.New("a module has no parent but its device, and is no gateway")
	}
	return d, nil
}

// withoutKey is a --device value that may be shown.
func withoutKey(value string) string {
	words := strings.Split(value, ",")
	for i, w := range words {
		if strings.HasPrefix(w, "key=") {
			words[i] = "key=…"
		}
	}
	return strings.Join(words, ",")
}
