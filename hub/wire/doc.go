// Package wire holds IoT Hub's words on the wire: user names, topics, property
// bags and shared access signatures. Both sides of the gateway speak it: the
// broker parses what devices send, the upstream writes what the cloud expects,
// and the stand-in hub does both, so one set of forms serves all three and a
// mistake in one is seen by the others.
//
// The few types are User (the CONNECT user name), Bag (message properties, kept
// encoded until somebody asks) and SAS (the CONNECT password). Everything here
// is a pure function of its input: no clock is read, no state kept.
//
// The forms are those documented by Microsoft under "Communicate with your IoT
// hub using the MQTT protocol" and "Control access with shared access
// signatures"; where SDKs differ from the page, what they really send is taken.
package wire
