package main

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"holdfast.dev/holdfast/hub"
	"time"

	"holdfast.dev/holdfast/hub/identity"
)

const (
	goodHash = "$2a$10$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy"
	goodConn = "HostName=h.azure-devices.net;DeviceId=gw;ModuleId=$edgeHub;SharedAccessKey=c2VjcmV0"
)

func TestFaults(t *testing.T) {
	tests := []struct {
		name, doc string
		want      []string // as Fault.In("F") writes them
	}{
		{"nothing", "", nil},
		{"all well", "data = \"/d\"\n[mqtt]\nlisten = \":1\"\nkeep_alive = \"90s\"\n[iothub]\nrate = 5\npriority = 0\n", nil},
		{"float for float", "[iothub]\nrate = 2.5\n", nil},
		{"CRLF and BOM", "\xef\xbb\xbfdata = \"x\"\r\n[mqtt]\r\nlisten = \":1\"\r\n", nil},
		{"place with CRLF and BOM", "\xef\xbb\xbfdata = \"x\"\r\n[mqtt]\r\n  listn = \":1\"\r\n", []string{`F:3:3: mqtt.listn: is not known (did you mean "listen"?)`}},
		{"UTF-16", "\xff\xfed\x00", []string{"F:1:1: the file is UTF-16 text; save it as UTF-8"}},

		{"unknown key", "dta = \"x\"", []string{`F:1:1: dta: is not known (did you mean "data"?)`}},
		{"unknown key like none", "quux = 1", []string{`F:1:1: quux: is not known`}},
		{"unknown table", "[mqqt]\nlisten = 1\nfoo = 2\n[mqqt.more]\nx = 1", []string{`F:1:2: mqqt: is not known (did you mean "[mqtt]"?)`}},
		{"unknown array", "[[devices]]\nid = \"a\"\n[[devices]]\nid = \"b\"", []string{`F:1:3: devices: is not known (did you mean "[[device]]"?)`}},
		{"other case", "[mqtt]\nListen = \":1\"", []string{`F:2:1: mqtt.Listen: is not known (did you mean "listen"?)`}},
		{"other table", "[mqtt]\nconnection = \"x\"", []string{`F:2:1: mqtt.connection: is not known here (did you mean it to be in [iothub]?)`}},
		{"top key in a table", "[mqtt]\ndata = \"x\"", []string{`F:2:1: mqtt.data: is not known here: it belongs at the top of the file, before the first [table]`}},
		{"table key at the top", "primary_key = \"x\"", []string{`F:1:1: primary_key: is not known here (did you mean it to be in [[device]]?)`}},
		{"dotted", "mqtt.listn = \":1\"\nmqtt.window = \"x\"", []string{
			`F:1:6: mqtt.listn: is not known (did you mean "listen"?)`,
			`F:2:15: mqtt.window: want a whole number, have text`}},
		{"in an inline table", "mqtt = {listn = \":1\", window = 1.5}", []string{
			`F:1:9: mqtt.listn: is not known (did you mean "listen"?)`,
			`F:1:32: mqtt.window: want a whole number, have a number with a fraction`}},
		{"in each table", "[[account]]\nnmae = \"a\"\n[[account]]\nnmae = \"b\"", []string{
			`F:1:3: account: name is missing: the MQTT user name`,
			`F:1:3: account: password is missing: the hash that "holdfast passwd" prints`,
			`F:2:1: account.nmae: is not known (did you mean "name"?)`,
			`F:3:3: account: name is missing: the MQTT user name`,
			`F:3:3: account: password is missing: the hash that "holdfast passwd" prints`,
			`F:4:1: account.nmae: is not known (did you mean "name"?)`}},

		{"wrong type", "data = 5", []string{`F:1:8: data: want text in quotes, have a whole number`}},
		{"bare duration", "[mqtt]\nkeep_alive = 90", []string{`F:2:14: mqtt.keep_alive: want a duration in quotes, like "90s", have a whole number`}},
		{"bare size", "[store]\nmax_bytes = 1073741824", []string{`F:2:13: store.max_bytes: want a size in quotes, like "512MiB", have a whole number`}},
		{"bad duration", "[mqtt]\nkeep_alive = \"90 seconds\"", []string{`F:2:14: mqtt.keep_alive: duration "90 seconds": want a number and a unit: 500ms, 90s, 15m, 2h, 7d`}},
		{"bad size", "[store]\nmax_bytes = \"much\"", []string{`F:2:13: store.max_bytes: size "much": want a number and a unit: 64KiB, 512MiB, 1GiB, 4GB`}},
		{"two bad values", "[mqtt]\nkeep_alive = \"x\"\n[iothub]\nttl = \"y\"", []string{
			`F:2:14: mqtt.keep_alive: duration "x": want a number and a unit: 500ms, 90s, 15m, 2h, 7d`,
			`F:4:7: iothub.ttl: duration "y": want a number and a unit: 500ms, 90s, 15m, 2h, 7d`}},
		{"text for list", "[tls]\nnames = \"a\"", []string{`F:2:9: tls.names: want a list, like ["a", "b"], have text`}},
		{"number in list", "[tls]\nnames = [\"a\",\n 5]", []string{`F:3:2: tls.names: want text in quotes, have a whole number`}},
		{"key for table", "mqtt = 5", []string{`F:1:8: mqtt: want a table, have a whole number`}},
		{"table for key", "[data]\nx = 1", []string{`F:1:2: data: want text in quotes, have a table`}},
		{"dotted table for key", "data.x = 1", []string{`F:1:1: data: want text in quotes, have a table`}},
		{"one for many", "[device]\nid = \"a\"", []string{`F:1:2: device: want [[device]], one for each`}},
		{"many for one", "[[mqtt]]\nlisten = 1", []string{`F:1:3: mqtt: want [mqtt], once`}},
		{"number too big", "[mqtt]\nwindow = 99999999999999999999", []string{`F:2:10: mqtt.window: `}},

		{"twice", "[mqtt]\nwindow = 1\nwindow = 2", []string{`F:3:1: mqtt.window: key window is already defined`}},
		{"table twice", "[mqtt]\n[mqtt]", []string{`F:2:2: mqtt: table mqtt already exists`}},
		{"half a text", "[mqtt]\nlisten = \":18", []string{`F:2:13: unterminated basic string; the file ends here, it may have been cut off`}},
		{"half a key", "[mqtt]\nlis", []string{`F:2:3: expected '=' after key; the file ends here, it may have been cut off`}},
		{"half a table", "[mq", []string{`F:1:3: expected ']' to close table name; the file ends here, it may have been cut off`}},
		{"half a list", "[tls]\nnames = [\"a\",\n\n", []string{`F:3:1: array is incomplete; the file ends here, it may have been cut off`}},
		{"faults before a broken line", "dta = 1\nx = hello\ny = 1\n", []string{`F:1:1: dta: is not known (did you mean "data"?)`, `F:2:5: unexpected character U+0068 'h' at start of value`}},

		{"log", "[log]\nlevel = \"loud\"\nformat = \"xml\"", []string{
			`F:2:9: log.level: want one of "debug", "info", "warn", "error", have "loud"`, `F:3:10: log.format: want one of "text", "json", have "xml"`}},
		{"tls", "[tls]\ncertificate = \"a.pem\"\nnames = [\"ok\", \"10.0.0.1\", \"b d\"]", []string{
			`F:1:2: tls: certificate and key belong together: give both, or neither`, `F:3:28: tls.names: "b d" is neither a DNS name nor an address`}},
		{"store", "[store]\nmax_bytes = \"1MiB\"", []string{`F:2:13: store.max_bytes: want room for at least four segments, 64MiB`}},
		{"addresses", "[mqtt]\nlisten = \"1883\"\n[status]\nlisten = \"x:y\"", []string{
			`F:2:10: mqtt.listen: address "1883": want "host:port" or "address:port", or "off"`, `F:4:10: status.listen: address "x:y": want "host:port" or "address:port", or "off"`}},
		{"one port twice", "[mqtt]\nlisten = \":8883\"", []string{`F:1:2: mqtt.tls_listen: port 8883 is that of mqtt.listen, too`}},
		{"ports that are off or any", "[mqtt]\nlisten = \"off\"\ntls_listen = \":0\"\n[status]\nlisten=\":0\"\n[https]\nlisten=\"off\"", nil},
		{"connection", "[iothub]\nconnection = \"HostName=h;DeviceId=d;SharedAccessKey=c2VjcmV0\"", []string{
			`F:2:14: iothub.connection: ModuleId is not $edgeHub; want the connection string of the gateway's module $edgeHub, not the one of the device`}},
		{"connection of a policy", "[iothub]\nconnection = \"HostName=h;SharedAccessKeyName=p;SharedAccessKey=c2VjcmV0\"", []string{`F:2:14: iothub.connection: this is the connection string of a service policy`}},
		{"connection with a port", "[iothub]\nconnection = \"HostName=h:8883;DeviceId=d;ModuleId=$edgeHub;SharedAccessKey=c2VjcmV0\"", []string{`F:2:14: iothub.connection: HostName has to be a host name alone`}},
		{"connection with more", "[iothub]\nconnection = \"" + goodConn + ";X=1\"", []string{`F:2:14: iothub.connection: want HostName=…;DeviceId=…;ModuleId=$edgeHub;SharedAccessKey=… and nothing else`}},
		{"windows", "[mqtt]\nwindow = 70000\nkeep_alive = \"1ms\"\n[iothub]\nwindow = -1\nwindow_total = 60001\nwindow_bytes = 1000", []string{
			`F:2:10: mqtt.window: want 1 to 65535, have 70000`, `F:3:14: mqtt.keep_alive: want "1s" to "18h"`, `F:5:10: iothub.window: want 1 to 60000, have -1`,
			`F:6:16: iothub.window_total: want 1 to 60000, have 60001`, `F:7:16: iothub.window_bytes: want 524288 to 1073741824, have 1000`}},
		{"door", "[mqtt]\nper_address = -1\n", []string{
			`F:2:15: mqtt.per_address: want zero (the default) or more`}},
		{"iothub", "[iothub]\ntransport = \"amqp\"\nproxy = \"http://u:geheim@p\"\naddress = \":8883\"\npriority = 10\nrate = -1", []string{
			`F:2:13: iothub.transport: want one of "mqtt", "websocket", have "amqp"`,
			`F:3:9: iothub.proxy: want http://host:port or http://user:password@host:port`,
			`F:4:11: iothub.address: address ":8883": host is missing, want "host:port"`,
			`F:5:12: iothub.priority: want 0 (first) to 9, have 10`,
			`F:6:8: iothub.rate: want zero (the default) or more`}},
		{"devices", "[[device]]\nid = \"a b\"\nprimary_key = \"c2VjcmV0\"\n[[device]]\nid = \"d\"\nprimary_key = \"!\"\n[[device]]\nid = \"d\"\n", []string{
			`F:2:6: device.id: device id "a b": character ' ' is not allowed`,
			`F:6:15: device.primary_key: want the key in base64, as the cloud shows it`,
			`F:7:3: device: primary_key is missing`,
			`F:8:6: device.id: "d" is there already, on line 5`}},
		{"accounts", "[[account]]\nname = \"a\"\npassword = \"geheim\"\npublish = [\"x/#/y\"]\n[[account]]\nname = \"a\"\npassword = \"" + goodHash + "\"\ndevice=\"x y\"\n[[account]]\nname=\"a/b\"\npassword=\"" + goodHash + "\"\n", []string{
			`F:3:12: account.password: password is neither an argon2id nor a bcrypt hash; make one with holdfast passwd`,
			`F:4:12: account.publish: filter "x/#/y": "#" has to be the whole of the last level, like "a/#"`,
			`F:6:8: account.name: "a" is there already, on line 2`,
			`F:8:8: account.device: device id "x y": character ' ' is not allowed`,
			`F:10:6: account.name: "a/b" has a slash in it; such user names are those of IoT Hub devices`}},
		{"forwards", "[[forward]]\n[[forward]]\nfilter = \"a+\"\npriority = -1\n[[forward]]\nfilter = \"devices/#\"", []string{
			`F:1:3: forward: filter is missing: which topics go up, like "plant/#"`,
			`F:3:10: forward.filter: filter "a+": "+" has to be the whole of its level, like "a/+/b"`,
			`F:4:12: forward.priority: want 0 (first) to 9, have -1`,
			`F:6:10: forward.filter: filter "devices/#": ordinary clients cannot publish there`}},
		{"live", "[iothub]\npriority = 4\nlive = true\nlive_share = 30\nlive_backlog = 50\n[[forward]]\nfilter = \"a\"\npriority = 2\nlive = true\n[[forward]]\nfilter = \"b\"\npriority = 4\nlive = true\n[[forward]]\nfilter = \"c\"", nil},
		{"live and not", "[iothub]\nlive_share = 100\nlive_backlog = -1\n[[forward]]\nfilter = \"a\"\nlive = true\n[[forward]]\nfilter = \"b\"\npriority = 2\nlive = true\n[[forward]]\nfilter = \"c\"\npriority = 2", []string{
			`F:2:14: iothub.live_share: want 1 to 99, have 100`,
			`F:3:16: iothub.live_backlog: want 1 to 1073741824, have -1`,
			`F:6:8: forward.live: priority 5 is that of telemetry, too, which is not live; make both live, or give this a priority of its own`,
			`F:10:8: forward.live: priority 2 is that of the [[forward]] on line 11, too, which is not live; make both live`}},
		{"live telemetry and not", "[iothub]\nlive = true\n[[forward]]\nfilter = \"a\"", []string{
			`F:2:8: iothub.live: priority 5 is that of the [[forward]] on line 3, too, which is not live`}},
		{"inline array", "device = [{id = \"a\", primary_key = \"c2VjcmV0\"}, {id = \"a\", primary_key = \"c2VjcmV0\"}]", []string{
			`F:1:55: device.id: "a" is there already, on line 1`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, faults := parse([]byte(tt.doc))
			var got []string
			for _, f := range faults {
				got = append(got, f.In("F"))
			}
			for i := range max(len(got), len(tt.want)) {
				switch {
				case i >= len(got):
					t.Errorf("missing: %s", tt.want[i])
				case i >= len(tt.want):
					t.Errorf("too many: %s", got[i])
				case !strings.HasPrefix(got[i], tt.want[i]):
					t.Errorf("\n got %s\nwant %s", got[i], tt.want[i])
				}
			}
		})
	}
}

