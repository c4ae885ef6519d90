package conform

import (
	"bufio"
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestEncode(t *testing.T) {
	user, password := "u", "p"
	for _, c := range []struct {
		name string
		got  []byte
		want string
	}{
		{"CONNECT", hello{name: "MQTT", level: v311, clean: true, keep: 60, id: "c"}.bytes(), "\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01c"},
		{"CONNECT with all", hello{name: "MQTT", level: v5, id: "c", will: &lastWill{topic: "t", payload: "w", qos: 1, retain: true, props: number(propWillDelay, 1)},
			user: &user, password: &password, props: number(propReceiveMaximum, 2), flip: 1, extra: []byte("xy"), cut: 1}.bytes(),
			"\x10\x24\x00\x04MQTT\x05\xed\x00\x00\x03\x21\x00\x02\x00\x01c\x05\x18\x00\x00\x00\x01\x00\x01t\x00\x01w\x00\x01u\x00\x01px"},
		{"PUBLISH", pub{topic: "t", payload: "x", qos: 2, id: 0x102, dup: true, retain: true}.bytes(v311), "\x3d\x06\x00\x01t\x01\x02x"},
		{"PUBLISH of 5", pub{topic: "t", payload: "x", props: slices.Concat(pair("k", "v"), words(propContentType, "c"), number(propPayloadFormat, 1), number(propSubscriptionID, 200))}.bytes(v5),
			"\x30\x15\x00\x01t\x10\x26\x00\x01k\x00\x01v\x03\x00\x01c\x01\x01\x0b\xc8\x01x"},
		{"SUBSCRIBE", subscribePacket(v311, 1, nil, filter{"a", 0}, filter{"b", 2}), "\x82\x0a\x00\x01\x00\x01a\x00\x00\x01b\x02"},
		{"UNSUBSCRIBE of 5", unsubscribePacket(v5, 1, nil, "a"), "\xa2\x06\x00\x01\x00\x00\x01a"},
		{"PUBREL", ackPacket(kindPubrel, 7), "\x62\x02\x00\x07"},
		{"PINGREQ", pingreq(), "\xc0\x00"},
		{"DISCONNECT", goodbye(), "\xe0\x00"},
		{"a length of two bytes", frame(0x30, make([]byte, 128))[:3], "\x30\x80\x01"},
	} {
		if string(c.got) != c.want {
			t.Errorf("%s: % x, want % x", c.name, c.got, c.want)
		}
	}
}

func TestDecode(t *testing.T) {
	p := read(t, v5, "\x3b\x1c\x00\x01t\x00\x07\x15\x26\x00\x01k\x00\x01v\x02\x00\x00\x01\x00\x0b\x05\x0b\x86\x01\x08\x00\x01rx")
	if p.topic != "t" || p.payload != "x" || p.qos != 1 || !p.dup || !p.retain || p.id != 7 {
		t.Errorf("got %v", p)
	}
	if n, ok := p.props.number(propMessageExpiry); !ok || n != 256 {
		t.Errorf("message expiry %d %t", n, ok)
	}
	if s, ok := p.props.text(propResponseTopic); !ok || s != "r" {
		t.Errorf("response topic %q %t", s, ok)
	}
	if u := p.props.all(propUser); len(u) != 1 || u[0].text != "k" || u[0].value != "v" {
		t.Errorf("user properties %v", u)
	}
	if ids := p.props.all(propSubscriptionID); len(ids) != 2 || ids[0].num != 5 || ids[1].num != 134 {
		t.Errorf("subscription identifiers %v", ids)
	}
	if p := read(t, v311, "\x20\x02\x01\x00"); !p.present || p.code != 0 {
		t.Errorf("got %v", p)
	}
	if p := read(t, v311, "\x20\x03\x00\x84\x00"); p.code != 0x84 {
		t.Errorf("got %v", p)
	}
	if p := read(t, v311, "\x90\x04\x00\x01\x02\x80"); p.id != 1 || string(p.codes) != "\x02\x80" {
		t.Errorf("got %v", p)
	}
}

func read(t *testing.T, version byte, raw string) packet {
	t.Helper()
	p, err := readPacket(bufio.NewReader(strings.NewReader(raw)), version)
	if err != nil {
		t.Fatalf("% x: %v", raw, err)
	}
	return p
}

// What a server must not send must not pass as an answer.
func TestDecodeIsStrict(t *testing.T) {
	for _, c := range []struct {
		name    string
		version byte
		raw     string
	}{
		{"flags of PUBACK", v311, "\x41\x02\x00\x01"},
		{"flags of PUBREL", v311, "\x60\x02\x00\x01"},
		{"packet id 0", v311, "\x40\x02\x00\x00"},
		{"surplus in PUBACK", v311, "\x40\x03\x00\x01\x00"},
		{"surplus in CONNACK", v311, "\x20\x03\x00\x00\x00"},
		{"acknowledge flags", v311, "\x20\x02\x02\x00"},
		{"PUBLISH of QoS 3", v311, "\x36\x05\x00\x01t\x00\x01"},
		{"topic not UTF-8", v311, "\x30\x03\x00\x01\xff"},
		{"topic with NUL", v311, "\x30\x03\x00\x01\x00"},
		{"topic not whole", v311, "\x30\x03\x00\x02t"},
		{"DISCONNECT of 3.1.1", v311, "\xe0\x00"},
		{"a client's packet", v311, "\xc0\x00"},
		{"property unknown", v5, "\x20\x05\x00\x00\x02\x7f\x00"},
		{"property twice", v5, "\x20\x07\x00\x00\x04\x24\x01\x24\x01"},
		{"property not whole", v5, "\x20\x05\x00\x00\x02\x21\x00"},
		{"properties longer than the packet", v5, "\x20\x04\x00\x00\x02\x24"},
		{"a length of five bytes", v311, "\x30\x80\x80\x80\x80\x01"},
		{"an integer in a longer form", v5, "\x20\x04\x00\x00\x80\x00"},
	} {
		_, err := readPacket(bufio.NewReader(bytes.NewReader([]byte(c.raw))), c.version)
		if !errors.Is(err, errMalformed) {
			t.Errorf("%s: error %v, want malformed", c.name, err)
		}
	}
}
