package identity

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"holdfast.dev/holdfast/hub"
	"holdfast.dev/holdfast/hub/wire"
	"holdfast.dev/holdfast/storage"
)

// raw signs sr as it stands and lets the caller write the fields, as SDKs differ.
func raw(sr string, key []byte, se int64, format string) string {
	h := hmac.New(sha256.New, key)
	fmt.Fprintf(h, "%s\n%d", sr, se)
	sig := url.QueryEscape(base64.StdEncoding.EncodeToString(h.Sum(nil)))
	return "SharedAccessSignature " + strings.NewReplacer("{sr}", sr, "{sig}", sig, "{se}", fmt.Sprint(se)).Replace(format)
}

const usual = "sr={sr}&sig={sig}&se={se}"

func TestTokenForms(t *testing.T) {
	se := noon.Add(time.Hour).Unix()
	late := noon.Add(-6 * time.Minute).Unix()
	d := mustNew(t, Config{}, Deps{
		Hosts: []string{"Hub.Local", "gw.plant"},
		Keep:  kept(t, entry("d1", keyA, keyB), entry("d1/m1", keyC), entry("D$1.%41", keyA), entry("hub/$edgeHub", keyA)),
	})
	for _, c := range []struct {
		name string
		id   hub.Identity
		pass string
		good bool
	}{
		{"node device", "d1", raw("hub.local%2Fdevices%2Fd1", keyA, se, usual), true},
		{"node module", "d1/m1", raw("hub.local%2Fdevices%2Fd1%2Fmodules%2Fm1", keyC, se, usual), true},
		{"secondary key", "d1", raw("hub.local%2Fdevices%2Fd1", keyB, se, usual), true},
		{"small hex", "d1", raw("hub.local%2fdevices%2fd1", keyA, se, usual), true},
		{"c sdk, not encoded", "d1", raw("hub.local/devices/d1", keyA, se, usual), true},
		{"c sdk, module", "d1/m1", raw("hub.local/devices/d1/modules/m1", keyC, se, usual), true},
		{"go client, host alone", "d1", raw("hub.local", keyA, se, usual), true},
		{"go client, module", "d1/m1", raw("hub.local", keyC, se, usual), true},
		{"ids encoded twice", "hub/$edgeHub", raw("hub.local%2Fdevices%2Fhub%2Fmodules%2F%2524edgeHub", keyA, se, usual), true},
		{"ids encoded once", "hub/$edgeHub", raw("hub.local%2Fdevices%2Fhub%2Fmodules%2F%24edgeHub", keyA, se, usual), true},
		{"percent in the id, not encoded", "D$1.%41", raw("hub.local/devices/D$1.%41", keyA, se, usual), true},
		{"percent in the id, once", "D$1.%41", raw("hub.local%2Fdevices%2FD%241.%2541", keyA, se, usual), true},
		{"percent in the id, twice", "D$1.%41", raw("hub.local%2Fdevices%2FD%25241.%252541", keyA, se, usual), true},
		{"our own", "d1/m1", token("d1/m1", keyC), true},
		{"case of host and id", "d1", raw("HUB.local%2Fdevices%2FD1", keyA, se, usual), true},
		{"the gateway's name", "d1", raw("gw.plant%2Fdevices%2Fd1", keyA, se, usual), true},
		{"host with port", "d1", raw("hub.local%3A18883%2Fdevices%2Fd1", keyA, se, usual), true},
		{"other order, capitals, policy", "d1", raw("hub.local%2Fdevices%2Fd1", keyA, se, "SE={se}&skn=&Sig={sig}&sr={sr}"), true},
		{"within the skew", "d1", raw("hub.local%2Fdevices%2Fd1", keyA, late+61, usual), true},

		{"expired", "d1", raw("hub.local%2Fdevices%2Fd1", keyA, late, usual), false},
		{"foreign key", "d1", raw("hub.local%2Fdevices%2Fd1", keyC, se, usual), false},
		{"device's key for a module", "d1/m1", raw("hub.local%2Fdevices%2Fd1%2Fmodules%2Fm1", keyA, se, usual), false},
		{"device's token for a module", "d1/m1", raw("hub.local%2Fdevices%2Fd1", keyC, se, usual), false},
		{"module's token for the device", "d1", raw("hub.local%2Fdevices%2Fd1%2Fmodules%2Fm1", keyA, se, usual), false},
		{"other device's audience", "d1", raw("hub.local%2Fdevices%2Fd2", keyA, se, usual), false},
		{"other host", "d1", raw("evil.local%2Fdevices%2Fd1", keyA, se, usual), false},
		{"other host alone", "d1", raw("evil.local", keyA, se, usual), false},
		{"path before the host", "d1", raw("hub.local%2Fx%2Fdevices%2Fd1", keyA, se, usual), false},
		{"no host", "d1", raw("%2Fdevices%2Fd1", keyA, se, usual), false},
		{"more after the id", "d1", raw("hub.local%2Fdevices%2Fd1%2Fmessages", keyA, se, usual), false},
		{"broken encoding", "d1", raw("hub.local%2Fdevices%2Fd1%", keyA, se, usual), false},
		{"signed text changed", "d1", strings.Replace(raw("hub.local%2Fdevices%2Fd1", keyA, se, usual), "hub.local", "gw.plant", 1), false},
		{"longer life than signed", "d1", strings.Replace(raw("hub.local%2Fdevices%2Fd1", keyA, se, usual), fmt.Sprint(se), fmt.Sprint(se+1), 1), false},
		{"no scheme", "d1", strings.TrimPrefix(token("d1", keyA), "SharedAccessSignature "), false},
		{"leading blank", "d1", " " + token("d1", keyA), false},
		{"two blanks", "d1", strings.Replace(token("d1", keyA), " ", "  ", 1), false},
		{"blank inside", "d1", token("d1", keyA) + " x", false},
		{"empty", "d1", "", false},
		{"the key itself", "d1", base64.StdEncoding.EncodeToString(keyA), false},
	} {
		_, err := d.Device(t.Context(), user(c.id), c.pass)
		if c.good && err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if !c.good && !errors.Is(err, hub.ErrUnauthorized) {
			t.Errorf("%s: %v, want ErrUnauthorized", c.name, err)
		}
	}
}

