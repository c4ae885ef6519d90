package main

import (
	"fmt"
	"net"
	"strings"
	"time"

	"holdfast.dev/holdfast/hub/identity"
	"holdfast.dev/holdfast/hub/iothub"
	"holdfast.dev/holdfast/hub/mqtt"
	"holdfast.dev/holdfast/hub/wire"
)

// judge says which values make no sense, alone or together. It looks at nothing
// but the values: files and ports are those of the gateway, not of the computer
// where a configuration is checked.
type judge struct {
	place  func(path string) (line, col int)
	faults []Fault
}

// fault takes a path with indexes and shows the key without them: the line says
// which one it is.
func (j *judge) fault(path, format string, args ...any) {
	line, col := j.place(path)
	key := path
	for {
		i := strings.IndexByte(key, '[')
		k := strings.IndexByte(key, ']')
		if i < 0 || k < i {
			break
		}
		key = key[:i] + key[k+1:]
	}
	j.faults = append(j.faults, Fault{line, col, key, fmt.Sprintf(format, args...)})
}

// check reports err, if there is one.
func (j *judge) check(path string, err error) {
	if err != nil {
		j.fault(path, "%s", err)
	}
}

func (j *judge) oneOf(path, value string, allowed ...string) {
	for _, a := range allowed {
		if value == a {
			return
		}
	}
	if value != "" {
		j.fault(path, `want one of "%s", have %q`, strings.Join(allowed, `", "`), value)
	}
}

func (j *judge) config(c Config) {
	j.oneOf("log.level", c.Log.Level, "debug", "info", "warn", "error")
	j.oneOf("log.format", c.Log.Format, "text", "json")
	if (c.TLS.Certificate == "") != (c.TLS.Key == "") {
		j.fault("tls", "certificate and key belong together: give both, or neither")
	}
	for i, n := range c.TLS.Names {
		if net.ParseIP(n) == nil && !isHost(n) {
			j.fault(fmt.Sprintf("tls.names[%d]", i), "%q is neither a DNS name nor an address", n)
		}
	}
	j.store(c.Store)
	j.ports(c)
	j.mqtt(c.MQTT)
	j.iothub(c.IoTHub)
	j.devices(c.Devices)
	j.accounts(c.Accounts)
	for i, f := range c.Forwards {
		at := fmt.Sprintf("forward[%d]", i)
		if f.Filter == "" {
			j.fault(at, `filter is missing: which topics go up, like "plant/#"`)
		} else {
			j.check(at+".filter", checkForward(f.Filter))
		}
		j.priority(at+".priority", f.Priority)
	}
	j.live(c)
	j.oneOf("iothub.full", c.IoTHub.Full, "refuse", "evict")
}

// live wants all routes of one priority to agree: they are one lane, which has a
// backlog or has none.
func (j *judge) live(c Config) {
	j.between("iothub.live_share", c.IoTHub.LiveShare, 1, 99)
	j.between("iothub.live_backlog", c.IoTHub.LiveBacklog, 1, 1<<30)
	other := map[int]string{priorityOf(c.IoTHub.Priority): "telemetry"} // by priority, one that is not live
	if c.IoTHub.Live {
		other = map[int]string{}
	}
	for i, f := range c.Forwards {
		if !f.Live {
			line, _ := j.place(fmt.Sprintf("forward[%d]", i))
			other[priorityOf(f.Priority)] = fmt.Sprintf("the [[forward]] on line %d", line)
		}
	}
	disagree := func(path string, priority *int) {
		if o, ok := other[priorityOf(priority)]; ok {
			j.fault(path, "priority %d is that of %s, too, which is not live; make both live, or give this a priority of its own", priorityOf(priority), o)
		}
	}
	if c.IoTHub.Live {
		disagree("iothub.live", c.IoTHub.Priority)
	}
	for i, f := range c.Forwards {
		if f.Live {
			disagree(fmt.Sprintf("forward[%d].live", i), f.Priority)
		}
	}
}

func (j *judge) store(c StoreConfig) {
	segment, most := int64(c.SegmentBytes), int64(c.MaxBytes)
	if segment != 0 && (segment < 1<<20 || segment > 1<<30) {
		j.fault("store.segment_bytes", "want 1MiB to 1GiB")
		return
	}
	if segment == 0 {
		segment = 16 << 20
	}
	j.between("store.ring", c.Ring, 4, 64)
	if most != 0 && most < 4*segment {
		j.fault("store.max_bytes", "want room for at least four segments, %dMiB", 4*segment>>20)
	}
}