func TestLoad(t *testing.T) {
	file := filepath.Join(t.TempDir(), "holdfast.toml")
	doc := "data = \"/d\"\r\n[store]\nmax_bytes = \"2GiB\"\nlinger = \"2ms\"\n[iothub]\nconnection = '" + goodConn + "'\npriority = 0\n[[account]]\nname = \"a\"\npassword = '" + goodHash + "'\npublish = [\"a/#\"]\n"
	if err := os.WriteFile(file, []byte(doc), 0o600); err != nil {
		t.Fatal(err)
	}
	c, faults, err := Load(file)
	if err != nil || len(faults) > 0 {
		t.Fatalf("Load: %v, %v", faults, err)
	}
	want := Config{
		Data: "/d", Log: LogConfig{"info", "text"}, Status: StatusConfig{"127.0.0.1:9600"},
		Store:    StoreConfig{MaxBytes: 2 << 30, Linger: c.Store.Linger},
		Accounts: []identity.AccountConfig{{Name: "a", Password: goodHash, Publish: []string{"a/#"}}},
	}
	zero := 0
	want.IoTHub.Connection, want.IoTHub.Priority = goodConn, &zero
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got  %+v\nwant %+v", c, want)
	}
	if o := c.Store.Options(nil); o.MaxBytes != 2<<30 || o.Linger != 2*time.Millisecond {
		t.Errorf("options %+v", o)
	}
}

