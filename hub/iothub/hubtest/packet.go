package hubtest

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/mochi-mqtt/server/v2/packets"
)

// maxPacket is the largest MQTT packet that is taken, in bytes after the fixed
// header, as IoT Edge's and IoT Hub's decoders have it.
const maxPacket = 256 << 10

// readPacket reads one MQTT 3.1.1 packet. No bytes can do more than make it fail:
// the decoder is known to panic on some, so its panics are errors here.
func readPacket(r io.Reader) (pk packets.Packet, err error) {
	var b [1]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return pk, err
	}
	pk.ProtocolVersion = 4
	if err := pk.FixedHeader.Decode(b[0]); err != nil {
		return pk, fmt.Errorf("decode header %#02x: %w", b[0], err)
	}
	if pk.FixedHeader.Remaining, err = readLength(r); err != nil {
		return pk, err
	}
	if pk.FixedHeader.Remaining > maxPacket {
		return pk, fmt.Errorf("packet has %d bytes, at most %d are allowed", pk.FixedHeader.Remaining, maxPacket)
	}
	buf := make([]byte, pk.FixedHeader.Remaining)
	if _, err := io.ReadFull(r, buf); err != nil {
		return pk, err
	}
	return decode(pk, buf)
}

// readLength reads the remaining length: seven bits a byte, at most four bytes.
func readLength(r io.Reader) (n int, err error) {
	var b [1]byte
	for shift := 0; shift < 28; shift += 7 {
		if _, err := io.ReadFull(r, b[:]); err != nil {
			return 0, err
		}
		n |= int(b[0]&0x7f) << shift
		if b[0] < 0x80 {
			return n, nil
		}
	}
	return 0, errors.New("packet length has more than four bytes")
}

func decode(in packets.Packet, buf []byte) (pk packets.Packet, err error) {
	pk = in
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("decode packet of type %d: %v", in.FixedHeader.Type, p)
		}
	}()
	bad := packets.CodeSuccess
	switch pk.FixedHeader.Type {
	case packets.Connect:
		if err = pk.ConnectDecode(buf); err == nil {
			bad = pk.ConnectValidate()
		}
	case packets.Publish:
		if err = pk.PublishDecode(buf); err == nil {
			bad = pk.PublishValidate(0)
		}
	case packets.Puback:
		err = pk.PubackDecode(buf)
	case packets.Subscribe:
		if err = pk.SubscribeDecode(buf); err == nil {
			bad = pk.SubscribeValidate()
		}
	case packets.Unsubscribe:
		if err = pk.UnsubscribeDecode(buf); err == nil {
			bad = pk.UnsubscribeValidate()
		}
	case packets.Pingreq, packets.Disconnect:
	default:
		err = errors.New("not one that a client sends")
	}
	if err == nil && bad.Code >= packets.ErrUnspecifiedError.Code {
		err = bad
	}
	if err != nil {
		err = fmt.Errorf("decode packet of type %d: %w", in.FixedHeader.Type, err)
	}
	return pk, err
}

func connack(code byte, present bool) []byte {
	return encode(packets.Connack, &packets.Packet{ReasonCode: code, SessionPresent: present})
}

func puback(id uint16) []byte {
	return encode(packets.Puback, &packets.Packet{PacketID: id})
}

func publish(topic string, qos byte, id uint16, dup bool, body []byte) []byte {
	pk := &packets.Packet{TopicName: topic, PacketID: id, Payload: body}
	pk.FixedHeader.Qos, pk.FixedHeader.Dup = qos, dup
	return encode(packets.Publish, pk)
}

// encode writes a packet of ours. It cannot fail: what we write has packet ids
// where they are needed.
func encode(kind byte, pk *packets.Packet) []byte {
	pk.ProtocolVersion, pk.FixedHeader.Type = 4, kind
	var buf bytes.Buffer
	var err error
	switch kind {
	case packets.Connack:
		err = pk.ConnackEncode(&buf)
	case packets.Publish:
		err = pk.PublishEncode(&buf)
	case packets.Puback:
		err = pk.PubackEncode(&buf)
	case packets.Suback:
		err = pk.SubackEncode(&buf)
	case packets.Unsuback:
		err = pk.UnsubackEncode(&buf)
	case packets.Pingresp:
		err = pk.PingrespEncode(&buf)
	}
	if err != nil {
		panic("hubtest: encode: " + err.Error())
	}
	return buf.Bytes()
}
