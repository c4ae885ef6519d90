package identity

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"holdfast.dev/holdfast/hub"
	"holdfast.dev/holdfast/hub/wire"
	"holdfast.dev/holdfast/storage"
)

// Device proves an IoT Hub device or module: u is its user name, password its
// shared access signature, signed with its own primary or secondary key. (A
// module may not sign with its device's key, nor a child gateway for its
// children; X.509 is not accepted yet.)
//
// The error is hub.ErrUnauthorized where asking again would not help, and
// hub.ErrUnsure where it might. SDKs give up for good on the first, so it is
// given only by one who knows:
//
//	token malformed, for somebody else, or expired     ErrUnauthorized
//	known; key does not fit, or disabled               the cloud is asked once: the key may be new
//	    no cloud, offline, or the cloud has answered   ErrUnauthorized
//	    the cloud did not answer                       ErrUnsure
//	not known                                          the cloud is asked once: it may be new
//	    no cloud, or the cloud says no                 ErrUnauthorized
//	    offline, or the cloud did not answer           ErrUnsure, even if the scope is complete:
//	                                                   it may have been added since
//
// Expiry is judged only by a clock that knows at least a floor. Before that a
// token that is signed well is accepted: the gateway would otherwise lock out
// everybody after each power cut without a network.
func (d *Directory) Device(ctx context.Context, u wire.User, password string) (hub.Identity, error) {
	id := hub.Identity(u.ClientID())
	t, err := d.token(u, password)
	if err != nil {
		return "", fmt.Errorf("authenticate %s: %w: %w", id, err, hub.ErrUnauthorized)
	}
	e, ok := d.find(id)
	if ok {
		if err = e.verify(t); err == nil {
			return id, nil
		}
	}
	if _, isFixed := d.fixed[id]; isFixed {
		return "", fmt.Errorf("authenticate %s: %w: %w", id, err, hub.ErrUnauthorized)
	}
	if err := d.lookUp(ctx, id, t, ok, err); err != nil {
		return "", fmt.Errorf("authenticate %s: %w", id, err)
	}
	return id, nil
}

// lookUp decides about somebody whom the directory does not know (known false) or
// does not believe (because of doubt), with the help of the cloud if there is one.
func (d *Directory) lookUp(ctx context.Context, id hub.Identity, t wire.SAS, known bool, doubt error) error {
	if !known {
		doubt = errors.New("identity is not known")
	}
	switch {
	case d.source == nil, known && !d.up():
		return fmt.Errorf("%w: %w", doubt, hub.ErrUnauthorized)
	case !d.up():
		return fmt.Errorf("%w, and the cloud cannot be asked: %w", doubt, hub.ErrUnsure)
	}
	asked := d.ask(ctx, id)
	e, known := d.find(id) // by the answer, or by a full refresh meanwhile
	if known {
		if doubt = e.verify(t); doubt == nil {
			return nil
		}
	}
	switch {
	case errors.Is(asked, hub.ErrUnknown):
		return fmt.Errorf("%w, and the cloud does not know it as a child of this gateway: %w", doubt, hub.ErrUnauthorized)
	case asked != nil:
		return fmt.Errorf("%w, and the cloud cannot be asked: %w: %w", doubt, asked, hub.ErrUnsure)
	case !known:
		return fmt.Errorf("identity has just been removed: %w", hub.ErrUnsure)
	}
	return fmt.Errorf("%w: %w", doubt, hub.ErrUnauthorized)
}

// token reads a password and judges all that can be judged without a key.
func (d *Directory) token(u wire.User, password string) (wire.SAS, error) {
	if password == "" {
		return wire.SAS{}, errors.New("there is no token, and certificates are not accepted yet")
	}
	t, err := wire.ParseSAS(password)
	if err != nil {
		return wire.SAS{}, err
	}
	host, ok := audience(t.Resource, u)
	if !ok {
		return wire.SAS{}, fmt.Errorf("token is for %q", t.Resource)
	}
	if !d.isHost(host) {
		return wire.SAS{}, fmt.Errorf("token is for another host, %q", host)
	}
	if now := d.clock.Now(); now.Grade >= storage.GradeFloor && t.Expired(now.Wall) {
		return wire.SAS{}, fmt.Errorf("token has expired at %s", t.Expiry.UTC().Format("2006-01-02T15:04:05Z"))
	}
	return t, nil
}

// audience finds u's ids in resource, the sr of a token, and gives the host. It
// tries resource as it is (the C SDK does not encode), decoded once (Node,
// Python) and twice (IoT Edge encodes ids again): which of them was meant cannot
// be told from the text, since an id may hold a "%" itself. A host alone, as the
// Go client signs, names nobody and is good for whoever has the key.
func audience(resource string, u wire.User) (host string, ok bool) {
	tail := "/devices/" + u.Device
	if u.Module != "" {
		tail += "/modules/" + u.Module
	}
	for s, n := resource, 0; n < 3; n++ {
		if !strings.Contains(s, "/") && !strings.Contains(s, "%") {
			return s, true
		}
		i := len(s) - len(tail)
		if i >= 0 && strings.EqualFold(s[i:], tail) && !strings.Contains(s[:i], "/") {
			return s[:i], true
		}
		next, err := url.PathUnescape(s)
		if err != nil {
			return "", false
		}
		s = next
	}
	return "", false
}

// verify says why t was not signed by e, or nil. Both keys are tried in any case.
func (e Entry) verify(t wire.SAS) error {
	if e.Auth != SymmetricKey {
		return fmt.Errorf("identity authenticates by %q, not by a token", e.Auth)
	}
	primary := len(e.Primary) > 0 && t.Verify(e.Primary)
	secondary := len(e.Secondary) > 0 && t.Verify(e.Secondary)
	switch {
	case !primary && !secondary:
		return errors.New("token is not signed with a key of this identity")
	case !e.Enabled:
		return errors.New("identity is disabled")
	}
	return nil
}