func TestLoadNothing(t *testing.T) {
	c, faults, err := Load("")
	if err != nil || faults != nil || c.Data != "holdfast-data" || c.Status.Listen != "127.0.0.1:9600" {
		t.Errorf("Load of no file: %+v, %v, %v", c, faults, err)
	}
	if _, _, err = Load(filepath.Join(t.TempDir(), "none.toml")); err == nil || hintOf(err) == "" {
		t.Errorf("Load of a missing file: %v, want an error with a hint", err)
	}
	if _, _, err = Load(t.TempDir()); err == nil {
		t.Error("Load of a folder: no error")
	}
}

// No fault may quote what could be a secret.
func TestFaultsKeepSecrets(t *testing.T) {
	const secret = "Geheim42"
	for _, doc := range []string{
		"[[account]]\nname = \"a\"\npassword = \"" + secret + "\"",
		"[[account]]\nname = \"a\"\npassword = [\"" + secret + "\"]",
		"[[device]]\nid = \"a\"\nprimary_key = \"!" + secret + "\"\nsecondary_key = \"!" + secret + "\"",
		"[iothub]\nconnection = \"" + secret + "\"",
		"[iothub]\nconnection = \"HostName=h;DeviceId=d;ModuleId=$edgeHub;SharedAccessKey=!" + secret + "\"",
		"[iothub]\nproxy = \"https://u:" + secret + "@h:1\"",
		"[iothub]\nproxy = \"http://u:" + secret + "%zz@h:1\"",
		"[iothub]\nconnection = \"" + secret + "\nx=1",
	} {
		_, faults := parse([]byte(doc))
		if len(faults) == 0 {
			t.Errorf("no fault in %q", doc)
		}
		for _, f := range faults {
			if strings.Contains(f.In("F"), secret) {
				t.Errorf("fault quotes a secret: %s", f.In("F"))
			}
		}
	}
}

