package hubtest

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"holdfast.dev/holdfast/hub/wire"
)

func TestRegistryCalls(t *testing.T) {
	h := household(t)
	scope := func(id string) string { d, _ := h.registry.get(id); return d.scope() }
	for _, c := range []struct {
		method, path, ifMatch, body string
		status                      int
		want                        string // part of the answer
	}{
		{"GET", "/devices/new", "", "", 404, `"Message":"ErrorCode:DeviceNotFound;device new is not registered"`},
		{"PUT", "/devices/new", "", `{"deviceId":"new"}`, 200, `"status":"enabled"`},
		{"PUT", "/devices/new", "", `{"deviceId":"new"}`, 409, "ErrorCode:DeviceAlreadyExists;"},
		{"PUT", "/devices/new", `"stale"`, `{"deviceId":"new"}`, 412, "ErrorCode:PreconditionFailed;"},
		{"PUT", "/devices/new", `"*"`, `{"deviceId":"new","status":"disabled","statusReason":"lost"}`, 200, `"status":"disabled","statusReason":"lost"`},
		{"PUT", "/devices/new", `*`, `{"deviceId":"new","status":"asleep"}`, 400, "ErrorCode:ArgumentInvalid;"},
		{"PUT", "/devices/new", `*`, `{"deviceId":"else"}`, 400, "ErrorCode:ArgumentInvalid;"},
		{"PUT", "/devices/new", `*`, `{"deviceId":`, 400, "ErrorCode:ArgumentInvalid;"},
		{"PUT", "/devices/new", `*`, `{"authentication":{"type":"sas","symmetricKey":{"primaryKey":"c2VjcmV0"}}}`, 200, `"primaryKey":"c2VjcmV0"`},
		{"PUT", "/devices/new", `*`, `{"authentication":{"symmetricKey":{"primaryKey":"not base64!"}}}`, 400, "symmetric key is not base64"},
		{"PUT", "/devices/new", `*`, `{"deviceScope":"` + scope("gw") + `"}`, 200, `"parentScopes":["` + scope("gw") + `"]`},
		{"PUT", "/devices/new", `*`, `{"deviceScope":"ms-azure-iot-edge://gw-0"}`, 400, "is not that of a gateway"},
		{"PUT", "/devices/bad%20id", "", `{}`, 400, "character ' ' is not allowed"},
		{"PUT", "/devices/absent", `*`, `{}`, 404, "ErrorCode:DeviceNotFound;"},
		{"PUT", "/devices/edge2", "", `{"deviceId":"edge2","capabilities":{"iotEdge":true}}`, 200, `"deviceScope":"ms-azure-iot-edge://edge2-`},
		{"GET", "/devices/edge2/modules", "", "", 200, `"moduleId":"$edgeHub"`},
		{"GET", "/devices/none/modules", "", "", 404, "ErrorCode:DeviceNotFound;"},
		{"PUT", "/devices/new/modules/m1", "", `{"moduleId":"m1","deviceId":"new"}`, 200, `"moduleId":"m1"`},
		{"PUT", "/devices/new/modules/m1", "", `{}`, 409, "ErrorCode:ModuleAlreadyExistsOnDevice;"},
		{"GET", "/devices/new/modules/m2", "", "", 404, "ErrorCode:ModuleNotFound;"},
		{"GET", "/devices/edge2/modules/%24edgeHub", "", "", 200, `"moduleId":"$edgeHub"`},
		{"DELETE", "/devices/new", `"stale"`, "", 412, "ErrorCode:PreconditionFailed;"},
		{"DELETE", "/devices/new", `"*"`, "", 204, ""},
		{"DELETE", "/devices/new", "", "", 404, "ErrorCode:DeviceNotFound;"},
		{"GET", "/devices/new/modules/m1", "", "", 404, "ErrorCode:ModuleNotFound;"},
		{"GET", "/devices/", "", "", 200, `"deviceId":"leaf"`},
		{"GET", "/devices?top=1", "", "", 200, `[{"deviceId":"behindplain"`},
		{"GET", "/statistics/devices", "", "", 200, `{"disabledDeviceCount":1,"enabledDeviceCount":8,"totalDeviceCount":9}`},
		{"GET", "/nothing", "", "", 404, "no such call"},
	} {
		res := h.call(t, c.method, c.path+queryFor(c.path), h.policyToken(), c.ifMatch, c.body)
		if res.status != c.status || !strings.Contains(res.body, c.want) {
			t.Errorf("%s %s %s: status %d %s, want %d with %s", c.method, c.path, c.body, res.status, res.body, c.status, c.want)
		}
		if res.status != 204 && !strings.HasPrefix(res.header.Get("Content-Type"), "application/json") {
			t.Errorf("%s %s: content type %q", c.method, c.path, res.header.Get("Content-Type"))
		}
	}
}