func TestAnyHost(t *testing.T) {
	d := mustNew(t, Config{}, Deps{Keep: kept(t, entry("d1", keyA))})
	for sr, good := range map[string]bool{
		"any.host%2Fdevices%2Fd1":        true,
		"any.host":                       true,
		"%2Fdevices%2Fd1":                false,
		"any.host%2Fpath%2Fdevices%2Fd1": false,
	} {
		_, err := d.Device(t.Context(), user("d1"), raw(sr, keyA, noon.Unix(), usual))
		if good && err != nil || !good && !errors.Is(err, hub.ErrUnauthorized) {
			t.Errorf("%s: %v, want good %v", sr, err, good)
		}
	}
}

// Tokens that others have made, byte for byte.
func TestTokenVectors(t *testing.T) {
	key, err := wire.DecodeKey("MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=")
	if err != nil {
		t.Fatal(err)
	}
	short, err := wire.DecodeKey("key") // Node takes it; what it signs with are two bytes
	if err != nil {
		t.Fatal(err)
	}
	then := fakeClock{time.Unix(12345, 0), storage.GradeNTP}
	for _, c := range []struct {
		name  string
		clock storage.Clock
		e     Entry
		pass  string
	}{
		{"node sdk, captured", clock, entry("d1", key), "SharedAccessSignature sr=hub.local%2Fdevices%2Fd1&sig=U%2FcTtHabQTTPaF0NuUaYpkdr4iw9%2B23eGHz05VrORuU%3D&se=1795439572"},
		{"module", clock, entry("d1/m1", key), "SharedAccessSignature sr=hub.local%2Fdevices%2Fd1%2Fmodules%2Fm1&sig=iM2h%2B2Ezv3bY1x2cStj7TTKjHU4Lb44KtbVsluVx3N0%3D&se=1893456000"},
		{"node sdk, its test", then, entry("device", short), "SharedAccessSignature sr=host%2Fdevices%2Fdevice&sig=wM3XiP6gD960IxP7J5WHqnxQHEcWC6YaQCtoMT%2BkKHc%3D&se=12345"},
	} {
		d := mustNew(t, Config{}, Deps{Clock: c.clock, Keep: kept(t, c.e), Key: sealer})
		if _, err := d.Device(t.Context(), user(c.e.ID), c.pass); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		bad := strings.Replace(c.pass, "sig=", "sig=A", 1)
		if _, err := d.Device(t.Context(), user(c.e.ID), bad); !errors.Is(err, hub.ErrUnauthorized) {
			t.Errorf("%s, signature changed: %v, want ErrUnauthorized", c.name, err)
		}
	}
}

