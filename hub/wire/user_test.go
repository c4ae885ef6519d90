package wire

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestParseUser(t *testing.T) {
	for _, c := range []struct {
		name string
		want User
	}{
		// What SDKs really send.
		{"hub.local/d1/?api-version=2021-04-12&DeviceClientType=azure-iot-device%2F1.18.4%20(node%20v20.20.2%3B%20Debian%2012%3B%20x64)",
			User{Host: "hub.local", Device: "d1", APIVersion: "2021-04-12", ClientType: "azure-iot-device/1.18.4 (node v20.20.2; Debian 12; x64)"}},
		{"hub/dev/mod/?api-version=2019-10-01&DeviceClientType=azure-iot-device-iothub-py%2F2.14.0%28x%29",
			User{Host: "hub", Device: "dev", Module: "mod", APIVersion: "2019-10-01", ClientType: "azure-iot-device-iothub-py/2.14.0(x)"}},
		{"hub/dev/?api-version=2020-09-30&DeviceClientType=iothubclient%2f1.15.0%20(native%3b%20Linux)", // small hex
			User{Host: "hub", Device: "dev", APIVersion: "2020-09-30", ClientType: "iothubclient/1.15.0 (native; Linux)"}},
		{"hub/dev/api-version=2020-09-30", User{Host: "hub", Device: "dev", APIVersion: "2020-09-30"}}, // Go: no "?"
		{"hub/dev/mod/api-version=2018-06-30", User{Host: "hub", Device: "dev", Module: "mod", APIVersion: "2018-06-30"}},
		{"hub/gw/$edgeHub/?api-version=2018-06-30", User{Host: "hub", Device: "gw", Module: "$edgeHub", APIVersion: "2018-06-30"}},
		// Forms.
		{"h/d/?api-version=1&model-id=dtmi%3Aa%3Bb%3B1&DeviceClientType=x", User{Host: "h", Device: "d", APIVersion: "1", ModelID: "dtmi:a;b;1", ClientType: "x"}},
		{"h/d/?api-version=1&auth-chain=d%2Fm%3Bd%3Bgw", User{Host: "h", Device: "d", APIVersion: "1", AuthChain: []string{"d/m", "d", "gw"}}},
		{"h/d/?api-version=1&api-version=2", User{Host: "h", Device: "d", APIVersion: "1"}}, // the first wins
		{"h/d/?a=b&api-version=1&c", User{Host: "h", Device: "d", APIVersion: "1"}},         // the rest is ignored
		{"h/d/?&&api-version=1&", User{Host: "h", Device: "d", APIVersion: "1"}},
		{"localhost:8883/d-.%_*?!(),:=@$'/?api-version=1", User{Host: "localhost:8883", Device: "d-.%_*?!(),:=@$'", APIVersion: "1"}},
	} {
		got, err := ParseUser(c.name)
		if err != nil || !equalUsers(got, c.want) {
			t.Errorf("ParseUser(%q) = %+v, %v, want %+v", c.name, got, err, c.want)
		}
		if !IsUser(c.name) {
			t.Errorf("IsUser(%q) is false", c.name)
		}
	}
}

func TestParseUserRefuses(t *testing.T) {
	for _, c := range []struct{ name, want string }{
		{"", "want {host}/{device}"},
		{"sensor", "want {host}/{device}"},
		{"h/d", "want {host}/{device}"},
		{"h/d/m/x/?api-version=1", "want {host}/{device}"},
		{"/d/?api-version=1", "host is empty"},
		{"h//?api-version=1", "device id is empty"},
		{"h/d//?api-version=1", "module id is empty"},
		{"h/a b/?api-version=1", "character ' ' is not allowed"},
		{"h/a+b/?api-version=1", "character '+' is not allowed"},
		{"h/d/m#/?api-version=1", "character '#' is not allowed"},
		{"h/dé/?api-version=1", "is not allowed"},
		{"h/" + strings.Repeat("d", 129) + "/?api-version=1", "129 characters"},
		{"h/d/", "api-version is missing"},
		{"h/d/?", "api-version is missing"},
		{"h/d/?api-version=", "api-version is missing"},
		{"h/d/?Api-Version=1", "api-version is missing"},
		{"h/d/?DeviceClientType=api-version=1", "api-version is missing"},
		{"h/d/?api-version=%zz", "property api-version"},
	} {
		_, err := ParseUser(c.name)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("ParseUser(%q): %v, want %q", c.name, err, c.want)
		}
	}
}

func TestIsUser(t *testing.T) {
	for name, want := range map[string]bool{
		"sensor": false, "": false, "api-version=1": false, "h/d": false, "h/d/?api-version=1": true,
		"h//?api-version=": true, // meant as one, and refused as a bad one
	} {
		if got := IsUser(name); got != want {
			t.Errorf("IsUser(%q) = %v, want %v", name, got, want)
		}
	}
}

func TestUserRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		word := rapid.StringMatching(`[ -~é]{1,20}`)
		u := User{
			Host:       rapid.StringMatching(`[a-z0-9.:-]{1,20}`).Draw(t, "host"),
			Device:     drawID(t, "device"),
			APIVersion: rapid.StringMatching(`[0-9-]{1,10}(-preview)?`).Draw(t, "api"),
		}
		if rapid.Bool().Draw(t, "module?") {
			u.Module = drawID(t, "module")
		}
		if rapid.Bool().Draw(t, "type?") {
			u.ClientType = word.Draw(t, "type")
		}
		if rapid.Bool().Draw(t, "model?") {
			u.ModelID = word.Draw(t, "model")
		}
		if rapid.Bool().Draw(t, "chain?") {
			u.AuthChain = []string{u.ClientID(), drawID(t, "gateway")}
		}
		got, err := ParseUser(u.String())
		if err != nil || !equalUsers(got, u) {
			t.Fatalf("ParseUser(%q) = %+v, %v, want %+v", u.String(), got, err, u)
		}
	})
}

func drawID(t *rapid.T, label string) string {
	return rapid.StringMatching(`[a-zA-Z0-9\-.%_*?!(),:=@$']{1,128}`).Draw(t, label)
}

func equalUsers(a, b User) bool {
	chains := slices.Equal(a.AuthChain, b.AuthChain)
	a.AuthChain, b.AuthChain = nil, nil
	return chains && a.Host == b.Host && a.Device == b.Device && a.Module == b.Module &&
		a.APIVersion == b.APIVersion && a.ClientType == b.ClientType && a.ModelID == b.ModelID
}

func FuzzParseUser(f *testing.F) {
	f.Add("hub.local/d1/?api-version=2021-04-12&DeviceClientType=azure-iot-device%2F1.18.4")
	f.Add("hub/dev/mod/api-version=2018-06-30")
	f.Add("h/d/?api-version=1&auth-chain=d%2Fm%3Bd%3Bgw&model-id=dtmi%3Aa%3B1")
	f.Fuzz(func(t *testing.T, s string) {
		u, err := ParseUser(s)
		if err != nil {
			return
		}
		if CheckID(u.Device) != nil || u.Module != "" && CheckID(u.Module) != nil || u.APIVersion == "" {
			t.Fatalf("ParseUser(%q) took %+v", s, u)
		}
		if again, err := ParseUser(u.String()); err != nil || !equalUsers(again, u) {
			t.Fatalf("ParseUser(%q) = %+v, written %q, read %+v, %v", s, u, u.String(), again, err)
		}
	})
}
