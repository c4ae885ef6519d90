// Package iothub is the upstream to Azure IoT Hub, over MQTT 3.1.1 and TLS.
//
// The gateway's own connection, as {gateway}/$edgeHub, is the link: while it is
// connected the way is up. Beside it there is one connection for each downstream
// identity that has something to say or listens for something, opened on its
// behalf with the gateway's credential, for IoT Hub takes an identity's messages
// from that identity's connection alone.
//
// The few types are Upstream (the hub's Publisher and Link), session (one
// identity: its messages in order, and at most one connection at a time), conn
// (one life of one connection) and tap (what stands between the MQTT library and
// the wire).
//
// Only the tap says what was acknowledged. The library's tokens are not believed,
// for they can complete without an acknowledgement and can hang without an end
// (see conn). An acknowledgement counts if its number was read on this
// connection and belongs to a publish that was written on it and is still open;
// any other is counted and kept from the library. When a connection is lost
// everything open on it fails with hub.ErrOffline, in order, and comes again with
// the same holdfast-id on a new connection, made by a new client of the library.
//
// A connection on which something waits and nothing at all is heard is asked with a
// PINGREQ, and given up when that stays unanswered: ten seconds in all. A hub that
// answers pings and is late with an acknowledgement has ack_timeout.
//
// While the way is down the hub is asked about once a second for the first bytes of
// a TLS handshake (the probe), also while a full attempt is under way, and a full
// attempt is made as soon as a probe is answered after none was. An attempt that
// began in silence is abandoned for it. Where the probe is answered and the attempt
// fails, attempts back off. There is never more than one attempt at a time, for the
// hub closes the older connection of an identity. What that costs: see link.go.
//
// Caveats. IoT Hub allows one connection for each identity: two gateways with one
// connection string throw each other out for ever; State.Hint says so.
// Cloud-to-device messages are acknowledged to the cloud when the device has
// acknowledged them and can come twice. Twins are not here yet.
package iothub
