package mqtt

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// maxLevels bounds the depth of topics and filters: the index scans a topic once
// for each of its levels, so a topic of 65,535 slashes would cost minutes.
const maxLevels = 64

// checkTopic says whether a message may be published on topic.
func checkTopic(topic string) error {
	if topic == "" {
		return errors.New("topic is empty")
	}
	if strings.ContainsAny(topic, "+#") {
		return fmt.Errorf("topic %q: wildcards are for filters", topic)
	}
	return checkWords("topic", topic)
}

// checkFilter says whether f is a topic filter: "+" stands for one whole level,
// "#" for all that follow and only at the end.
func checkFilter(f string) error {
	if f == "" {
		return errors.New("filter is empty")
	}
	if err := checkWords("filter", f); err != nil {
		return err
	}
	levels := strings.Split(f, "/")
	for i, l := range levels {
		switch {
		case l == "#" && i != len(levels)-1:
			return fmt.Errorf("filter %q: \"#\" must be the last level", f)
		case l != "#" && strings.Contains(l, "#"), l != "+" && strings.Contains(l, "+"):
			return fmt.Errorf("filter %q: a wildcard must be a whole level", f)
		}
	}
	return nil
}

func checkWords(what, s string) error {
	if !plain(s) {
		return fmt.Errorf("%s %q: control characters are not allowed", what, s)
	}
	if n := strings.Count(s, "/") + 1; n > maxLevels {
		return fmt.Errorf("%s has %d levels, at most %d are allowed", what, n, maxLevels)
	}
	return nil
}

// plain says whether s has no control characters, which the MQTT standards (3.1.1
// and 5, section 1.5) let a server refuse.
func plain(s string) bool {
	for _, r := range s {
		if r < ' ' || 0x7f <= r && r <= 0x9f {
			return false
		}
	}
	return utf8.ValidString(s)
}

// matches says whether a message on topic is for filter.
func matches(filter, topic string) bool { return walk(filter, topic, false) }

// covers says whether all that asked can match is within allowed.
func covers(allowed, asked string) bool { return walk(allowed, asked, true) }

// walk goes down filter and topic level by level. With wild, topic may have
// wildcards itself: then "+" is no answer to "#", which stands for more.
func walk(filter, topic string, wild bool) bool {
	if strings.HasPrefix(topic, "$") && (filter[0] == '+' || filter[0] == '#') {
		return false // [MQTT-4.7.2-1]: wildcards do not see the server's own topics
	}
	for {
		f, frest, fmore := strings.Cut(filter, "/")
		if f == "#" {
			return true
		}
		t, trest, tmore := strings.Cut(topic, "/")
		if wild && t == "#" || f != "+" && f != t {
			return false
		}
		switch {
		case !fmore && !tmore:
			return true
		case !fmore:
			return false
		case !tmore:
			return frest == "#" // "a/#" is for "a" too
		}
		filter, topic = frest, trest
	}
}

func anyMatches(filters []string, topic string) bool {
	for _, f := range filters {
		if f != "" && matches(f, topic) {
			return true
		}
	}
	return false
}

func anyCovers(filters []string, asked string) bool {
	for _, f := range filters {
		if f != "" && covers(f, asked) {
			return true
		}
	}
	return false
}

// reserved says whether a topic, filter or client id belongs to the gateway and
// its IoT Hub devices, and so not to ordinary clients.
func reserved(s string) bool {
	return strings.HasPrefix(s, "$") || s == "devices" || strings.HasPrefix(s, "devices/")
}
