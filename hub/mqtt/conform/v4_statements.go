package conform

// statements311 are the numbers of all normative statements of MQTT 3.1.1, as its
// appendix B lists them.
const statements311 = `
1.5.3  1-3
2.2.2  1-2
2.3.1  1-7
3.1.0  1-2
3.1.2  1-24
3.1.3  1-11
3.1.4  1-5
3.2.0  1
3.2.2  1-6
3.3.1  1-12
3.3.2  1-3
3.3.4  1
3.3.5  1-2
3.6.1  1
3.8.1  1
3.8.3  1-4
3.8.4  1-6
3.9.3  1-2
3.10.1 1
3.10.3 1-2
3.10.4 1-6
3.12.4 1
3.14.1 1
3.14.4 1-3
4.1.0  1-2
4.3.1  1
4.3.2  1-2
4.3.3  1-2
4.4.0  1
4.5.0  1-2
4.6.0  1-6
4.7.1  1-3
4.7.2  1
4.7.3  1-4
4.8.0  1-2
6.0.0  1-4
7.0.0  1-2
7.1.1  1
7.1.2  1
`

// others311 are the statements that have no row, and why.
func others311() []Other {
	return []Other{
		{"2.3.1-2", "binds the client: which packet identifiers it takes"},
		{"2.3.1-3", "binds the client: the identifier of what it sends again; the server's side is 2.3.1-4"},
		{"3.1.2-23", "binds the client: that it is not silent for longer than its keep alive"},
		{"3.1.3-7", "binds the client; what a server does with one that does not keep to it is 3.1.3-8"},
		{"3.14.4-1", "binds the client: that it closes the connection after DISCONNECT"},
		{"3.14.4-2", "binds the client: that it says nothing after DISCONNECT"},
		{"4.5.0-2", "binds the client: that it acknowledges whatever it gets"},
		{"4.6.0-2", "binds the client, as a receiver: the order of its PUBACKs"},
		{"4.6.0-3", "binds the client, as a receiver: the order of its PUBRECs"},
		{"4.7.3-3", "cannot be broken on the wire: the two bytes of a length say no more than 65,535"},
		{"4.8.0-2", "a transient error is the server's own; no client can bring it about at will"},
		{"6.0.0-3", "binds the client: which WebSocket subprotocol it offers"},
		{"7.0.0-1", "is about connections that a server opens to others, which a client does not see"},
		{"7.0.0-2", "shows in all rows together: their clients use nothing from outside the standard"},
		{"7.1.2-1", "binds the client: its transport"},
	}
}
