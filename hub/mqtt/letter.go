package mqtt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"holdfast.dev/holdfast/hub"
	"holdfast.dev/holdfast/storage"
)

// What an ordinary client's message takes along through the store beside what the
// hub knows of it, in hub.Message.Extra. Version first, lengths are uvarints:
//
//	1 (1) | retain (1) | lifetime, seconds, 0: for ever | length, publisher's session | properties as in a PUBLISH (MQTT 5, 2.2.2)
const extraVersion = 1

type extra struct {
	retain   bool
	lifetime uint32 // seconds; 0: for ever
	from     string // key of the session that it comes from
	props    string // encoded; "" or as in a PUBLISH
}

var errExtra = errors.New("what a message takes along ends too early")

func (x extra) encode() string {
	b := make([]byte, 0, 16+len(x.from)+len(x.props))
	b = append(b, extraVersion, 0)
	if x.retain {
		b[1] = 1
	}
	b = binary.AppendUvarint(b, uint64(x.lifetime))
	b = append(binary.AppendUvarint(b, uint64(len(x.from))), x.from...)
	return string(append(b, x.props...))
}

// parseExtra copies nothing: it is asked for each message that is routed. Messages
// of other bridges take nothing along.
func parseExtra(s string) (x extra, err error) {
	if s == "" {
		return x, nil
	}
	if s[0] != extraVersion {
		return x, fmt.Errorf("what a message takes along has version %d, this program knows %d", s[0], extraVersion)
	}
	if len(s) < 2 {
		return x, errExtra
	}
	x.retain = s[1]&1 != 0
	s = s[2:]
	lifetime, s, ok := cutUvarint(s)
	n, s, ok2 := cutUvarint(s)
	if !ok || !ok2 || n > uint64(len(s)) {
		return x, errExtra
	}
	x.lifetime, x.from, x.props = uint32(lifetime), s[:n], s[n:]
	return x, nil
}

func cutUvarint(s string) (v uint64, rest string, ok bool) {
	for i := 0; i < len(s) && i < binary.MaxVarintLen64; i++ {
		v |= uint64(s[i]&127) << (7 * i)
		if s[i] < 128 {
			return v, s[i+1:], true
		}
	}
	return 0, "", false
}

// extra is what m takes along.
func (m *message) extra() string {
	x := extra{retain: m.retain, from: m.from, lifetime: m.lifetime}
	if m.props != nil {
		var b bytes.Buffer
		m.props.Encode(packets.Publish, packets.Mods{AllowResponseInfo: true}, &b, 0)
		x.props = b.String()
	}
	return x.encode()
}

// letter makes a message for subscribers of what a queue has kept. Its properties and
// its time to live are as they came.
func letter(m *hub.Message) (*message, error) {
	x, err := parseExtra(m.Extra)
	if err != nil {
		return nil, err
	}
	out := &message{id: m.ID, topic: m.Topic, body: m.Body, qos: m.QoS, retain: x.retain, from: strings.Clone(x.from), lifetime: x.lifetime}
	if x.props != "" {
		out.props = new(packets.Properties)
		if _, err := out.props.Decode(packets.Publish, bytes.NewBufferString(x.props)); err != nil {
			return nil, fmt.Errorf("properties of a kept message: %w", err)
		}
	}
	return out, nil
}

// expires is when a kept message's time is over, by the lower bound of its age:
// nothing expires by a guess.
func (b *Broker) expires(stamp storage.Stamp, ttl time.Duration) time.Time {
	if ttl <= 0 {
		return time.Time{}
	}
	age, _ := b.clock.Age(stamp)
	return time.Now().Add(ttl - age)
}

// A note is what a queue keeps of its copy alone (storage.Dest.Note): how the copy
// goes to its one client.
//
//	flags (1) | subscription identifiers, uvarints
type note struct {
	qos    byte
	retain bool  // the flag that the client gets
	greets bool  // a retained message for a new subscription
	ids    []int // subscription identifiers
}

const (
	noteQoS    = 3
	noteRetain = 4
	noteGreets = 8

	maxNote = 255 - binary.MaxVarintLen32 // storage's limit; a client with more overlapping identifiers gets the first
)

func (n note) encode() []byte {
	flags := n.qos & noteQoS
	if n.retain {
		flags |= noteRetain
	}
	if n.greets {
		flags |= noteGreets
	}
	b := []byte{flags}
	for _, id := range n.ids {
		if len(b) > maxNote {
			break
		}
		b = binary.AppendUvarint(b, uint64(id))
	}
	return b
}

func parseNote(b []byte) (n note, err error) {
	if len(b) == 0 {
		return n, errors.New("note of a kept message is empty")
	}
	n.qos, n.retain, n.greets = b[0]&noteQoS, b[0]&noteRetain != 0, b[0]&noteGreets != 0
	for b = b[1:]; len(b) > 0; {
		id, k := binary.Uvarint(b)
		if k <= 0 {
			return n, errors.New("note of a kept message ends too early")
		}
		n.ids, b = append(n.ids, int(id)), b[k:]
	}
	return n, nil
}

// left is how long a message has to live, in whole seconds, at least one.
func left(expires time.Time) uint32 {
	d := time.Until(expires) + time.Second - 1 // a second counts until it is over
	return uint32(max(1, d/time.Second))
}
