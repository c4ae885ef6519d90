// Package identity knows who may connect, and proves it in the cloud's place.
//
// A Directory holds two kinds of people: IoT Hub devices and modules, which come
// from the hub's scope (its list of this gateway's children, fetched by a Source
// and kept on disk, keys sealed, so that they are known after a restart without a
// cloud) or from [[device]] in the configuration; and ordinary MQTT accounts,
// which come from [[account]].
//
// The few types are Directory (who may connect), Entry (one identity and its
// keys), Account (an ordinary client), Source (the cloud side) and Keeper (the
// disk side).
//
// What was learned holds until the cloud says otherwise, however long the cloud
// is away: a device that was known is let in after a month of outage and after
// any number of restarts, and one that was disabled meanwhile is let in too,
// until the next refresh. Only a whole scope removes somebody; not to be found
// singly may be a fault of the moment.
//
// What is kept is as safe as the file that seals it. The seal keeps a copied or
// discarded store from giving up its keys; it does not keep them from somebody
// who has the whole card.
package identity

import (
	"bytes"
	"context"

	"holdfast.dev/holdfast/hub"
)

// Account is an ordinary MQTT client that has proven who it is.
type Account struct {
	Name      string
	From      hub.Identity // whose messages these are when they go up; "" for the gateway's own
	Publish   []string     // topic filters it may publish under
	Subscribe []string     // topic filters it may subscribe within
	Proof     uint64       // number of the password: another one has another
}

// AuthKind is how an identity proves itself.
type AuthKind string

const (
	SymmetricKey AuthKind = "sas"
	SelfSigned   AuthKind = "selfSigned"           // X.509 by thumbprint; not accepted yet
	CA           AuthKind = "certificateAuthority" // X.509 by chain; not accepted yet
	NoAuth       AuthKind = "none"
)

// Entry is one identity of the hub's scope.
type Entry struct {
	ID        hub.Identity
	Enabled   bool
	Auth      AuthKind
	Primary   []byte // decoded key, nil if there is none
	Secondary []byte
}

// String is e without its keys, so that no log or error can carry them.
func (e Entry) String() string {
	state := "enabled"
	if !e.Enabled {
		state = "disabled"
	}
	return string(e.ID) + " (" + string(e.Auth) + ", " + state + ")"
}

// GoString is String, for %#v.
func (e Entry) GoString() string { return e.String() }

func (e Entry) equal(o Entry) bool {
	return e.ID == o.ID && e.Enabled == o.Enabled && e.Auth == o.Auth &&
		bytes.Equal(e.Primary, o.Primary) && bytes.Equal(e.Secondary, o.Secondary)
}

// Source is the cloud side of the directory.
type Source interface {
	// Scope gives all children of this gateway, paging done.
	Scope(ctx context.Context) ([]Entry, error)
	// One gives a single child; hub.ErrUnknown if the cloud says that it is not one.
	One(ctx context.Context, id hub.Identity) (Entry, error)
}

// DeviceConfig is one [[device]] of the configuration: a device or module that
// may connect whatever the cloud's scope says.
type DeviceConfig struct {
	ID           string `toml:"id"`            // "device" or "device/module"
	PrimaryKey   string `toml:"primary_key"`   // base64
	SecondaryKey string `toml:"secondary_key"` // base64, optional
}

// AccountConfig is one [[account]] of the configuration.
type AccountConfig struct {
	Name      string   `toml:"name"`      // the MQTT user name; no slash
	Password  string   `toml:"password"`  // an argon2id or bcrypt hash, as "holdfast passwd" prints it
	Device    string   `toml:"device"`    // identity its messages go up as; the gateway's own if empty
	Publish   []string `toml:"publish"`   // topic filters; none: nothing
	Subscribe []string `toml:"subscribe"` // topic filters; none: nothing
}