// ports looks at all that listens, together.
func (j *judge) ports(c Config) {
	taken := map[string]string{} // port -> key
	for _, l := range []struct{ key, value, def string }{
		{"mqtt.listen", c.MQTT.Listen, ":1883"},
		{"mqtt.tls_listen", c.MQTT.TLSListen, ":8883"},
		{"https.listen", c.HTTPS.Listen, defaultHTTPS},
		{"status.listen", c.Status.Listen, "127.0.0.1:9600"},
	} {
		if l.value == "" {
			l.value = l.def
		}
		if l.value == "off" {
			continue
		}
		port, err := checkAddress(l.value, 0)
		if err != nil {
			j.fault(l.key, `%s, or "off"`, err)
			continue
		}
		if other, ok := taken[port]; ok && port != "0" {
			j.fault(l.key, "port %s is that of %s, too", port, other)
			continue
		}
		taken[port] = l.key
	}
}

func (j *judge) mqtt(c mqtt.Config) {
	j.notNegative("mqtt.max_clients", float64(c.MaxClients))
	j.notNegative("mqtt.per_address", float64(c.PerAddress))
	j.between("mqtt.window", c.Window, 1, 65535) // an MQTT receive maximum has 16 bits
	if k := time.Duration(c.KeepAlive); k != 0 && (k < time.Second || k > 65535*time.Second) {
		j.fault("mqtt.keep_alive", `want "1s" to "18h"`)
	}
}

func (j *judge) iothub(c iothub.Config) {
	if c.Connection != "" {
		j.check("iothub.connection", checkConnection(c.Connection))
	}
	for _, a := range []struct{ key, value string }{{"iothub.address", c.Address}, {"iothub.https", c.HTTPS}} {
		if a.value != "" {
			_, err := checkAddress(a.value, 1)
			j.check(a.key, err)
		}
	}
	j.oneOf("iothub.transport", c.Transport, "mqtt", "websocket")
	if c.Proxy != "" {
		j.check("iothub.proxy", checkProxy(c.Proxy))
	}
	j.between("iothub.window", c.Window, 1, 60000) // an MQTT packet id has 16 bits
	j.between("iothub.window_total", c.WindowTotal, 1, 60000)
	j.between("iothub.window_bytes", c.WindowBytes, 2*wire.MaxMessage, 1<<30)
	j.notNegative("iothub.rate", c.Rate)
	j.notNegative("iothub.connections_per_second", c.ConnectionsPerSecond)
	j.priority("iothub.priority", c.Priority)
}

// between takes zero for the default.
func (j *judge) between(path string, v, least, most int) {
	if v != 0 && (v < least || v > most) {
		j.fault(path, "want %d to %d, have %d", least, most, v)
	}
}

func (j *judge) notNegative(path string, v float64) {
	if !(v >= 0) || v > 1e15 { // not a number and infinity, too
		j.fault(path, "want zero (the default) or more")
	}
}

func (j *judge) priority(path string, p *int) {
	if p != nil && (*p < 0 || *p > 9) {
		j.fault(path, "want 0 (first) to 9, have %d", *p)
	}
}

func (j *judge) devices(list []identity.DeviceConfig) {
	first := map[string]int{} // id -> line
	for i, d := range list {
		at := fmt.Sprintf("device[%d]", i)
		if d.ID == "" {
			j.fault(at, `id is missing: the device's, or "device/module"`)
		} else {
			j.check(at+".id", checkIdentity(d.ID))
			j.once(first, at+".id", d.ID)
		}
		if d.PrimaryKey == "" {
			j.fault(at, "primary_key is missing")
		} else if _, err := wire.DecodeKey(d.PrimaryKey); err != nil {
			j.fault(at+".primary_key", "want the key in base64, as the cloud shows it")
		}
		if d.SecondaryKey != "" {
			if _, err := wire.DecodeKey(d.SecondaryKey); err != nil {
				j.fault(at+".secondary_key", "want the key in base64, as the cloud shows it")
			}
		}
	}
}

func (j *judge) accounts(list []identity.AccountConfig) {
	first := map[string]int{} // name -> line
	for i, a := range list {
		at := fmt.Sprintf("account[%d]", i)
		switch {
		case a.Name == "":
			j.fault(at, "name is missing: the MQTT user name")
		case strings.ContainsAny(a.Name, "/\x00"):
			j.fault(at+".name", "%q has a slash in it; such user names are those of IoT Hub devices", a.Name)
		default:
			j.once(first, at+".name", a.Name)
		}
		if a.Password == "" {
			j.fault(at, `password is missing: the hash that "holdfast passwd" prints`)
		} else {
			j.check(at+".password", identity.CheckHash(a.Password))
		}
		if a.Device != "" {
			j.check(at+".device", checkIdentity(a.Device))
		}
		for k, f := range a.Publish {
			j.check(fmt.Sprintf("%s.publish[%d]", at, k), checkFilter(f))
		}
		for k, f := range a.Subscribe {
			j.check(fmt.Sprintf("%s.subscribe[%d]", at, k), checkFilter(f))
		}
	}
}

func (j *judge) once(first map[string]int, path, value string) {
	if line, ok := first[value]; ok {
		j.fault(path, "%q is there already, on line %d", value, line)
		return
	}
	first[value], _ = j.place(path)
}
