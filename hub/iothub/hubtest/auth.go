package hubtest

import (
	"fmt"
	"strings"
	"time"

	"holdfast.dev/holdfast/hub/wire"
)

// MQTT 3.1.1 return codes of CONNACK.
const (
	accepted          = 0
	badVersion        = 1
	serverUnavailable = 3 // also what IoT Edge's hub gives for a malformed user name
	notAuthorized     = 5
)

// refusal is why a CONNECT is refused, and with what code.
type refusal struct {
	code byte
	why  error
}

// sender is whom a connection speaks for. One is shared by all its messages.
type sender struct {
	id             string
	device, module string
	via            string    // "gateway/$edgeHub", or "" for itself
	until          time.Time // when its token is no longer good
}

// authenticate judges user name, client id and password of a CONNECT.
func (h *Hub) authenticate(name, clientID, password string) (*sender, wire.User, *refusal) {
	u, err := wire.ParseUser(name)
	if err != nil {
		return nil, u, &refusal{serverUnavailable, err}
	}
	id := u.ClientID()
	if code, ok := h.faults.get().connack(id); ok {
		return nil, u, &refusal{code, fmt.Errorf("connack %d was asked for", code)}
	}
	s := &sender{id: id, device: u.Device, module: u.Module}
	if clientID != id {
		return nil, u, &refusal{notAuthorized, fmt.Errorf("client id %q, user name says %q", clientID, id)}
	}
	if !strings.EqualFold(u.Host, h.cfg.Host) {
		return nil, u, &refusal{notAuthorized, fmt.Errorf("host %q, this is %q", u.Host, h.cfg.Host)}
	}
	if s.until, err = h.permit(s, u.AuthChain, password); err != nil {
		return nil, u, &refusal{notAuthorized, err}
	}
	return s, u, nil
}

// permit checks the credential: the identity's own, or with a chain of two or
// more that of the gateway at its end. It fills s.via.
// until is when the credential is no longer good.
func (h *Hub) permit(s *sender, chain []string, password string) (until time.Time, err error) {
	if err := h.enabled(s.id); err != nil {
		return until, err
	}
	signer := s.id
	if len(chain) > 1 {
		if err := h.checkChain(s.id, chain); err != nil {
			return until, err
		}
		signer = chain[len(chain)-1] + "/" + hubModule
		if signer != s.id {
			s.via = signer
		}
	}
	return h.checkToken(password, signer)
}

// checkChain says whether each of chain is behind the next, and all may connect.
func (h *Hub) checkChain(id string, chain []string) error {
	if chain[0] != id {
		return fmt.Errorf("auth-chain begins with %q, want %q", chain[0], id)
	}
	for i, this := range chain {
		if err := h.enabled(this); err != nil {
			return err
		}
		if i+1 == len(chain) {
			break
		}
		if parent := h.parent(this); parent != chain[i+1] {
			return fmt.Errorf("%s is behind %q, auth-chain says %q", this, parent, chain[i+1])
		}
	}
	last := chain[len(chain)-1]
	if d, _ := h.registry.get(last); !d.Edge {
		return fmt.Errorf("%s is no gateway", last)
	}
	return nil
}

// parent of a module is its device, of a device its gateway.
func (h *Hub) parent(id string) string {
	if device, module := wire.SplitID(id); module != "" {
		return device
	}
	d, _ := h.registry.get(id)
	return d.Parent
}

// enabled fails unless id, and the device of a module, may connect.
func (h *Hub) enabled(id string) error {
	device, _ := wire.SplitID(id)
	for _, id := range []string{id, device} {
		d, ok := h.registry.get(id)
		if !ok {
			return fmt.Errorf("%s is not registered", id)
		}
		if d.Disabled {
			return fmt.Errorf("%s is disabled", id)
		}
	}
	return nil
}

// checkToken verifies a token of an identity. The resource may be the identity's
// or any prefix of it by segments, as IoT Hub documents it; Go clients sign the
// bare host. until is when it is no longer good.
func (h *Hub) checkToken(token, id string) (until time.Time, err error) {
	t, err := wire.ParseSAS(token)
	if err != nil {
		return until, err
	}
	host, device, module, err := t.Audience()
	if err != nil {
		return until, err
	}
	wantDevice, wantModule := wire.SplitID(id)
	switch {
	case !strings.EqualFold(host, h.cfg.Host),
		device != "" && !strings.EqualFold(device, wantDevice),
		module != "" && !strings.EqualFold(module, wantModule):
		return until, fmt.Errorf("token: sr is for %s/%s, want %s/%s", host, wire.JoinID(device, module), h.cfg.Host, id)
	case t.Expired(time.Now()):
		return until, fmt.Errorf("token: expired at %s", t.Expiry.UTC().Format(time.RFC3339))
	}
	d, ok := h.registry.get(id)
	if !ok {
		return until, fmt.Errorf("%s is not registered", id)
	}
	if d.Auth != "sas" || !verifies(t, d.Primary) && !verifies(t, d.Secondary) {
		return until, fmt.Errorf("token: not signed with a key of %s", id)
	}
	return t.Expiry.Add(wire.Skew), nil
}

// checkPolicy verifies a token of the service policy.
func (h *Hub) checkPolicy(token string) error {
	t, err := wire.ParseSAS(token)
	if err != nil {
		return err
	}
	host, _, _, err := t.Audience()
	switch {
	case err != nil:
		return err
	case !strings.EqualFold(host, h.cfg.Host):
		return fmt.Errorf("token: sr is for %s, want %s", host, h.cfg.Host)
	case t.KeyName != h.cfg.Policy:
		return fmt.Errorf("token: policy %q, want %q", t.KeyName, h.cfg.Policy)
	case t.Expired(time.Now()):
		return fmt.Errorf("token: expired at %s", t.Expiry.UTC().Format(time.RFC3339))
	case !t.Verify(h.cfg.PolicyKey):
		return fmt.Errorf("token: not signed with the key of policy %s", h.cfg.Policy)
	}
	return nil
}

// verifies is false without a key: anybody can sign with an empty one.
func verifies(t wire.SAS, key []byte) bool { return len(key) > 0 && t.Verify(key) }
