package iothub

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"holdfast.dev/holdfast/hub"
	"holdfast.dev/holdfast/hub/identity"
	"holdfast.dev/holdfast/hub/wire"
)

// As IoT Edge's hub asks for its scope (the nested form, which also serves a
// gateway that has no gateway above it).
const (
	scopeVersion = "2020-06-30-preview"
	scopeAll     = "devicesAndModulesInTargetDeviceScope"
	scopeOne     = "getDeviceAndModuleOnBehalfOf"
	scopePage    = 100             // identities asked for at a time
	scopeLimit   = 4 << 20         // bytes of one answer
	scopeTries   = 3               // one and two repeats
	scopeTime    = 2 * time.Minute // for all tries of one call
	scopePages   = 10000           // an answer that never ends is a fault of the far side
)

func newWeb(set *settings) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return set.dial(ctx, set.https) // whatever the URL says
		},
		TLSClientConfig:       set.tls.Clone(),
		TLSHandshakeTimeout:   20 * time.Second,
		ResponseHeaderTimeout: 30 * time.Second,
		MaxIdleConnsPerHost:   2,
		IdleConnTimeout:       time.Minute,
	}}
}

type scopeRequest struct {
	PageSize         int    `json:"pageSize,omitempty"`
	ContinuationLink string `json:"continuationLink,omitempty"`
	TargetDeviceID   string `json:"targetDeviceId,omitempty"`
	TargetModuleID   string `json:"targetModuleId,omitempty"`
	AuthChain        string `json:"authChain"`
}

type scopeAnswer struct {
	Devices          []scopeIdentity `json:"devices"`
	Modules          []scopeIdentity `json:"modules"`
	ContinuationLink string          `json:"continuationLink"`
}

type scopeIdentity struct {
	DeviceID       string `json:"deviceId"`
	ModuleID       string `json:"moduleId"`
	Status         string `json:"status"` // modules have none
	Authentication struct {
		Type         identity.AuthKind `json:"type"`
		SymmetricKey struct {
			PrimaryKey   string `json:"primaryKey"`
			SecondaryKey string `json:"secondaryKey"`
		} `json:"symmetricKey"`
	} `json:"authentication"`
}

// Scope gives all children of this gateway; see identity.Source. The gateway's
// own device and its $edgeHub are not among them: nobody connects as these.
func (u *Upstream) Scope(ctx context.Context) ([]identity.Entry, error) {
	var all []identity.Entry
	req := scopeRequest{PageSize: scopePage, AuthChain: u.set.device}
	for range scopePages {
		ans, err := u.ask(ctx, scopeAll, req)
		if err != nil {
			return nil, fmt.Errorf("fetch scope: %w", err)
		}
		for _, id := range append(ans.Devices, ans.Modules...) {
			e, err := id.entry()
			if err != nil {
				u.deps.Log.Warn("identity left out of the scope", "reason", err)
			} else if e.ID != u.Gateway() && string(e.ID) != u.set.device {
				all = append(all, e)
			}
		}
		if ans.ContinuationLink == "" {
			return all, nil
		}
		req.ContinuationLink = ans.ContinuationLink
	}
	return nil, fmt.Errorf("fetch scope: more than %d pages", scopePages)
}

// One gives a single child; hub.ErrUnknown if the cloud says that it is not one.
func (u *Upstream) One(ctx context.Context, id hub.Identity) (identity.Entry, error) {
	ans, err := u.ask(ctx, scopeOne, scopeRequest{TargetDeviceID: id.Device(), TargetModuleID: id.Module(), AuthChain: u.set.device})
	var status statusError
	if errors.As(err, &status) {
		switch status {
		// Not 401: that is about our own credential, and the child may be a good one.
		case http.StatusBadRequest, http.StatusForbidden, http.StatusNotFound:
			return identity.Entry{}, fmt.Errorf("fetch identity %s: %w: %w", id, hub.ErrUnknown, err)
		}
	}
	if err != nil {
		return identity.Entry{}, fmt.Errorf("fetch identity %s: %w", id, err)
	}
	for _, x := range append(ans.Devices, ans.Modules...) {
		if wire.JoinID(x.DeviceID, x.ModuleID) == string(id) {
			return x.entry()
		}
	}
	return identity.Entry{}, fmt.Errorf("fetch identity %s: %w", id, hub.ErrUnknown)
}

func (x scopeIdentity) entry() (identity.Entry, error) {
	id := wire.JoinID(x.DeviceID, x.ModuleID)
	e := identity.Entry{ID: hub.Identity(id), Enabled: x.Status != "disabled", Auth: x.Authentication.Type}
	for _, k := range []struct {
		text string
		key  *[]byte
	}{
		{x.Authentication.SymmetricKey.PrimaryKey, &e.Primary},
		{x.Authentication.SymmetricKey.SecondaryKey, &e.Secondary},
	} {
		if k.text == "" {
			continue
		}
		var err error
		if *k.key, err = wire.DecodeKey(k.text); err != nil {
			return identity.Entry{}, fmt.Errorf("identity %s: %w", id, err)
		}
	}
	return e, nil
}

// statusError is an HTTP status other than 200.
type statusError int

func (e statusError) Error() string {
	return fmt.Sprintf("hub answers %d %s", int(e), http.StatusText(int(e)))
}

// final says whether asking again is of no use.
func (e statusError) final() bool {
	switch e {
	case 400, 401, 403, 404, 405, 406:
		return true
	}
	return false
}

// ask makes one call, and repeats it where that may help.
func (u *Upstream) ask(ctx context.Context, what string, req scopeRequest) (scopeAnswer, error) {
	ctx, cancel := context.WithTimeout(ctx, scopeTime)
	defer cancel()
	for try := 1; ; try++ {
		ans, err := u.askOnce(ctx, what, req)
		var status statusError
		if err == nil || try == scopeTries || errors.As(err, &status) && status.final() {
			return ans, err
		}
		t := time.NewTimer(backoff(try, time.Second, 10*time.Second))
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return ans, err
		}
	}
}

func (u *Upstream) askOnce(ctx context.Context, what string, req scopeRequest) (ans scopeAnswer, err error) {
	body, err := json.Marshal(req)
	if err != nil {
		return ans, err
	}
	to := url.URL{
		Scheme: "https", Host: u.set.host, RawQuery: "api-version=" + scopeVersion,
		Path: "/devices/" + u.set.device + "/modules/" + edgeHub + "/" + what,
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, to.String(), bytes.NewReader(body))
	if err != nil {
		return ans, err
	}
	r.Header.Set("Content-Type", "application/json; charset=utf-8")
	r.Header.Set("User-Agent", clientType)
	r.Header.Set("Authorization", u.token())
	res, err := u.web.Do(r)
	if err != nil {
		return ans, err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, scopeLimit+1))
	switch {
	case res.StatusCode != http.StatusOK:
		return ans, statusError(res.StatusCode)
	case err != nil:
		return ans, err
	case len(text) > scopeLimit:
		return ans, fmt.Errorf("hub answers with more than %d bytes", scopeLimit)
	}
	if err := json.Unmarshal(text, &ans); err != nil {
		return ans, errors.New("hub's answer is not the JSON that was asked for") // its text holds keys
	}
	return ans, nil
}

// token is a fresh one of the gateway's own.
func (u *Upstream) token() string {
	return wire.NewSAS(u.set.host, u.set.device, edgeHub, u.set.key, u.deps.Clock.Now().Wall.Add(tokenLife))
}
