package wire

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestParseTelemetry(t *testing.T) {
	for _, c := range []struct{ topic, device, module, bag string }{
		{"devices/d1/messages/events/" + captured, "d1", "", captured},
		{"devices/d1/messages/events", "d1", "", ""},
		{"devices/d1/messages/events/", "d1", "", ""},
		{"devices/d1/messages/events/a=b/", "d1", "", "a=b"},
		{"devices/d1/messages/events/?a=b", "d1", "", "a=b"},
		{"devices/d1/messages/events/?a=b/", "d1", "", "a=b"},
		{"devices/d/modules/m/messages/events/%24.on=out1&k=v/", "d", "m", "%24.on=out1&k=v"}, // Node: closed by a slash
		{"devices/d/modules/m/messages/events/%24.on=out1", "d", "m", "%24.on=out1"},
		{"devices/d/modules/m/messages/events", "d", "m", ""},
		{"devices/modules/messages/events/a=b", "modules", "", "a=b"}, // a device may be called so
	} {
		device, module, bag, err := ParseTelemetry(c.topic)
		if err != nil || device != c.device || module != c.module || string(bag) != c.bag {
			t.Errorf("%s: %q, %q, %q, %v", c.topic, device, module, bag, err)
		}
	}
	for _, bad := range []string{
		"", "devices", "devices/d", "devices/d/messages", "devices/d/messages/event", "devices//messages/events/",
		"device/d/messages/events/", "devices/d/modules//messages/events/", "devices/d/modules/m/events/",
		"devices/d/modules/m/messages", "devices/d/messages/events/a=b/c", "devices/d/messages/events/a=b//",
		"devices/d/messages/events/a=%zz", "devices/d/messages/devicebound/", "/devices/d/messages/events/",
		"devices/d/modules/m/modules/n/messages/events", "devices/d/modules/m/messages/events/x/y",
	} {
		if device, module, bag, err := ParseTelemetry(bad); err == nil {
			t.Errorf("%q is taken as %q, %q, %q", bad, device, module, bag)
		}
	}
}

func TestParseDevicebound(t *testing.T) {
	for _, c := range []struct{ topic, device, module, bag string }{
		{"devices/d/messages/devicebound/%24.to=%2Fdevices%2Fd%2Fmessages%2Fdevicebound&k=v", "d", "", "%24.to=%2Fdevices%2Fd%2Fmessages%2Fdevicebound&k=v"},
		{"devices/d/messages/devicebound/", "d", "", ""},
		{"devices/d/modules/m/messages/devicebound/k=v", "d", "m", "k=v"},
	} {
		device, module, bag, err := ParseDevicebound(c.topic)
		if err != nil || device != c.device || module != c.module || string(bag) != c.bag {
			t.Errorf("%s: %q, %q, %q, %v", c.topic, device, module, bag, err)
		}
	}
	for _, bad := range []string{"", "devices/d/messages/devicebound", "devices/d/messages/events/", "devices/d/messages/devicebound/a=%", "devices/d/modules/m/messages/devicebound"} {
		if _, _, _, err := ParseDevicebound(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func TestMethodTopics(t *testing.T) {
	for _, rid := range []string{"1", "af", "6f9619ff-8b86-d011-b42d-00c04fc964ff"} { // as decimal, hex, uuid: all occur
		if name, got, err := ParseMethod(MethodTopic("reboot", rid)); err != nil || name != "reboot" || got != rid {
			t.Errorf("method: %q, %q, %v", name, got, err)
		}
		if status, got, err := ParseMethodReply(MethodReplyTopic(-7, rid)); err != nil || status != -7 || got != rid {
			t.Errorf("reply: %d, %q, %v", status, got, err)
		}
	}
	if status, rid, err := ParseMethodReply("$iothub/methods/res/200/?x=y&$rid=1&z"); err != nil || status != 200 || rid != "1" {
		t.Errorf("reply with more: %d, %q, %v", status, rid, err)
	}
	for _, bad := range []string{
		"", "$iothub/methods/res/200", "$iothub/methods/res/200/", "$iothub/methods/res/200/?", "$iothub/methods/res/200/?$rid=",
		"$iothub/methods/res//?$rid=1", "$iothub/methods/res/ok/?$rid=1", "$iothub/methods/res/2/3/?$rid=1", "$iothub/methods/POST/m/?$rid=1",
		"$iothub/methods/res/200x/?$rid=1", "$iothub/methods/res/99999999999999999999/?$rid=1",
	} {
		if status, rid, err := ParseMethodReply(bad); err == nil {
			t.Errorf("%q is taken as %d, %q", bad, status, rid)
		}
	}
	if !IsMethodReply(MethodReplyTopic(200, "1")) || IsMethodReply(MethodTopic("m", "1")) {
		t.Error("IsMethodReply takes one for the other")
	}
}

func TestTopicRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		device, module := drawID(t, "device"), ""
		if rapid.Bool().Draw(t, "module?") {
			module = drawID(t, "module")
		}
		bag := NewBag()
		if rapid.Bool().Draw(t, "bag?") {
			bag = NewBag(rapid.StringN(1, 8, 32).Draw(t, "key"), rapid.String().Draw(t, "value"))
		}
		d, m, b, err := ParseTelemetry(TelemetryTopic(device, module, bag))
		if err != nil || d != device || m != module || b != bag {
			t.Fatalf("telemetry of %q, %q with %q: %q, %q, %q, %v", device, module, bag, d, m, b, err)
		}
		d, m, b, err = ParseDevicebound(DeviceboundTopic(device, module, bag))
		if err != nil || d != device || m != module || b != bag {
			t.Fatalf("devicebound of %q, %q with %q: %q, %q, %q, %v", device, module, bag, d, m, b, err)
		}
		if want := strings.TrimSuffix(DeviceboundFilter(device, module), "#"); !strings.HasPrefix(DeviceboundTopic(device, module, bag), want) {
			t.Fatalf("filter %q does not fit", want)
		}
	})
}

func FuzzParseTelemetry(f *testing.F) {
	f.Add("devices/d1/messages/events/" + captured)
	f.Add("devices/d/modules/m/messages/events/%24.on=o/")
	f.Add("devices/d/messages/events/?a=b")
	f.Fuzz(func(t *testing.T, topic string) {
		device, module, bag, err := ParseTelemetry(topic)
		if err != nil {
			return
		}
		if device == "" || strings.Contains(device+module, "/") {
			t.Fatalf("ParseTelemetry(%q) took %q, %q", topic, device, module)
		}
		d, m, b, err := ParseTelemetry(TelemetryTopic(device, module, bag))
		if err != nil || d != device || m != module || b != bag {
			t.Fatalf("%q is %q, %q, %q; written again %q, %q, %q, %v", topic, device, module, bag, d, m, b, err)
		}
	})
}
