package wire

import (
	"fmt"
	"strconv"
	"strings"
)

// Limits of IoT Hub that the gateway keeps on its side too, so that nothing is
// accepted here that the cloud would refuse.
const (
	MaxMessage = 256 << 10 // bytes: body plus names and values of all properties
	MaxMethod  = 128 << 10 // bytes: a direct method's payload, either way
)

// TelemetryTopic is where a device (module "") or module publishes:
//
//	devices/{device}/messages/events/{bag}
//	devices/{device}/modules/{module}/messages/events/{bag}
func TelemetryTopic(device, module string, b Bag) string {
	if module != "" {
		return "devices/" + device + "/modules/" + module + "/messages/events/" + string(b)
	}
	return "devices/" + device + "/messages/events/" + string(b)
}

// ParseTelemetry takes such a topic apart. The bag may be missing, may follow a
// "?", and may be closed by a slash. The ids are as the client wrote them: the
// caller must compare them with the identity that was proven.
func ParseTelemetry(topic string) (device, module string, b Bag, err error) {
	parts := strings.Split(topic, "/")
	if len(parts) < 4 || parts[0] != "devices" {
		return "", "", "", fmt.Errorf("topic %q: want devices/{id}[/modules/{id}]/messages/events/{properties}", topic)
	}
	device, rest := parts[1], parts[2:]
	if rest[0] == "modules" && len(rest) >= 4 {
		module, rest = rest[1], rest[2:]
		if module == "" {
			return "", "", "", fmt.Errorf("topic %q: module id is empty", topic)
		}
	}
	if rest[0] != "messages" || rest[1] != "events" || device == "" {
		return "", "", "", fmt.Errorf("topic %q: want devices/{id}[/modules/{id}]/messages/events/{properties}", topic)
	}
	rest = rest[2:]
	if len(rest) > 1 && rest[len(rest)-1] == "" {
		rest = rest[:len(rest)-1] // the closing slash
	}
	if len(rest) > 1 {
		return "", "", "", fmt.Errorf("topic %q: %q follows the properties", topic, strings.Join(rest[1:], "/"))
	}
	if len(rest) == 1 {
		if b, err = ParseBag(strings.TrimPrefix(rest[0], "?")); err != nil {
			return "", "", "", fmt.Errorf("topic %q: %w", topic, err)
		}
	}
	return device, module, b, nil
}

// What a client subscribes to, and what comes on it.
const (
	MethodFilter  = "$iothub/methods/POST/#"
	TwinFilter    = "$iothub/twin/res/#"
	DesiredFilter = "$iothub/twin/PATCH/properties/desired/#"
	methodPost    = "$iothub/methods/POST/"
	methodRes     = "$iothub/methods/res/"
)

// DeviceboundFilter is what a device or module subscribes to for cloud-to-device messages.
func DeviceboundFilter(device, module string) string {
	return DeviceboundTopic(device, module, "") + "#"
}

// DeviceboundTopic is where a cloud-to-device message is delivered.
func DeviceboundTopic(device, module string, b Bag) string {
	if module != "" {
		return "devices/" + device + "/modules/" + module + "/messages/devicebound/" + string(b)
	}
	return "devices/" + device + "/messages/devicebound/" + string(b)
}

// ParseDevicebound is the reverse of DeviceboundTopic.
func ParseDevicebound(topic string) (device, module string, b Bag, err error) {
	parts := strings.Split(topic, "/")
	n := len(parts)
	switch {
	case n == 5 && parts[0] == "devices" && parts[2] == "messages" && parts[3] == "devicebound":
		device = parts[1]
	case n == 7 && parts[0] == "devices" && parts[2] == "modules" && parts[4] == "messages" && parts[5] == "devicebound":
		device, module = parts[1], parts[3]
	default:
		return "", "", "", fmt.Errorf("topic %q: want devices/{id}[/modules/{id}]/messages/devicebound/{properties}", topic)
	}
	b, err = ParseBag(parts[n-1])
	return device, module, b, err
}

// MethodTopic is where a direct method call is delivered; rid is the caller's
// token and must come back unchanged.
func MethodTopic(name, rid string) string { return methodPost + name + "/?$rid=" + rid }

// ParseMethod is the reverse of MethodTopic.
func ParseMethod(topic string) (name, rid string, err error) {
	return tail(topic, methodPost)
}

// MethodReplyTopic is where a device answers a direct method; status is the device's own.
func MethodReplyTopic(status int, rid string) string {
	return fmt.Sprintf("%s%d/?$rid=%s", methodRes, status, rid)
}

// ParseMethodReply is the reverse of MethodReplyTopic.
func ParseMethodReply(topic string) (status int, rid string, err error) {
	s, rid, err := tail(topic, methodRes)
	if err != nil {
		return 0, "", err
	}
	if status, err = strconv.Atoi(s); err != nil {
		return 0, "", fmt.Errorf("topic %q: status %q is not a number", topic, s)
	}
	return status, rid, nil
}

// IsMethodReply says whether a publish on topic answers a direct method.
func IsMethodReply(topic string) bool { return strings.HasPrefix(topic, methodRes) }

func tail(topic, prefix string) (word, rid string, err error) {
	rest, ok := strings.CutPrefix(topic, prefix)
	word, query, ok2 := strings.Cut(rest, "/?")
	if !ok || !ok2 || word == "" || strings.Contains(word, "/") {
		return "", "", fmt.Errorf("topic %q: want %s{…}/?$rid={token}", topic, prefix)
	}
	for pair := range split(query) {
		if v, ok := strings.CutPrefix(pair, "$rid="); ok && v != "" {
			return word, v, nil
		}
	}
	return "", "", fmt.Errorf("topic %q: $rid is missing", topic)
}
