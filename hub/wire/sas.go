package wire

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Skew is how long after its end a token is still taken, as Azure does.
const Skew = 5 * time.Minute

const scheme = "SharedAccessSignature "

// SAS is a shared access signature, the password of IoT Hub clients:
//
//	SharedAccessSignature sr={encoded uri}&sig={encoded base64}&se={unix seconds}[&skn={policy}]
//
// The signed text is sr exactly as received, a newline, and se.
type SAS struct {
	Resource  string    // sr, as received: still encoded, for it is what was signed
	Signature []byte    // 32 bytes, HMAC-SHA256
	Expiry    time.Time // se; there is no "not before"
	KeyName   string    // skn, decoded, or ""
	signed    string
}

// ParseSAS takes a token apart. It does not verify it.
func ParseSAS(s string) (SAS, error) {
	rest, ok := strings.CutPrefix(s, scheme)
	if !ok || strings.ContainsAny(rest, " \t\r\n") {
		return SAS{}, errors.New(`token: want "SharedAccessSignature" and fields after exactly one blank`)
	}
	var t SAS
	var se string
	for pair := range split(rest) {
		k, v, _ := strings.Cut(pair, "=")
		switch strings.ToLower(k) {
		case "sr":
			t.Resource = v
		case "sig":
			raw, err := url.PathUnescape(v)
			if err != nil {
				return SAS{}, errors.New("token: sig is not percent-encoded")
			}
			if t.Signature, err = base64.StdEncoding.DecodeString(raw); err != nil {
				return SAS{}, errors.New("token: sig is not base64")
			}
		case "se":
			se = v
		case "skn":
			t.KeyName = unescape(v)
		}
	}
	sec, err := strconv.ParseInt(se, 10, 64)
	if err != nil || sec < 0 {
		return SAS{}, fmt.Errorf("token: se %q is not a time in seconds", se)
	}
	if t.Resource == "" || len(t.Signature) == 0 {
		return SAS{}, errors.New("token: sr or sig is missing")
	}
	t.Expiry, t.signed = time.Unix(sec, 0), t.Resource+"\n"+se
	return t, nil
}

// Verify says whether the token was signed with key, in constant time.
func (t SAS) Verify(key []byte) bool {
	return hmac.Equal(t.Signature, sign(key, t.signed))
}

// Expired says whether the token is no longer good at now.
func (t SAS) Expired(now time.Time) bool { return now.After(t.Expiry.Add(Skew)) }

// Audience takes the resource apart: {host}[/devices/{id}[/modules/{id}]]. Ids
// encoded twice, as IoT Edge does, are decoded twice. A bare host, as the Go
// client signs, gives empty ids.
func (t SAS) Audience() (host, device, module string, err error) {
	uri, err := url.PathUnescape(t.Resource)
	if err != nil {
		return "", "", "", errors.New("token: sr is not percent-encoded")
	}
	parts := strings.Split(uri, "/")
	switch {
	case len(parts) == 1:
	case len(parts) == 3 && parts[1] == "devices":
		device = unescape(parts[2])
	case len(parts) == 5 && parts[1] == "devices" && parts[3] == "modules":
		device, module = unescape(parts[2]), unescape(parts[4])
	default:
		return "", "", "", fmt.Errorf("token: sr %q: want {host}/devices/{id}[/modules/{id}]", uri)
	}
	return parts[0], device, module, nil
}

// NewSAS signs a token for a device or module. Ids are encoded twice inside sr,
// which is needed for those with "$" or "%" in them and which IoT Hub and IoT
// Edge take for all.
func NewSAS(host, device, module string, key []byte, expiry time.Time) string {
	uri := host + "/devices/" + escape(device)
	if module != "" {
		uri += "/modules/" + escape(module)
	}
	return token(escape(uri), key, "", expiry)
}

// NewPolicySAS signs a token of a service policy, as back ends use it.
func NewPolicySAS(host, policy string, key []byte, expiry time.Time) string {
	return token(escape(host), key, policy, expiry)
}

func token(sr string, key []byte, policy string, expiry time.Time) string {
	se := strconv.FormatInt(expiry.Unix(), 10)
	sig := base64.StdEncoding.EncodeToString(sign(key, sr+"\n"+se))
	s := scheme + "sr=" + sr + "&sig=" + escape(sig) + "&se=" + se
	if policy != "" {
		s += "&skn=" + escape(policy)
	}
	return s
}

func sign(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}

// DecodeKey decodes a shared access key: base64, with or without padding.
func DecodeKey(s string) ([]byte, error) {
	key, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(s, "="))
	if err != nil || len(key) == 0 {
		return nil, errors.New("key is not base64") // never quote a key
	}
	return key, nil
}
