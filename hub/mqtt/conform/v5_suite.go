package conform

import "slices"

// suite5 is MQTT 5, the OASIS standard of 7 March 2019.
func suite5() Suite {
	return Suite{
		Name: "5", Version: v5, Statements: statements5, Others: others5(),
		Rows: slices.Concat(
			rowsTopic5(), rowsConnect5(), rowsSession5(), rowsWill5(), rowsConnack5(), rowsLimits5(),
			rowsPublish5(), rowsRetain5(), rowsAck5(), rowsSubscribe5(), rowsUnsubscribe5(),
			rowsQoS5(), rowsShared5(), rowsEnd5(),
		),
	}
}

// statements5 are the numbers of appendix B, mandatory normative statements. There
// is no 2.2.1-1, and section 3.13 has none.
const statements5 = `
1.5.4 1-3
1.5.5 1
1.5.7 1
2.1.3 1
2.2.1 2-6
2.2.2 1
3.1.0 1-2
3.1.2 1-30
3.1.3 1-12
3.1.4 1-6
3.2.0 1-2
3.2.2 1-22
3.3.1 1-13
3.3.2 1-20
3.3.4 1-10
3.4.2 1-3
3.5.2 1-3
3.6.1 1
3.6.2 1-3
3.7.2 1-3
3.8.1 1
3.8.3 1-5
3.8.4 1-8
3.9.2 1-2
3.9.3 1-2
3.10.1 1
3.10.3 1-2
3.10.4 1-6
3.11.2 1-2
3.11.3 1-2
3.12.4 1
3.14.0 1
3.14.1 1
3.14.2 1-4
3.14.4 1-3
3.15.1 1
3.15.2 1-3
4.1.0 1-2
4.2.0 1
4.3.1 1
4.3.2 1-5
4.3.3 1-13
4.4.0 1-2
4.5.0 1-2
4.6.0 1-6
4.7.0 1
4.7.1 1-2
4.7.2 1
4.7.3 1-4
4.8.2 1-6
4.9.0 1-3
4.12.0 1-7
4.12.1 1-2
4.13.1 1
4.13.2 1
6.0.0 1-4
`

// others5 are the statements without a row.
func others5() []Other {
	const (
		client = "binds the client alone"
		noAuth = "speaks of enhanced authentication under way, which none of these servers offers as it comes; that it is refused is [MQTT-4.12.0-1]"
	)
	return []Other{
		{"3.1.2-20", client + ", which has to ping"},
		{"3.1.2-21", client + ", which has to use Server Keep Alive; that the server does is [MQTT-3.1.2-22]"},
		{"3.1.2-30", client + ", which has to wait for CONNACK; what a server does with an authentication method is [MQTT-4.12.0-1]"},
		{"3.2.2-4", client + ", which has no session and is told that there is one"},
		{"3.2.2-5", client + ", which has a session and is told that there is none"},
		{"3.2.2-11", client + ", which has to keep to Maximum QoS; that it is told is [MQTT-3.2.2-9]"},
		{"3.2.2-14", client + ", which has to keep to Retain Available"},
		{"3.2.2-18", client + ", which has to send no topic aliases where the maximum is absent; what a server does with one above its maximum, 0 included, is [MQTT-3.2.2-17]"},
		{"3.2.2-21", client + ", which has to use Server Keep Alive; that the server does is [MQTT-3.1.2-22]"},
		{"3.3.2-10", client + ", which has to take all topic aliases up to its maximum"},
		{"3.3.4-8", client + ", which has to hold up nothing but PUBLISH"},
		{"3.15.2-1", noAuth},
		{"3.15.2-2", noAuth},
		{"3.15.2-3", noAuth},
		{"4.5.0-2", client + ", which has to acknowledge what it gets"},
		{"4.6.0-1", client + ", which has to send again in order; that the server does is [MQTT-4.6.0-6]"},
		{"4.6.0-2", client + ", which has to send PUBACK in order"},
		{"4.6.0-3", client + ", which has to send PUBREC in order"},
		{"4.6.0-4", client + ", which has to send PUBREL in order"},
		{"4.7.3-3", "cannot be broken on the wire: the length of a string has two bytes"},
		{"4.12.0-2", noAuth},
		{"4.12.0-3", noAuth},
		{"4.12.0-4", noAuth},
		{"4.12.0-5", noAuth},
		{"4.12.1-1", noAuth},
		{"4.12.1-2", noAuth},
		{"6.0.0-3", client + ", which has to offer the subprotocol mqtt"},
	}
}
