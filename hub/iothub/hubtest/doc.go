// Package hubtest is a small Azure IoT Hub that runs inside a test or, through
// cmd/hubsim, beside a gateway on a laptop. Device SDKs and service SDKs work
// against it unchanged, because it speaks what they speak: MQTT 3.1.1 over TLS
// and over WebSocket, and the registry, twin, method and scope calls over HTTPS.
//
// It is a witness. Every telemetry message that was acknowledged is kept, in
// order of arrival, with what is needed to tell whether any was lost, repeated or
// reordered; and it lies only when asked to. Faults says how: it can be down,
// fall silent, refuse, close, and acknowledge late, never, twice, out of order or
// falsely.
//
// The few types are Hub (New, then Run), Device (what the registry holds),
// Message (what arrived), Connection (who is there) and Faults.
//
// It is not the real one: no AMQP, no queries, no jobs, no file upload, no
// X.509, no quotas but Faults.Throttle. Registry and twins are kept in Config.State if one
// is given; messages, subscriptions and cloud-to-device queues live in memory.
package hubtest
