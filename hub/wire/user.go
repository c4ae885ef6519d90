package wire

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// User is what a client says of itself in the CONNECT user name:
//
//	{host}/{device}/?{props}                  a device
//	{host}/{device}/{module}/?{props}         a module
//	{host}/{device}[/{module}]/{props}        the same without "?", as Go clients send it
//	props: api-version=… [&DeviceClientType=…] [&model-id=…] [&auth-chain=leaf;parent;…]
type User struct {
	Host       string   // the IoT hub's name, also when the client speaks to a gateway
	Device     string   // 1 to 128 characters
	Module     string   // "" for a device
	APIVersion string   // must be there; its value is not judged
	ClientType string   // what the SDK calls itself
	ModelID    string   // a digital twin model, or ""
	AuthChain  []string // from leaf to root, or nil; each "device" or "device/module"
}

// IsUser says whether s is meant as an IoT Hub user name. It is what tells IoT
// Hub clients from ordinary ones on a shared listener: theirs has a slash and an
// api-version, and account names have no slash.
func IsUser(s string) bool {
	return strings.Contains(s, "/") && strings.Contains(s, "api-version=")
}

// ParseUser parses a CONNECT user name. The error names the part that is wrong.
func ParseUser(s string) (User, error) {
	parts := strings.Split(s, "/")
	if len(parts) < 3 || len(parts) > 4 {
		return User{}, fmt.Errorf("user name %q: want {host}/{device}[/{module}]/?api-version=…", s)
	}
	u := User{Host: parts[0], Device: parts[1]}
	if len(parts) == 4 {
		u.Module = parts[2]
		if u.Module == "" {
			return User{}, fmt.Errorf("user name %q: module id is empty", s)
		}
	}
	if u.Host == "" {
		return User{}, fmt.Errorf("user name %q: host is empty", s)
	}
	if err := CheckID(u.Device); err != nil {
		return User{}, fmt.Errorf("user name %q: device %w", s, err)
	}
	if u.Module != "" {
		if err := CheckID(u.Module); err != nil {
			return User{}, fmt.Errorf("user name %q: module %w", s, err)
		}
	}
	if err := u.props(strings.TrimPrefix(parts[len(parts)-1], "?")); err != nil {
		return User{}, fmt.Errorf("user name %q: %w", s, err)
	}
	return u, nil
}

func (u *User) props(s string) error {
	seen := map[string]bool{}
	for pair := range split(s) {
		k, v, _ := strings.Cut(pair, "=")
		v, err := url.PathUnescape(v)
		if err != nil {
			return fmt.Errorf("property %s: %w", k, err)
		}
		if seen[k] {
			continue // the first of two wins
		}
		seen[k] = true
		switch k {
		case "api-version":
			u.APIVersion = v
		case "DeviceClientType":
			u.ClientType = v
		case "model-id":
			u.ModelID = v
		case "auth-chain":
			u.AuthChain = strings.Split(v, ";")
		}
	}
	if u.APIVersion == "" {
		return errors.New("api-version is missing")
	}
	return nil
}

// String writes the user name in the form the SDKs use.
func (u User) String() string {
	s := u.Host + "/" + u.ClientID() + "/?api-version=" + escape(u.APIVersion)
	if u.ModelID != "" {
		s += "&model-id=" + escape(u.ModelID)
	}
	if u.ClientType != "" {
		s += "&DeviceClientType=" + escape(u.ClientType)
	}
	if len(u.AuthChain) > 0 {
		s += "&auth-chain=" + escape(strings.Join(u.AuthChain, ";"))
	}
	return s
}

// ClientID is the CONNECT client id that belongs to the user name.
func (u User) ClientID() string { return JoinID(u.Device, u.Module) }

// JoinID writes an identity as "device" or "device/module".
func JoinID(device, module string) string {
	if module == "" {
		return device
	}
	return device + "/" + module
}

// SplitID is the reverse of JoinID.
func SplitID(id string) (device, module string) {
	device, module, _ = strings.Cut(id, "/")
	return device, module
}

// CheckID says whether s may be a device or module id: 1 to 128 ASCII letters,
// digits and - . % _ * ? ! ( ) , : = @ $ '
func CheckID(s string) error {
	if s == "" {
		return errors.New("id is empty")
	}
	if len(s) > 128 {
		return fmt.Errorf("id has %d characters, at most 128 are allowed", len(s))
	}
	for i := range len(s) {
		c := s[i]
		if 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-.%_*?!(),:=@$'", c) >= 0 {
			continue
		}
		return fmt.Errorf("id %q: character %q is not allowed", s, c)
	}
	return nil
}