func TestSize(t *testing.T) {
	for _, tt := range []struct {
		text string
		want hub.Size
		ok   bool
	}{
		{"1GiB", 1 << 30, true}, {"1.5MiB", 3 << 19, true}, {"64 KiB", 64 << 10, true}, {"4GB", 4e9, true}, {"10B", 10, true}, {"2kB", 2000, true}, {"0B", 0, true},
		{"", 0, false}, {"5", 0, false}, {"GiB", 0, false}, {"-1GiB", 0, false}, {"NaNGiB", 0, false}, {"1e30TiB", 0, false}, {"1gib", 0, false}, {"InfB", 0, false},
	} {
		var s hub.Size
		err := s.UnmarshalText([]byte(tt.text))
		if (err == nil) != tt.ok || s != tt.want {
			t.Errorf("size %q: %d, %v", tt.text, s, err)
		}
	}
}

// Whatever is in the file, parse answers, and a place is inside of the file.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"", "a", "[mqtt]\nlisten=1", "[[device]]\nid='x'", "device=[{id=1}]", "mqtt={listen={}}", "data.x.y=1", "[data.x]\n", "[[device.id]]", "[device.id]\nx=1", "[[device]]\n[device.id]\nx=1", "tls.names=[[1]]", "mqtt.keep_alive.x=1", "\"\"=1", "[iothub.priority]\nx=1"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		_, faults := parse(doc)
		lines := strings.Count(string(doc), "\n") + 1
		for _, fault := range faults {
			if fault.Text == "" || fault.Line < 0 || fault.Line > lines {
				t.Errorf("fault %+v of %d lines", fault, lines)
			}
		}
	})
}
