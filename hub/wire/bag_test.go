package wire

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// What the Node SDK was seen to send.
const captured = "%24.mid=m%201&%24.cid=c%2F1&%24.ct=application%2Fjson&%24.ce=utf-8&a%20b=x%2Fy%26z&empty=&iothub-creation-time-utc=2026-01-02T03%3A04%3A05.678Z"

func pairs(b Bag) (out []string) {
	for k, v := range b.All() {
		out = append(out, k, v)
	}
	return out
}

func TestCapturedBag(t *testing.T) {
	want := []string{MessageID, "m 1", CorrelationID, "c/1", ContentType, "application/json", Encoding, "utf-8",
		"a b", "x/y&z", "empty", "", "iothub-creation-time-utc", "2026-01-02T03:04:05.678Z"}
	b, err := ParseBag(captured)
	if err != nil {
		t.Fatal(err)
	}
	if got := pairs(b); strings.Join(got, "|") != strings.Join(want, "|") {
		t.Errorf("read %q, want %q", got, want)
	}
	if got := NewBag(want...); got != captured {
		t.Errorf("written %s, want %s", got, captured)
	}
}

func TestBagGet(t *testing.T) {
	b := Bag("a=1&b&a=2&c=&%24.on=out&&bad=%zz&x=y=z")
	for _, c := range []struct {
		key, want string
		ok        bool
	}{
		{"a", "1", true}, {"b", "", true}, {"c", "", true}, {Output, "out", true}, {"bad", "%zz", true}, {"x", "y=z", true}, {"d", "", false}, {"", "", false},
	} {
		if got, ok := b.Get(c.key); got != c.want || ok != c.ok {
			t.Errorf("Get(%q) = %q, %v, want %q, %v", c.key, got, ok, c.want, c.ok)
		}
	}
}

func TestBagWith(t *testing.T) {
	for _, c := range []struct{ bag, key, value, want string }{
		{"", "k", "v", "k=v"},
		{"a=1", "k", "a b", "a=1&k=a%20b"},
		{"a=1&k=old&b=2", "k", "new", "a=1&k=new&b=2"},
		{"k=1&a=1&k=2", "k", "3", "k=3&a=1"},
		{"a&b=", "$.to", "/x", "a&b=&%24.to=%2Fx"},
		{"%6b=1", "k", "2", "k=2"}, // the same key, written otherwise
	} {
		if got := Bag(c.bag).With(c.key, c.value); string(got) != c.want {
			t.Errorf("%q with %s=%s is %q, want %q", c.bag, c.key, c.value, got, c.want)
		}
	}
}

func TestParseBagRefuses(t *testing.T) {
	for _, bad := range []string{"=v", "a=1&=2", "a=%", "a=%z1", "%=1", "a%2=1"} {
		if _, err := ParseBag(bad); err == nil {
			t.Errorf("ParseBag(%q) is taken", bad)
		}
	}
	for _, good := range []string{"", "&", "a", "a=", "a=b=c", "a=1&&b=2&", "a+b=c+d"} {
		if b, err := ParseBag(good); err != nil || string(b) != good {
			t.Errorf("ParseBag(%q) = %q, %v", good, b, err)
		}
	}
}

func TestBagRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var in []string
		first := map[string]string{}
		for i := range rapid.IntRange(0, 6).Draw(t, "pairs") {
			k, v := rapid.StringN(1, 8, 32).Draw(t, "key"), rapid.String().Draw(t, "value")
			in = append(in, k, v)
			if _, ok := first[k]; !ok || i < 0 {
				first[k] = v
			}
		}
		b := NewBag(in...)
		if strings.ContainsAny(string(b), "/#+$ ") {
			t.Fatalf("bag %q holds what a topic must not", b)
		}
		if _, err := ParseBag(string(b)); err != nil {
			t.Fatal(err)
		}
		if got := pairs(b); strings.Join(got, "\x00") != strings.Join(in, "\x00") {
			t.Fatalf("%q gives %q, want %q", b, got, in)
		}
		for k, v := range first {
			if got, ok := b.Get(k); !ok || got != v {
				t.Fatalf("Get(%q) = %q, %v, want %q", k, got, ok, v)
			}
			if got, _ := b.With(k, "new").Get(k); got != "new" {
				t.Fatalf("%q with %q=new gives %q", b, k, got)
			}
		}
	})
}

func FuzzParseBag(f *testing.F) {
	f.Add(captured)
	f.Add("a&b=&c=d=e&&%24.on=o")
	f.Fuzz(func(t *testing.T, s string) {
		b, err := ParseBag(s)
		if err != nil {
			return
		}
		all := pairs(b)
		if again := pairs(NewBag(all...)); strings.Join(again, "\x00") != strings.Join(all, "\x00") {
			t.Fatalf("%q gives %q, written again %q", s, all, again)
		}
		if got, ok := b.With("k", "v").Get("k"); !ok || got != "v" {
			t.Fatalf("%q with k=v gives %q", s, got)
		}
	})
}