func queryFor(path string) string {
	if strings.Contains(path, "?") {
		return "&api-version=2021-04-12"
	}
	return "?api-version=2021-04-12"
}

func TestServiceTokenIsChecked(t *testing.T) {
	h := household(t)
	in, past := time.Now().Add(time.Hour), time.Now().Add(-time.Hour)
	key := h.cfg.PolicyKey
	for name, token := range map[string]string{
		"none":         "",
		"other policy": wire.NewPolicySAS("hub.local", "service", key, in),
		"other key":    wire.NewPolicySAS("hub.local", "iothubowner", []byte("x"), in),
		"other hub":    wire.NewPolicySAS("else", "iothubowner", key, in),
		"expired":      wire.NewPolicySAS("hub.local", "iothubowner", key, past),
		"of a gateway": h.edgeToken("gw"),
	} {
		for _, path := range []string{"/devices/leaf", "/twins/leaf", "/statistics/devices"} {
			if res := h.call(t, "GET", path, token, "", ""); res.status != 401 || !strings.Contains(res.body, "ErrorCode:IotHubUnauthorizedAccess;") {
				t.Errorf("%s, GET %s: status %d %s, want 401", name, path, res.status, res.body)
			}
		}
	}
}

func TestBulk(t *testing.T) {
	h := household(t)
	res := h.call(t, "POST", "/devices", h.policyToken(), "", `[
		{"id":"b1","importMode":"create","status":"disabled","authentication":{"symmetricKey":{"primaryKey":"c2VjcmV0"}}},
		{"id":"leaf","importMode":"create"},
		{"id":"plain","importMode":"delete"},
		{"id":"leaf","importMode":"update","status":"disabled"},
		{"id":"b2","importMode":"createOrUpdate"},
		{"id":"b3","importMode":"frobnicate"}]`)
	var got struct {
		OK     bool      `json:"isSuccessful"`
		Errors []outcome `json:"errors"`
	}
	res.json(t, &got)
	if res.status != 200 || got.OK || len(got.Errors) != 2 || got.Errors[0].Device != "leaf" || got.Errors[1].Device != "b3" {
		t.Errorf("status %d, %s", res.status, res.body)
	}
	b1, _ := h.registry.get("b1")
	leaf, _ := h.registry.get("leaf")
	_, b2 := h.registry.get("b2")
	_, plain := h.registry.get("plain")
	if !b1.Disabled || string(b1.Primary) != "secret" || !leaf.Disabled || !b2 || plain {
		t.Errorf("b1 %v, leaf %v, b2 %v, plain %v", b1.Disabled, leaf.Disabled, b2, plain)
	}
}

