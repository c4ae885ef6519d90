package main

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"holdfast.dev/holdfast/hub/wire"
)

func checkIdentity(s string) error {
	device, module, has := strings.Cut(s, "/")
	if err := wire.CheckID(device); err != nil {
		return fmt.Errorf("device %w", err)
	}
	if has {
		if err := wire.CheckID(module); err != nil {
			return fmt.Errorf("module %w", err)
		}
	}
	return nil
}

// checkFilter follows MQTT 5.0 §4.7: "#" alone in the last level, "+" alone in
// its level, 1 to 65535 bytes, no NUL.
func checkFilter(s string) error {
	if s == "" || len(s) > 65535 || strings.ContainsRune(s, 0) {
		return fmt.Errorf("filter %q: want 1 to 65535 bytes", s)
	}
	levels := strings.Split(s, "/")
	for i, l := range levels {
		if strings.Contains(l, "#") && (l != "#" || i < len(levels)-1) {
			return fmt.Errorf(`filter %q: "#" has to be the whole of the last level, like "a/#"`, s)
		}
		if strings.Contains(l, "+") && l != "+" {
			return fmt.Errorf(`filter %q: "+" has to be the whole of its level, like "a/+/b"`, s)
		}
	}
	return nil
}

// checkForward is checkFilter for topics that ordinary clients may publish to.
func checkForward(s string) error {
	if err := checkFilter(s); err != nil {
		return err
	}
	if strings.HasPrefix(s, "$") || s == "devices" || strings.HasPrefix(s, "devices/") {
		return fmt.Errorf("filter %q: ordinary clients cannot publish there, and what IoT Hub devices send goes up without a rule", s)
	}
	return nil
}

// checkAddress takes "host:port" and gives the port. least is 1 where port 0
// (any) makes no sense.
func checkAddress(s string, least int) (port string, err error) {
	host, port, err := net.SplitHostPort(s)
	n, bad := strconv.Atoi(port)
	if err != nil || bad != nil || n < least || n > 65535 {
		return "", fmt.Errorf(`address %q: want "host:port" or "address:port"`, s)
	}
	if least > 0 && host == "" {
		return "", fmt.Errorf(`address %q: host is missing, want "host:port"`, s)
	}
	return port, nil
}

// wantConnection is the form of a connection string.
const wantConnection = "want HostName=…;DeviceId=…;ModuleId=$edgeHub;SharedAccessKey=…"

// checkConnection never quotes a value: one of them is a key.
func checkConnection(s string) error {
	fields := map[string]string{}
	for part := range strings.SplitSeq(s, ";") {
		k, v, ok := strings.Cut(strings.TrimSpace(part), "=")
		switch {
		case k == "" && !ok: // a semicolon at the end
		case k == "SharedAccessKeyName":
			return errors.New("this is the connection string of a service policy; want the one of the gateway's module $edgeHub")
		case k == "GatewayHostName":
			return errors.New("GatewayHostName is not taken here; put the parent's host and port into iothub.address")
		case !ok || !slices.Contains([]string{"HostName", "DeviceId", "ModuleId", "SharedAccessKey"}, k):
			return errors.New(wantConnection + " and nothing else")
		default:
			fields[k] = v
		}
	}
	for _, k := range []string{"HostName", "DeviceId", "SharedAccessKey"} {
		if fields[k] == "" {
			return fmt.Errorf("%s is missing; %s", k, wantConnection)
		}
	}
	if fields["ModuleId"] != "$edgeHub" {
		return errors.New("ModuleId is not $edgeHub; want the connection string of the gateway's module $edgeHub, not the one of the device or of another module")
	}
	if !isHost(fields["HostName"]) {
		return errors.New("HostName has to be a host name alone; a port goes into iothub.address")
	}
	if err := wire.CheckID(fields["DeviceId"]); err != nil {
		return fmt.Errorf("DeviceId: %w", err)
	}
	if _, err := wire.DecodeKey(fields["SharedAccessKey"]); err != nil {
		return errors.New("SharedAccessKey is not base64; copy the whole connection string")
	}
	return nil
}

// checkProxy never quotes the address: there may be a password in it.
func checkProxy(s string) error {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" || u.Hostname() == "" || u.Port() == "" || strings.Trim(u.Path, "/") != "" {
		return errors.New("want http://host:port or http://user:password@host:port")
	}
	return nil
}

// isHost says whether s may be a DNS name (RFC 1123), "*." before it allowed.
func isHost(s string) bool {
	s = strings.TrimPrefix(s, "*.")
	if s == "" || len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, c := range label {
			if !(c == '-' || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z') {
				return false
			}
		}
	}
	return true
}
