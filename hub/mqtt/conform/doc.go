// Package conform asks MQTT brokers, packet by packet, whether they keep to the
// OASIS standards MQTT 3.1.1 and 5, and prints the answers as a table.
//
// The idea: each normative statement that binds a server and shows on the wire is
// a Row under its number in the standard; every other statement is listed with the
// reason why it has none, and a test holds that none is left out. The same rows
// run against Holdfast (the real program), plain mochi, which Holdfast is built
// on, and mosquitto, so that a mistake in a row shows as a broker of repute that
// fails it. A row accepts whatever the standard allows; where a standard leaves a
// choice, docs/conformance.md says what Holdfast does.
//
// The few types: Row is a statement and the code that tries it; Suite is all that
// one standard has to say; Target is a broker under test, a process that can be
// started again; Try is one attempt of a row, with raw clients (conn); Verdict is
// what came of it.
//
// Packets are written and read by encode.go and decode.go, which share no code with
// any broker: what is to be judged must not be its own witness. What a server sends
// is read strictly, so a malformed answer fails whatever row it came in.
//
// Caveats. Rows of one target run side by side, so each keeps to client ids and
// topics of its own (Try.id, Try.topic). That nothing comes can only be seen by
// waiting: such rows wait for a moment, so a slow machine can let a fault slip, but
// never makes one up. What survives a restart or a power cut is not the standards'
// subject, and not this table's.
package conform
