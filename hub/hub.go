// Package hub is the vocabulary of the house and the one door in it.
//
// A message is always in somebody's custody, and one verb hands it over:
//
//	Publish(ctx, m, done)     done(nil) means: it is mine now, you may forget it.
//
// The device hands it to a bridge, the bridge to the hub (done when it is on
// disk), a Forwarder takes it from the queue and hands it to the cloud (done when
// the cloud has acknowledged). Nobody acknowledges before the next one has said
// done, so nothing acknowledged is lost by anyone's death. What a death can cost
// is a repeat: the next one had it and the word did not come back. A repeat
// carries the same Message.ID.
//
// A Command goes the other way with the other verb:
//
//	Do(ctx, c) (Reply, error)
//
// from the cloud through the hub to the bridge that the device is attached to,
// and the answer comes back as the return value. It is never stored: either
// somebody answers in time, or the caller is told that nobody did.
//
// The mirror is in the types. The Hub is a Publisher and a Doer. A Bridge (the
// MQTT broker, a Modbus poller, the machine's own events) is given the Hub and is
// found by it as the Doer of those who are attached. An Upstream (Azure IoT Hub,
// any broker) is given the Hub and is a Publisher. A Router says in which queues
// a message is kept; the routers of all who want messages are asked, and the
// message is kept once for all of them or for none.
//
// What is not delivered is accounted for: see storage.Row, the ledger. It is kept
// in the same commit as the data, so it cannot disagree with it.
//
// Core is the Hub of this program. Health is one ordered chain of checks; the
// first that fails is the reason that light, page and console all give.
package hub

import (
	"context"
	"errors"
	"time"

	"holdfast.dev/holdfast/hub/wire"
	"holdfast.dev/holdfast/storage"
)

// What Publish answers with, beside nil. A caller decides by them.
var (
	ErrOffline = errors.New("offline")            // fate unknown: hand it over again, order kept
	ErrRefused = errors.New("sender is refused")  // nothing of this sender for now: park the sender
	ErrBad     = errors.New("message is refused") // never, whoever sends it: park the message
	ErrFull    = errors.New("no room")            // not kept: the sender keeps it and tries again later
)

// What authentication and Do answer with.
var (
	ErrUnauthorized = errors.New("not authorized")      // the credential is bad
	ErrUnsure       = errors.New("cannot tell yet")     // the identity may exist; ask again later
	ErrUnknown      = errors.New("nobody of that name") // not attached, or does not listen for this
	ErrTimeout      = errors.New("no answer in time")
)

// Identity is anything that can send: "device" or "device/module". A bridge
// proves it; it is never read from a body or a topic.
type Identity string

// Device is the part before the slash.
func (id Identity) Device() string { d, _ := wire.SplitID(string(id)); return d }

// Module is the part after the slash, or "".
func (id Identity) Module() string { _, m := wire.SplitID(string(id)); return m }

// Message is what a device has to say.
type Message struct {
	// ID is ours and unique; set by the Hub where it is empty. It goes upstream as
	// the property "holdfast-id", the same on a repeat, so that receivers can drop
	// repeats. The device's own "$.mid" is never touched.
	ID      string
	From    Identity
	Topic   string // an ordinary client's topic; "" for telemetry
	Output  string // a module's output; "" for telemetry
	QoS     byte
	Arrived storage.Stamp // set by the Hub where it is zero
	History bool          // set by a Forwarder: fresher ones of its sender may have gone before. Goes upstream as "holdfast-history"
	Props   wire.Bag
	Extra   string           // what the bridge that it comes from wants to find again in a queue of its own; nobody else reads it
	Body    []byte           // not changed after Publish
	With    []storage.Change // state that becomes true exactly when the message is kept
	Order   *storage.Order   // after an ErrFull nothing more of it is kept until Resume; may be nil
}