func TestExpiryByGrade(t *testing.T) {
	old := wire.NewSAS(testHost, "d1", "", keyA, noon.Add(-time.Hour))
	for g := storage.GradeNone; g <= storage.GradeNTP; g++ {
		d := mustNew(t, Config{}, Deps{Clock: fakeClock{noon, g}, Keep: kept(t, entry("d1", keyA))})
		_, err := d.Device(t.Context(), user("d1"), old)
		if want := g != storage.GradeNone; errors.Is(err, hub.ErrUnauthorized) != want {
			t.Errorf("grade %s: %v, want refused %v", g, err, want)
		}
		forged := wire.NewSAS(testHost, "d1", "", keyB, noon.Add(-time.Hour))
		if _, err := d.Device(t.Context(), user("d1"), forged); !errors.Is(err, hub.ErrUnauthorized) {
			t.Errorf("grade %s, foreign key: %v, want ErrUnauthorized", g, err)
		}
	}
}

// The table of Device's comment.
func TestDecisions(t *testing.T) {
	off := entry("off", keyA)
	off.Enabled = false
	x509 := entry("x509", keyA)
	x509.Auth = CA
	none := Entry{ID: "d1/none", Enabled: true, Auth: NoAuth}
	bare := Entry{ID: "bare", Enabled: true, Auth: SymmetricKey}
	scope := []Entry{entry("d1", keyA), off, x509, none, bare}
	const (
		noCloud = iota
		offline
		silent
		answers
	)
	U, N := hub.ErrUnauthorized, hub.ErrUnsure
	for _, c := range []struct {
		name string
		id   hub.Identity
		key  []byte
		want [4]error // by how the cloud is
	}{
		{"known, right key", "d1", keyA, [4]error{nil, nil, nil, nil}},
		{"known, wrong key", "d1", keyB, [4]error{U, U, N, U}},
		{"disabled", "off", keyA, [4]error{U, U, N, U}},
		{"by certificate", "x509", keyA, [4]error{U, U, N, U}},
		{"without keys", "d1/none", keyA, [4]error{U, U, N, U}},
		{"without keys, empty key", "d1/none", nil, [4]error{U, U, N, U}},
		{"a token without its keys, empty key", "bare", nil, [4]error{U, U, N, U}},
		{"not known", "new", keyA, [4]error{U, N, N, U}},
		{"from the file", "fix", keyC, [4]error{nil, nil, nil, nil}},
		{"from the file, wrong key", "fix", keyA, [4]error{U, U, U, U}},
	} {
		for how := noCloud; how <= answers; how++ {
			src := newSource(scope...)
			src.setDown(how == silent)
			deps := Deps{Keep: kept(t, scope...), Source: src, Online: newLink(how != offline)}
			if how == noCloud {
				deps.Source = nil
			}
			d := mustNew(t, Config{Devices: []DeviceConfig{{ID: "fix", PrimaryKey: base64.StdEncoding.EncodeToString(keyC)}}}, deps)
			if got := try(t, d, c.id, c.key); got != c.want[how] {
				t.Errorf("%s, cloud %d: %v, want %v", c.name, how, got, c.want[how])
			}
			if n := src.asks(c.id); n > 1 || how < silent && n > 0 {
				t.Errorf("%s, cloud %d: asked %d times", c.name, how, n)
			}
		}
	}
}

