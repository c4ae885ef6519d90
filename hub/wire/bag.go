package wire

import (
	"fmt"
	"iter"
	"net/url"
	"strings"
)

// Well-known keys of a Bag. System properties begin with "$.".
const (
	MessageID     = "$.mid" // the device's own id; never changed by the gateway
	CorrelationID = "$.cid"
	UserID        = "$.uid"
	To            = "$.to"
	ContentType   = "$.ct"
	Encoding      = "$.ce"
	Output        = "$.on" // a module's output
	Expiry        = "$.exp"
	CreationTime  = "$.ctime"
)

// Bag is a message's properties in wire form: k1=v1&k2=v2, both sides
// percent-encoded. A key without "=" has no value (Get gives "", true). The
// first of two equal keys wins. The zero Bag is empty.
type Bag string

// ParseBag checks that s is a well-formed bag and returns it unchanged. It fails
// on a broken percent-encoding or an empty key and names the pair.
func ParseBag(s string) (Bag, error) {
	for pair := range split(s) {
		k, v, _ := strings.Cut(pair, "=")
		if k == "" {
			return "", fmt.Errorf("property %q: key is empty", pair)
		}
		for _, side := range [2]string{k, v} {
			if _, err := url.PathUnescape(side); err != nil {
				return "", fmt.Errorf("property %q: %w", pair, err)
			}
		}
	}
	return Bag(s), nil
}

// NewBag makes a bag of the given keys and values, in order. It panics on an odd
// number of arguments, which is a fault of the program.
func NewBag(pairs ...string) Bag {
	if len(pairs)%2 != 0 {
		panic("wire: NewBag: key without value")
	}
	var b bagWriter
	for i := 0; i < len(pairs); i += 2 {
		b.add(pairs[i], pairs[i+1])
	}
	return b.bag()
}

// Get returns the decoded value of key and whether it is there.
func (b Bag) Get(key string) (string, bool) {
	for k, v := range b.All() {
		if k == key {
			return v, true
		}
	}
	return "", false
}

// All yields the decoded keys and values in order. A pair that cannot be decoded
// is given as it stands.
func (b Bag) All() iter.Seq2[string, string] {
	return func(yield func(k, v string) bool) {
		for pair := range split(string(b)) {
			k, v, _ := strings.Cut(pair, "=")
			if !yield(unescape(k), unescape(v)) {
				return
			}
		}
	}
}

// With returns the bag with key set to value: replaced in place if it is there,
// else at the end.
func (b Bag) With(key, value string) Bag {
	var out bagWriter
	done := false
	for pair := range split(string(b)) {
		k, _, _ := strings.Cut(pair, "=")
		switch {
		case unescape(k) != key:
			out.join(pair)
		case !done:
			out.add(key, value)
			done = true
		}
	}
	if !done {
		out.add(key, value)
	}
	return out.bag()
}

// bagWriter builds a bag in time linear in its length: a bag is as long as its
// sender likes, up to a topic's 64 KiB.
type bagWriter struct{ s strings.Builder }

func (w *bagWriter) add(k, v string) { w.join(escape(k) + "=" + escape(v)) }

func (w *bagWriter) join(pair string) {
	if w.s.Len() > 0 {
		w.s.WriteByte('&')
	}
	w.s.WriteString(pair)
}

func (w *bagWriter) bag() Bag { return Bag(w.s.String()) }

func split(s string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for pair := range strings.SplitSeq(s, "&") {
			if pair != "" && !yield(pair) {
				return
			}
		}
	}
}

func unescape(s string) string {
	if u, err := url.PathUnescape(s); err == nil {
		return u
	}
	return s
}

// escape percent-encodes everything but RFC 3986's unreserved characters, as
// encodeURIComponent does: "$" and "/" must not stand bare in a topic, and a
// blank is %20, never "+".
func escape(s string) string {
	const hex = "0123456789ABCDEF"
	n := 0
	for i := range len(s) {
		if !unreserved(s[i]) {
			n++
		}
	}
	if n == 0 {
		return s
	}
	out := make([]byte, 0, len(s)+2*n)
	for i := range len(s) {
		if c := s[i]; unreserved(c) {
			out = append(out, c)
		} else {
			out = append(out, '%', hex[c>>4], hex[c&15])
		}
	}
	return string(out)
}

func unreserved(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
		c == '-' || c == '_' || c == '.' || c == '~' || c == '!' || c == '*' || c == '\'' || c == '(' || c == ')'
}
