// Package mqtt is the bridge for downstream devices: an embedded MQTT broker.
//
// The idea is a division of labour with mochi-mqtt: mochi decodes and encodes
// packets, resolves topic aliases, runs the loop that reads a connection, and finds
// the subscribers of a topic; who may come in, keeping, acknowledging and
// delivering are ours.
// A publish is handed to the hub, and PUBACK is sent when the hub says that it is
// in its custody, not before; many may be under way for one client. Only then do
// other clients get it. A message that is not kept is never acknowledged: the
// connection ends (3.1.1) or a reason says why (5); where the store is only full,
// that answer is held back for 20 s, in which the bridge tries again.
//
// Two kinds of client share the listeners (TCP, TLS, WebSocket), told apart by
// their user name: IoT Hub devices and modules, who speak 3.1.1 and Microsoft's
// topics (hub/wire), and ordinary clients of 3.1.1 and 5, who have accounts with
// topic filters and also talk to each other. What ordinary clients say goes up
// where a Forward rule wants it.
//
// The few types: Broker is the bridge; conn, the gatehouse, is the net.Conn that
// stands between a client and mochi and lets through only what is well formed,
// to the last byte; session outlives the connection. A connection has three
// goroutines: one reads (mochi's, and all hooks run on it), pump writes, and one of
// mochi's idles; while the store is full a fourth, retry.
//
// What was promised to a client is on disk before it is promised. Route is the hub's
// Router for sessions that outlive their connection: a message for the cloud and for
// three of them is one record and one flush, and each is fed from a queue of its own
// (feed). Members of a shared subscription take from the queue of their group.
// What is retained is a queue, too. Subscriptions, packet ids of quality 2 and wills
// are in maps of the store, which clerk writes; recall reads them at the start.
// Who has a session that ends with the connection gets kept messages from memory, by
// fanout, one for the broker, and so does everybody what is of quality 0.
//
// Locks are taken in this order: Broker.mu, session.mu, Broker.gmu, group.mu, conn.mu.
// What the hub calls back on its committing goroutine takes conn.mu, and those of
// inbound, releases, clerk, the counters and of fanout's list, for moments. It never
// logs, writes or closes: a full pipe or a stuck client would stop the store for
// everybody. Nobody waits for the store with a lock held.
//
// mochi's own sessions, takeover, retained messages, wills, in-flight messages
// and fan-out are not used: they lose messages, or mix up two clients who come at
// once, and they would have to agree with ours at every moment. CONNECT and
// SUBSCRIBE are dealt with in the gatehouse for the same reason: a subscription is
// part of a session, must be in force and on disk when SUBACK is written, and must
// not be inherited by whoever comes under the same client id. So mochi sees each
// connection as a client of its own, with a name that nobody ever had.
//
// Caveats. Shared subscriptions are granted quality 1 at most. Twins are answered
// with 501, a module's inputs get nothing. MQTT 5 properties go from client to client
// and not up. An IoT Hub client's outbox ends with its connection: the cloud keeps
// cloud-to-device messages until they are acknowledged, and sends them again.
package mqtt