func TestScope(t *testing.T) {
	h := household(t)
	ask := func(size int, link string) (page scopePage) {
		body := fmt.Sprintf(`{"pageSize":%d,"authChain":"gw"}`, size)
		if link != "" {
			body = fmt.Sprintf(`{"pageSize":%d,"authChain":"gw","continuationLink":%q}`, size, link)
		}
		res := h.call(t, "POST", "/devices/gw/modules/%24edgeHub/devicesAndModulesInTargetDeviceScope?api-version=2020-06-30-preview", h.edgeToken("gw"), "", body)
		if res.status != 200 {
			t.Fatalf("status %d %s", res.status, res.body)
		}
		res.json(t, &page)
		return page
	}
	want := "child gw leaf off; gw/$edgeHub gw/mod leaf/m"
	if got := ask(0, "").names(); got != want {
		t.Errorf("scope %q, want %q", got, want)
	}
	var all scopePage
	pages := 0
	for link := ""; pages == 0 || link != ""; pages++ {
		page := ask(1, link)
		if len(page.Devices) != 1 {
			t.Fatalf("page has %d devices, want 1", len(page.Devices))
		}
		all.Devices, all.Modules = append(all.Devices, page.Devices...), append(all.Modules, page.Modules...)
		if link = ""; page.Next != nil {
			link = *page.Next
		}
	}
	if got := all.names(); got != want || pages != 4 {
		t.Errorf("%d pages: %q, want 4: %q", pages, got, want)
	}
	off := all.Devices[3]
	key, _ := h.registry.get("off")
	if off.Status != "disabled" || off.Authentication.Type != "sas" || *off.Authentication.SymmetricKey.Primary != *encodeKey(key.Primary) {
		t.Errorf("device %+v", off)
	}

	path := "/devices/gw/modules/%24edgeHub/devicesAndModulesInDeviceScope?deviceCount=3"
	var older scopePage
	for path != "" {
		var page scopePage
		h.call(t, "GET", path, h.edgeToken("gw"), "", "").json(t, &page)
		older.Devices, older.Modules = append(older.Devices, page.Devices...), append(older.Modules, page.Modules...)
		if path = ""; page.Next != nil {
			path = *page.Next
		}
	}
	if got := older.names(); got != want {
		t.Errorf("older form: %q, want %q", got, want)
	}
}

func (p scopePage) names() string {
	var devices, modules []string
	for _, d := range p.Devices {
		devices = append(devices, d.DeviceID)
	}
	for _, m := range p.Modules {
		modules = append(modules, m.DeviceID+"/"+m.ModuleID)
	}
	return strings.Join(devices, " ") + "; " + strings.Join(modules, " ")
}

func TestScopeOfOne(t *testing.T) {
	h := household(t)
	for _, c := range []struct {
		device, module, chain string
		status                int
		want                  string
	}{
		{"leaf", "", "leaf;gw", 200, "leaf; "},
		{"leaf", "m", "leaf/m;leaf;gw", 200, "leaf; leaf/m"},
		{"gw", "mod", "gw/mod;gw", 200, "gw; gw/mod"},
		{"grandchild", "", "grandchild;child;gw", 200, "grandchild; "},
		{"leaf", "", "gw", 200, "leaf; "}, // as IoT Edge's hub has it
		{"leaf", "m", "gw", 200, "leaf; leaf/m"},
		{"gw", "mod", "gw", 200, "gw; gw/mod"},
		{"grandchild", "", "child;gw", 200, "grandchild; "},
		{"plain", "", "gw", 403, ""},
		{"plain", "", "plain;gw", 403, ""},
		{"off", "", "off;gw", 403, ""},
		{"nobody", "", "nobody;gw", 404, ""},
		{"leaf", "", "plain;gw", 403, ""},
		{"leaf", "", "", 403, ""},
	} {
		body := fmt.Sprintf(`{"targetDeviceId":%q,"targetModuleId":%q,"authChain":%q}`, c.device, c.module, c.chain)
		res := h.call(t, "POST", "/devices/gw/modules/$edgeHub/getDeviceAndModuleOnBehalfOf", h.edgeToken("gw"), "", body)
		if res.status != c.status {
			t.Errorf("%s: status %d %s, want %d", c.chain, res.status, res.body, c.status)
			continue
		}
		if c.status == 200 {
			var page scopePage
			if res.json(t, &page); page.names() != c.want {
				t.Errorf("%s: %q, want %q", c.chain, page.names(), c.want)
			}
		}
	}
	older := "/devices/gw/modules/$edgeHub/deviceAndModuleInDeviceScope?targetDeviceId="
	if res := h.call(t, "GET", older+"leaf&targetModuleId=m", h.edgeToken("gw"), "", ""); res.status != 200 {
		t.Errorf("older form: status %d %s", res.status, res.body)
	}
	if res := h.call(t, "GET", older+"plain", h.edgeToken("gw"), "", ""); res.status != 403 {
		t.Errorf("older form, not behind it: status %d %s", res.status, res.body)
	}
}

