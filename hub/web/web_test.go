package web

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"
)

func get(t *testing.T, s Status, method, path string) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	New(func() Status { return s }).ServeHTTP(w, httptest.NewRequest(method, path, nil))
	return w
}

// full has a value in every field, and markup in every text.
func full() Status {
	const evil = `<script>alert("x")</script>&'`
	var s Status
	fill(reflect.ValueOf(&s).Elem(), evil)
	return s
}

func fill(v reflect.Value, text string) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
	case reflect.Int, reflect.Int64:
		v.SetInt(7)
	case reflect.Uint64:
		v.SetUint(7)
	case reflect.Float64:
		v.SetFloat(7)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range 2 {
			fill(v.Index(i), text)
		}
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(time.Unix(1e9, 0)))
			return
		}
		for i := range v.NumField() {
			fill(v.Field(i), text)
		}
	}
}

func TestPageEscapesEverything(t *testing.T) {
	for _, up := range []bool{false, true} {
		s := full()
		s.Link.Configured, s.Link.Up = true, up
		w := get(t, s, "GET", "/")
		if w.Code != http.StatusOK {
			t.Fatalf("GET /: %d %s", w.Code, w.Body)
		}
		page := w.Body.String()
		if n := strings.Count(page, "<script>"); n != 1 {
			t.Errorf("page has %d scripts, want its own alone", n)
		}
		if n := strings.Count(page, "alert("); n < 10 {
			t.Errorf("page shows the text %d times; the test proves nothing", n)
		}
		if strings.Contains(page, "&'") {
			t.Error("page has an ampersand that is not escaped")
		}
	}
}

func TestPagePolicyNamesItsOwnScript(t *testing.T) {
	policy := get(t, Status{}, "GET", "/").Header().Get("Content-Security-Policy")
	for _, want := range []string{"default-src 'none'", "script-src 'sha256-", "style-src 'sha256-"} {
		if !strings.Contains(policy, want) {
			t.Errorf("policy %q lacks %q", policy, want)
		}
	}
	if strings.Contains(policy, "unsafe") {
		t.Errorf("policy %q allows anything", policy)
	}
}

// The hash in the policy is of the source; it holds only if the template leaves
// script and style alone.
func TestTemplateLeavesScriptAlone(t *testing.T) {
	page := get(t, full(), "GET", "/").Body.String()
	for _, tag := range []string{"script", "style"} {
		if got, want := hashOf(page, "<"+tag+">", "</"+tag+">"), hashOf(pageSource, "<"+tag+">", "</"+tag+">"); got != want || got == "'none'" {
			t.Errorf("%s of the page hashes to %s, the policy says %s", tag, got, want)
		}
	}
}

func TestPageOfNothing(t *testing.T) {
	page := get(t, Status{}, "GET", "/").Body.String()
	for _, want := range []string{"All is well", "none", "No message has come yet", "Nothing has been queued yet"} {
		if !strings.Contains(page, want) {
			t.Errorf("page lacks %q", want)
		}
	}
}

func TestPageSaysWhatFails(t *testing.T) {
	s := Status{Health: []Check{{Name: "store", OK: true}, {Name: "link", Reason: "no route", Hint: "look at the cable"}, {Name: "after"}}}
	page := get(t, s, "GET", "/").Body.String()
	for _, want := range []string{"<title>✗ link", "✗ link: no route</strong>", "look at the cable"} {
		if !strings.Contains(page, want) {
			t.Errorf("page lacks %q", want)
		}
	}
}

