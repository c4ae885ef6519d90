package main

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	mathrand "math/rand/v2"
	"net"
	"strconv"
)

// ports hands out TCP ports of the loopback interface, none of them twice.
type ports struct{ taken map[int]bool }

// Free ports are looked for below the range that the kernel takes for outgoing
// connections (32768 up): a client that dials a port whose server is dead may
// there be given that very port, and talk to itself.
const lowPort, highPort = 20000, 32000

// free gives a port that nobody listens on.
func (p *ports) free() (int, error) {
	for range 200 {
		if port := lowPort + mathrand.IntN(highPort-lowPort); p.take(port) {
			return port, nil
		}
	}
	return 0, errors.New("find a free port: none between 20000 and 32000")
}

// choose gives the usual port if it is to be the usual one and is free, else any.
func (p *ports) choose(usual int, fixed bool) (int, error) {
	if fixed && p.take(usual) {
		return usual, nil
	}
	return p.free()
}

func (p *ports) take(port int) bool {
	if p.taken[port] {
		return false
	}
	ln, err := net.Listen("tcp", loopback(port))
	if err != nil {
		return false
	}
	ln.Close()
	if p.taken == nil {
		p.taken = map[int]bool{}
	}
	p.taken[port] = true
	return true
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// newKey makes a key as IoT Hub does: 32 random bytes in base64.
func newKey() string {
	var b [32]byte
	rand.Read(b[:]) // never fails
	return base64.StdEncoding.EncodeToString(b[:])
}

// splitPort takes an address of loopback apart.
func splitPort(addr string) (host, port string) {
	host, port, _ = net.SplitHostPort(addr)
	return host, port
}