// Size is what IoT Hub counts: body plus names and values of the properties.
func (m *Message) Size() int {
	n := len(m.Body)
	for k, v := range m.Props.All() {
		n += len(k) + len(v)
	}
	return n
}

// Publisher takes messages into its custody.
type Publisher interface {
	// Publish hands m over. done is called exactly once, in the order of the calls
	// for each sender: nil when m is in the receiver's custody, else an error that
	// is (errors.Is) ErrOffline, ErrRefused, ErrBad or ErrFull. done must not block.
	//
	// Publish does not wait for the disk or the network; it blocks only while the
	// receiver's window is full, until ctx ends. Then done gets ErrOffline.
	Publish(ctx context.Context, m Message, done func(error))
}

// Kind is a kind of Command.
type Kind uint8

const (
	Method        Kind = iota + 1 // a direct method; Name is its name, the Reply is the device's
	CloudToDevice                 // a message; the Reply says only that the device has acknowledged it
)

func (k Kind) String() string {
	switch k {
	case Method:
		return "method"
	case CloudToDevice:
		return "cloud-to-device"
	}
	return "unknown"
}

// Command is what somebody wants of a device.
type Command struct {
	Kind  Kind
	To    Identity
	Name  string   // a method's name
	Props wire.Bag // of a cloud-to-device message
	Body  []byte
}

// Reply is a device's answer. Status is the device's own for a method (200 is
// usual), else 200.
type Reply struct {
	Status int
	Body   []byte
}

// Doer carries out commands. The error is ErrUnknown when nobody of that name is
// there or listens for that kind, ErrTimeout when ctx ended first.
type Doer interface {
	Do(ctx context.Context, c Command) (Reply, error)
}

// Presence says who is connected and what each listens for, so that an upstream
// opens the connections that commands need.
type Presence interface {
	// Attach says that id can be reached through d for commands of these kinds. A
	// newer Attach of the same id takes the place of the older one; gone ends it
	// and may be called more than once.
	Attach(id Identity, d Doer, kinds ...Kind) (gone func())
	// Changed gives a channel that is closed at the next change. Take it before List.
	Changed() <-chan struct{}
	List() []Present
}

// Present is one identity that is attached.
type Present struct {
	ID    Identity
	Kinds []Kind
	Since time.Time
}

// Listens says whether p waits for commands of kind k.
func (p Present) Listens(k Kind) bool {
	for _, x := range p.Kinds {
		if x == k {
			return true
		}
	}
	return false
}

// Hub is what bridges and upstreams are given.
type Hub interface {
	Publisher
	Doer
	Presence
}

// Bridge brings the messages of some kind of device to the hub. It attaches the
// devices that can be reached as it meets them.
type Bridge interface {
	Run(ctx context.Context, h Hub) error
}

// Upstream takes messages further and brings commands. Run keeps its connections
// until ctx ends; Publish before Run, or while offline, answers ErrOffline.
type Upstream interface {
	Publisher
	Link
	Run(ctx context.Context, h Hub) error
}

// Link is the state of the way to a far side. A Forwarder sends nothing while
// its link is down and wakes when it changes.
type Link interface {
	Up() bool
	// Changed gives a channel that is closed at the next change. Take it before Up.
	Changed() <-chan struct{}
}

// Dest says where a message is kept, and on what terms. A destination without room
// refuses the message, for all: its sender is told ErrFull and keeps it.
type Dest struct {
	Queue    string        // the destination, e.g. "iothub"
	Priority int           // 0 (first) to 9; each has a queue of its own, a lane
	TTL      time.Duration // 0: for ever
	Note     []byte        // of this copy alone
	Refuse   error         // why this destination can never take the message: it is refused (ErrBad), for all
}

// Router says where a message is kept; no Dest at all means nowhere. It is a pure
// function, called for every message, by several goroutines at once.
type Router func(m *Message) []Dest

// Lane is the name of the storage queue of one destination and priority.
func Lane(queue string, priority int) string {
	return queue + "." + string(rune('0'+priority))
}