func TestScopeNeedsTheGatewaysToken(t *testing.T) {
	h := household(t)
	for name, c := range map[string]struct{ path, token string }{
		"none":            {"/devices/gw/modules/$edgeHub/", ""},
		"other gateway":   {"/devices/gw/modules/$edgeHub/", h.edgeToken("other")},
		"service policy":  {"/devices/gw/modules/$edgeHub/", h.policyToken()},
		"other module":    {"/devices/gw/modules/mod/", h.edgeToken("gw")},
		"not a gateway":   {"/devices/plain/modules/$edgeHub/", h.edgeToken("gw")},
		"unknown gateway": {"/devices/nobody/modules/$edgeHub/", h.edgeToken("gw")},
	} {
		if res := h.call(t, "POST", c.path+"devicesAndModulesInTargetDeviceScope", c.token, "", `{"authChain":"gw"}`); res.status != 401 {
			t.Errorf("%s: status %d, want 401", name, res.status)
		}
	}
}

func TestTwinCalls(t *testing.T) {
	h := household(t)
	p := online(t, h, "leaf")
	p.subscribe(0, wire.DesiredFilter)
	res := h.call(t, "PATCH", "/twins/leaf", h.policyToken(), "*", `{"tags":{"a":1},"properties":{"desired":{"x":1,"y":{"z":2},"$version":99}}}`)
	var doc struct {
		DeviceID   string         `json:"deviceId"`
		ETag       string         `json:"etag"`
		State      string         `json:"connectionState"`
		Tags       map[string]any `json:"tags"`
		Properties struct{ Desired, Reported map[string]any }
	}
	res.json(t, &doc)
	if doc.DeviceID != "leaf" || doc.State != "Connected" || doc.Tags["a"] != 1.0 || doc.Properties.Desired["x"] != 1.0 ||
		doc.Properties.Desired["$version"] != 2.0 || doc.Properties.Desired["$metadata"] == nil {
		t.Errorf("twin %s", res.body)
	}
	if got := string(p.expect(packets.Publish).Payload); got != `{"$version":2,"x":1,"y":{"z":2}}` {
		t.Errorf("device got %s", got)
	}
	if res := h.call(t, "PATCH", "/twins/leaf", h.policyToken(), `"1"`, `{}`); res.status != 412 {
		t.Errorf("stale etag: status %d, want 412", res.status)
	}
	h.call(t, "PUT", "/twins/leaf", h.policyToken(), `"`+doc.ETag+`"`, `{"properties":{"desired":{"y":{"z":2}}}}`).json(t, &doc)
	if got := string(p.expect(packets.Publish).Payload); got != `{"$version":3,"x":null,"y":{"z":2}}` {
		t.Errorf("device got %s", got)
	}
	if res := h.call(t, "GET", "/twins/nobody", h.policyToken(), "", ""); res.status != 404 {
		t.Errorf("nobody: status %d", res.status)
	}
	if res := h.call(t, "PATCH", "/twins/leaf", h.policyToken(), "", `{"properties":{"desired":{"a.b":1}}}`); res.status != 400 {
		t.Errorf("bad key: status %d", res.status)
	}
	if res := h.call(t, "GET", "/twins/leaf/modules/m", h.policyToken(), "", ""); !strings.Contains(res.body, `"moduleId":"m"`) {
		t.Errorf("module: %s", res.body)
	}
}

func TestMethodCall(t *testing.T) {
	h := household(t)
	invoke := func(id, body string) result {
		return h.call(t, "POST", "/twins/"+id+"/methods", h.policyToken(), "", body)
	}
	for _, c := range []struct {
		id, body string
		status   int
		want     string
	}{
		{"nobody", `{"methodName":"m"}`, 404, "ErrorCode:DeviceNotFound;"},
		{"leaf", `{"methodName":"m"}`, 404, "404103"},
		{"leaf", `{"methodName":""}`, 400, "ErrorCode:ArgumentInvalid;"},
		{"leaf", `{"methodName":"m","responseTimeoutInSeconds":4}`, 400, "ErrorCode:ArgumentInvalid;"},
		{"leaf", `{"methodName":"m","connectTimeoutInSeconds":301}`, 400, "ErrorCode:ArgumentInvalid;"},
	} {
		if res := invoke(c.id, c.body); res.status != c.status || !strings.Contains(res.body, c.want) {
			t.Errorf("%s %s: status %d %s, want %d with %s", c.id, c.body, res.status, res.body, c.status, c.want)
		}
	}
	got := make(chan result, 1)
	go func() { got <- invoke("leaf", `{"methodName":"m","payload":[1],"connectTimeoutInSeconds":10}`) }()
	p := online(t, h, "leaf") // after the call has begun, or before: both are well
	p.subscribe(0, wire.MethodFilter)
	pk := p.expect(packets.Publish)
	_, rid, _ := wire.ParseMethod(pk.TopicName)
	if string(pk.Payload) != "[1]" {
		t.Errorf("payload %s", pk.Payload)
	}
	p.publish(wire.MethodReplyTopic(201, rid), 0, 0, `{"a":1}`)
	if res := <-got; res.status != 200 || res.body != `{"payload":{"a":1},"status":201}` {
		t.Errorf("status %d %s", res.status, res.body)
	}
}

