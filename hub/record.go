package hub

import (
	"encoding/binary"
	"errors"
	"fmt"

	"holdfast.dev/holdfast/hub/wire"
	"holdfast.dev/holdfast/storage"
)

// A message's record body, version first; strings are a uvarint length and the
// bytes. Sender and stamp are the storage record's own, its checksum too.
//
//	2 (1) | QoS (1) | id | topic | output | properties | extra | body to the end
//
// Version 1 had no extra. At most wire.MaxMessage and the names, so it always fits
// storage.MaxRecord.
const (
	recordVersion = 2
	withoutExtra  = 1
)

// Encode makes the body of the record that a message is kept in; see Decode.
func Encode(m *Message) []byte {
	b := make([]byte, 0, 2+5*binary.MaxVarintLen32+len(m.ID)+len(m.Topic)+len(m.Output)+len(m.Props)+len(m.Extra)+len(m.Body))
	b = append(b, recordVersion, m.QoS)
	for _, s := range []string{m.ID, m.Topic, m.Output, string(m.Props), m.Extra} {
		b = append(binary.AppendUvarint(b, uint64(len(s))), s...)
	}
	return append(b, m.Body...)
}

// Decode gives the message of a record that a Core has kept. From and Arrived are
// the record's. It fails on records that a newer program has written.
func Decode(it *storage.Item) (Message, error) {
	b := it.Body
	if len(b) < 2 {
		return Message{}, errors.New("message record ends too early")
	}
	version := b[0]
	if version != recordVersion && version != withoutExtra {
		return Message{}, fmt.Errorf("message record has version %d, this program knows %d", version, recordVersion)
	}
	m := Message{From: Identity(it.Sender), Arrived: it.Stamp, QoS: b[1]}
	b = b[2:]
	var props string
	for _, s := range []*string{&m.ID, &m.Topic, &m.Output, &props, &m.Extra} {
		if s == &m.Extra && version == withoutExtra {
			break
		}
		n, k := binary.Uvarint(b)
		if k <= 0 || n > uint64(len(b)-k) {
			return Message{}, errors.New("message record ends too early")
		}
		*s, b = string(b[k:k+int(n)]), b[k+int(n):]
	}
	m.Props, m.Body = wire.Bag(props), b
	return m, nil
}
