package mqtt

import (
	"encoding/hex"
	"strings"
	"testing"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatalf("%q: %v", s, err)
	}
	return b
}

// Rows 12, 13 and 15 of what mochi gets wrong: each of these reaches it nowhere.
func TestCheck(t *testing.T) {
	tests := []struct {
		name    string
		version byte
		packet  string // first byte, then what follows the remaining length
		ok      bool
	}{
		{"publish", v311, "30 0001 61", true},
		{"publish 1", v311, "32 0001 61 0001 ff", true},
		{"publish 5", v5, "32 0001 61 0001 00 ff", true},
		{"no topic", v311, "30 0000", false},
		{"no topic 5", v5, "30 0000 00", false},
		{"alias alone", v5, "30 0000 03 23 0001", true},
		{"alias 0", v5, "30 0000 03 23 0000", false},
		{"alias too high", v5, "30 0000 03 23 0021", false},
		{"alias twice", v5, "30 0000 06 23 0001 23 0001", false},
		{"packet id 0", v311, "32 0001 61 0000", false},
		{"quality 3", v311, "36 0001 61 0001", false},
		{"dup at 0", v311, "38 0001 61", false},
		{"bad UTF-8", v311, "30 0001 ff", false},
		{"zero byte", v311, "30 0001 00", false},
		{"control character", v311, "30 0001 07", false},
		{"surrogate", v311, "30 0003 eda080", false},
		{"wildcard in topic", v311, "30 0001 2b", false},
		{"topic too short", v311, "30 0005 61", false},
		{"property of another packet", v5, "30 0001 61 05 11 00000001", false},
		{"subscription id from a client", v5, "30 0001 61 02 0b 01", false},
		{"payload format 2", v5, "30 0001 61 02 01 02", false},
		{"unknown property", v5, "30 0001 61 02 7f 01", false},
		{"property 255", v5, "30 0001 61 02 ff 01", false},
		{"properties too long", v5, "30 0001 61 09 01", false},
		{"long length of properties", v5, "30 0001 61 80 00", false},
		{"wildcard in response topic", v5, "30 0001 61 04 08 0001 23", false},
		{"user property", v5, "30 0001 61 07 26 0001 61 0001 62", true},
		{"user property cut", v5, "30 0001 61 06 26 0001 61 0001", false},
		{"subscribe", v311, "82 1234 0001 61 01", true},
		{"subscribe 5", v5, "82 1234 00 0001 61 01", true},
		{"the killer", v5, "82 1234 00 0001 61", false},
		{"the killer on 3.1.1", v311, "82 1234 0001 61", false},
		{"no filter", v311, "82 1234", false},
		{"quality 3 asked", v311, "82 1234 0001 61 03", false},
		{"reserved option bits", v311, "82 1234 0001 61 04", false},
		{"reserved option bits 5", v5, "82 1234 00 0001 61 40", false},
		{"retain handling 3", v5, "82 1234 00 0001 61 30", false},
		{"subscription id 0", v5, "82 1234 02 0b 00 0001 61 00", false},
		{"subscribe id 0", v311, "82 0000 0001 61 01", false},
		{"subscribe flags", v311, "80 1234 0001 61 01", false},
		{"unsubscribe", v311, "a2 1234 0001 61", true},
		{"unsubscribe nothing", v5, "a2 1234 00", false},
		{"puback", v311, "40 0001", true},
		{"puback surplus", v311, "40 0001 00", false},
		{"puback 5", v5, "40 0001 00 00", true},
		{"puback id 0", v311, "40 0000", false},
		{"pubrel flags", v311, "60 0001", false},
		{"pingreq", v311, "c0", true},
		{"pingreq surplus", v311, "c0 00", false},
		{"disconnect", v311, "e0", true},
		{"disconnect surplus", v311, "e0 00", false},
		{"disconnect 5", v5, "e0 04 05 11 00000000", true},
		{"auth", v5, "f0 18 00", false},
		{"connack", v311, "20 00 00", false},
		{"pingresp", v311, "d0", false},
		{"type 0", v311, "00", false},
		{"connect", 0, "10 0004 4d515454 04 02 003c 0001 61", true},
		{"connect 5", 0, "10 0004 4d515454 05 02 003c 00 0001 61", true},
		{"connect reserved bit", 0, "10 0004 4d515454 04 03 003c 0001 61", false},
		{"connect surplus", 0, "10 0004 4d515454 04 02 003c 0001 61 00", false},
		{"password alone", 0, "10 0004 4d515454 04 42 003c 0001 61 0001 62", false},
		{"password alone 5", 0, "10 0004 4d515454 05 42 003c 00 0001 61 0001 62", true},
		{"will quality without will", 0, "10 0004 4d515454 04 0a 003c 0001 61", false},
		{"empty will", 0, "10 0004 4d515454 04 06 003c 0001 61 0001 74 0000", true},
		{"will topic with wildcard", 0, "10 0004 4d515454 04 06 003c 0001 61 0001 23 0000", false},
		{"receive maximum 0", 0, "10 0004 4d515454 05 02 003c 03 21 0000 0001 61", false},
		{"level 3", 0, "10 0006 4d5149736470 03 02 003c 0001 61", false},
		{"client id cut", 0, "10 0004 4d515454 04 02 003c 0009 61", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := unhex(t, tt.packet)
			if err := check(tt.version, p[0], p[1:]); (err == nil) != tt.ok {
				t.Errorf("check: %v, want ok %v", err, tt.ok)
			}
		})
	}
}

func TestTopics(t *testing.T) {
	for _, tt := range []struct {
		filter, topic   string
		matches, covers bool
	}{
		{"a/b", "a/b", true, true},
		{"a/b", "a/c", false, false},
		{"a/+", "a/b", true, true},
		{"a/+", "a/+", true, true},
		{"a/+", "a", false, false},
		{"a/+", "a/", true, true},
		{"a/+", "a/#", true, false},
		{"a/#", "a", true, true},
		{"a/#", "a/b/c", true, true},
		{"a/#", "a/#", true, true},
		{"a/#", "b", false, false},
		{"a/b", "a/+", false, false},
		{"+/#", "a", true, true},
		{"+/b", "/b", true, true},
		{"#", "a/b", true, true},
		{"#", "+/+", true, true},
		{"#", "$SYS/x", false, false},
		{"+/x", "$SYS/x", false, false},
		{"$SYS/#", "$SYS/x", true, true},
		{"foo/+/baz/#", "foo/bar/baz", true, true},
	} {
		if got := matches(tt.filter, tt.topic); got != tt.matches {
			t.Errorf("matches(%s, %s) = %v, want %v", tt.filter, tt.topic, got, tt.matches)
		}
		if got := covers(tt.filter, tt.topic); got != tt.covers {
			t.Errorf("covers(%s, %s) = %v, want %v", tt.filter, tt.topic, got, tt.covers)
		}
	}
}

// U+FFFD is a character like others, though Go's decoder gives it for what is none.
func TestPlain(t *testing.T) {
	for s, want := range map[string]bool{
		"": true, "plant/ä/\u20ac": true, "a\ufffdb": true,
		"a\xffb": false, "a\nb": false, "a\x7f": false, "a\u0085": false,
	} {
		if got := plain(s); got != want {
			t.Errorf("plain(%q) = %v, want %v", s, got, want)
		}
	}
}