func TestStatusRoundTrip(t *testing.T) {
	want := full()
	w := get(t, want, "GET", "/status")
	if ct := w.Header().Get("Content-Type"); ct != "application/json" {
		t.Errorf("Content-Type %q", ct)
	}
	if strings.Contains(w.Body.String(), "<script>") {
		t.Error("JSON has markup that is not escaped")
	}
	var got Status
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	got.Started, got.Link.Since = want.Started, want.Link.Since // same instant, other location
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestStatusKeys(t *testing.T) {
	var got map[string]any
	if err := json.Unmarshal(get(t, Status{Ledger: make([]Row, 1)}, "GET", "/status").Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	for _, k := range []string{"version", "started", "uptime_s", "link", "queues", "totals", "ledger", "store", "clients", "identities", "connections", "health", "log"} {
		if v, ok := got[k]; !ok || v == nil {
			t.Errorf("key %s: %v", k, v)
		}
	}
	row := got["ledger"].([]any)[0].(map[string]any)
	for _, k := range []string{"sender", "queue", "accepted", "delivered", "expired", "evicted", "discarded", "damaged", "parked", "pending", "unrouted"} {
		if _, ok := row[k]; !ok {
			t.Errorf("row has no key %s", k)
		}
	}
}

func TestHealth(t *testing.T) {
	tests := []struct {
		name   string
		health []Check
		code   int
		body   string
	}{
		{"nothing checked", nil, 200, "ok\n"},
		{"all well", []Check{{Name: "store", OK: true}}, 200, "ok\n"},
		{"first failing", []Check{{Name: "store", OK: true}, {Name: "link", Reason: "down", Hint: "wait"}, {Name: "clock", Reason: "unset"}}, 503, "link: down\nhint: wait\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := get(t, Status{Health: tt.health}, "GET", "/healthz")
			if w.Code != tt.code || w.Body.String() != tt.body {
				t.Errorf("got %d %q, want %d %q", w.Code, w.Body, tt.code, tt.body)
			}
		})
	}
}

func TestOtherRequests(t *testing.T) {
	for _, tt := range []struct {
		method, path string
		code         int
	}{
		{"POST", "/status", 405}, {"DELETE", "/", 405}, {"GET", "/favicon.ico", 404}, {"HEAD", "/healthz", 200},
	} {
		if w := get(t, Status{}, tt.method, tt.path); w.Code != tt.code {
			t.Errorf("%s %s: %d, want %d", tt.method, tt.path, w.Code, tt.code)
		}
	}
}

func TestPace(t *testing.T) {
	now := time.Unix(0, 0)
	p := newPace(func() time.Time { return now })
	if r := p.add(Counts{Accepted: 1e6}); r != (Rates{}) {
		t.Errorf("first sample: %+v, want none", r)
	}
	for i := 1; i <= 30; i++ { // ten a second in, five out
		now = now.Add(time.Second)
		r := p.add(Counts{Accepted: 1e6 + uint64(i)*10, Delivered: uint64(i) * 5})
		if r != (Rates{In: 10, Out: 5}) {
			t.Fatalf("second %d: %+v, want 10 in, 5 out", i, r)
		}
	}
	for i := 1; i <= 11; i++ { // then nothing: the rate has to be gone after the span
		now = now.Add(time.Second)
		p.add(Counts{Accepted: 1e6 + 300, Delivered: 150})
	}
	if r := p.add(Counts{Accepted: 1e6 + 300, Delivered: 150}); r != (Rates{}) {
		t.Errorf("after silence: %+v, want 0", r)
	}
	if n := len(p.samples); n > paceMost {
		t.Errorf("%d samples kept", n)
	}
}

func TestWords(t *testing.T) {
	for _, tt := range []struct{ got, want string }{
		{Age(0), "0 s"}, {Age(59.9), "59 s"}, {Age(185), "3 min 5 s"}, {Age(15000), "4 h 10 min"}, {Age(9*86400 + 3*3600), "9 d 3 h"}, {Age(-1), "unknown"}, {Age(1e300), "unknown"},
		{Size(0), "0 B"}, {Size(1023), "1023 B"}, {Size(1536), "1.5 KiB"}, {Size(1 << 30), "1.0 GiB"},
		{Count(0), "0"}, {Count(999), "999"}, {Count(1234567), "1\u202f234\u202f567"}, {Count(-1234), "-1\u202f234"},
		{since(time.Time{}), "never"}, {since(time.Unix(0, 0)), "1970-01-01 00:00:00 UTC"},
	} {
		if tt.got != tt.want {
			t.Errorf("got %q, want %q", tt.got, tt.want)
		}
	}
}