func TestConfigErrors(t *testing.T) {
	good := base64.StdEncoding.EncodeToString(keyA)
	hash, _ := Hash([]byte("x"))
	dev := func(c ...DeviceConfig) Config { return Config{Devices: c} }
	acc := func(c ...AccountConfig) Config { return Config{Accounts: c} }
	for _, c := range []struct {
		name string
		c    Config
		want string
	}{
		{"key", dev(DeviceConfig{"a", good, ""}, DeviceConfig{"b", good, ""}, DeviceConfig{"c", "not*base64", ""}), "[[device]] 3: primary_key is not base64"},
		{"second key", dev(DeviceConfig{"a", good, "not*base64"}), "[[device]] 1: secondary_key is not base64"},
		{"no key", dev(DeviceConfig{"a", "", ""}), "[[device]] 1: primary_key is missing"},
		{"no id", dev(DeviceConfig{"", good, ""}), "[[device]] 1: id is empty"},
		{"slashes", dev(DeviceConfig{"a/b/c", good, ""}), "[[device]] 1: module id \"b/c\": character '/'"},
		{"module empty", dev(DeviceConfig{"a/", good, ""}), "[[device]] 1: module id is empty"},
		{"twice", dev(DeviceConfig{"a", good, ""}, DeviceConfig{"a", good, ""}), "[[device]] 2: id \"a\" stands in another"},
		{"clear password", acc(AccountConfig{Name: "pump", Password: "hunter2"}), `[[account]] "pump": password is neither an argon2id nor a bcrypt hash; make one with holdfast passwd`},
		{"no password", acc(AccountConfig{Name: "pump"}), `[[account]] "pump": password is missing`},
		{"no name", acc(AccountConfig{Password: hash}), "[[account]] 1: name is missing"},
		{"slash", acc(AccountConfig{Name: "a/b", Password: hash}), "slash"},
		{"name twice", acc(AccountConfig{Name: "a", Password: hash}, AccountConfig{Name: "a", Password: hash}), "another [[account]]"},
		{"device", acc(AccountConfig{Name: "a", Password: hash, Device: "x y"}), `[[account]] "a": device: id "x y"`},
		{"publish", acc(AccountConfig{Name: "a", Password: hash, Publish: []string{"a/#/b"}}), `publish: filter "a/#/b": # must be the last level`},
		{"subscribe", acc(AccountConfig{Name: "a", Password: hash, Subscribe: []string{"ok/+", "a+"}}), `subscribe: filter "a+"`},
		{"all at once", Config{Devices: []DeviceConfig{{"a", "", ""}}, Accounts: []AccountConfig{{Name: "b"}}}, "[[account]] \"b\""},
	} {
		_, err := New(c.c, Deps{})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q in it", c.name, err, c.want)
		}
		if err != nil && has(err.Error(), "hunter2") || err != nil && has(err.Error(), "not*base64") {
			t.Errorf("%s: error quotes a secret: %v", c.name, err)
		}
	}
}

func TestEntryHidesKeys(t *testing.T) {
	e := entry("d1", keyA, keyB)
	for _, format := range []string{"%v", "%+v", "%s", "%#v", "%q"} {
		s := fmt.Sprintf(format, e) + fmt.Sprintf(format, []Entry{e}) + fmt.Sprintf(format, learned{Entry: e})
		if has(s, string(keyA)) || has(s, "97, 32") || has(s, "[97 32") || has(s, "0x61, 0x20") {
			t.Errorf("%s shows a key: %s", format, s)
		}
	}
}