func TestControl(t *testing.T) {
	h := start(t, Config{Control: "127.0.0.1:0"})
	h.Put(Device{ID: "leaf/m"})
	h.Put(Device{ID: "leaf"})
	p := online(t, h, "leaf")
	p.publish(leafTopic, 1, 1, `{"n":1}`)
	p.publish(leafTopic+"a=b", 1, 2, "\xff")
	p.acks(2)
	base := "http://" + h.ControlAddr()
	send := func(method, path, body string) (int, string) {
		req, err := http.NewRequest(method, base+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		var b bytes.Buffer
		b.ReadFrom(res.Body)
		return res.StatusCode, b.String()
	}
	_, text := send("GET", "/sim/messages", "")
	var lines []map[string]any
	for s := bufio.NewScanner(strings.NewReader(text)); s.Scan(); {
		var m map[string]any
		if err := json.Unmarshal(s.Bytes(), &m); err != nil {
			t.Fatal(err)
		}
		lines = append(lines, m)
	}
	if len(lines) != 2 || lines[0]["json"].(map[string]any)["n"] != 1.0 || lines[1]["body"] != "/w==" || lines[1]["json"] != nil {
		t.Errorf("messages %s", text)
	}
	if _, text := send("GET", "/sim/messages?after=1", ""); strings.Count(text, "\n") != 1 || !strings.Contains(text, `"n":2`) {
		t.Errorf("after 1: %s", text)
	}
	if code, _ := send("GET", "/sim/messages?after=x", ""); code != 400 {
		t.Errorf("after x: status %d", code)
	}
	if code, text := send("PUT", "/sim/faults", `{"dwon":true}`); code != 400 || !strings.Contains(text, "dwon") {
		t.Errorf("unknown fault: %d %s", code, text)
	}
	if code, _ := send("PUT", "/sim/faults", `{"down":true}`); code != 200 || !h.Faults().Down {
		t.Errorf("faults: status %d", code)
	}
	p.expectEnd()
	if code, text := send("GET", "/sim/state", ""); code != 200 || !strings.Contains(text, `"messages":2`) || !strings.Contains(text, `"faults":{"down":true}`) {
		t.Errorf("state: %d %s", code, text)
	}
	send("PUT", "/sim/faults", `{}`)
	if code, text := send("POST", "/sim/c2d/leaf?props="+url.QueryEscape("a=b"), "hello"); code != 202 || text != `{"acknowledged":false}` {
		t.Errorf("c2d: %d %s", code, text)
	}
	if code, _ := send("POST", "/sim/c2d/nobody", ""); code != 404 {
		t.Errorf("c2d to nobody: %d", code)
	}
	p = online(t, h, "leaf")
	p.subscribe(0, wire.DeviceboundFilter("leaf", ""))
	if got := p.expect(packets.Publish); string(got.Payload) != "hello" || !strings.Contains(got.TopicName, "a=b") {
		t.Errorf("c2d %q on %s", got.Payload, got.TopicName)
	}
	if code, _ := send("POST", "/sim/c2d/leaf?wait=10s", "at once"); code != 200 {
		t.Errorf("c2d at QoS 0: %d, want 200", code)
	}
	p.expect(packets.Publish)
	send("POST", "/sim/drop/leaf", "")
	p.expectEnd()
	if code, _ := send("POST", "/sim/drop/leaf%2Fm", ""); code != 204 {
		t.Errorf("drop of a module: %d", code)
	}
	if res := h.call(t, "GET", "/sim/state", "", "", ""); res.status != 200 {
		t.Errorf("over HTTPS: %d", res.status)
	}
}
