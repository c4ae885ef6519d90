package mqtt

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"sync"
)

// usualPerAddress is how many connections there may be from one address at once.
// It is less than there are places for strangers, so that one computer alone can
// never take them all.
const usualPerAddress = 100

// addresses counts the connections from each address, from accept to close: those
// of strangers, of clients, and those that are on their way out. One for whom there
// is no room is closed before TLS, which is the dear part of saying no.
//
// An address is the whole of it, for IPv6 too: devices of one network share its
// first half.
type addresses struct {
	most int

	mu   sync.Mutex
	open map[netip.Addr]int
}

func newAddresses(most int) (*addresses, error) {
	if most < 0 {
		return nil, fmt.Errorf("[mqtt] per_address = %d: want 1 or more", most)
	}
	return &addresses{most: cmp.Or(most, usualPerAddress), open: map[netip.Addr]int{}}, nil
}

// enter counts a connection from a, and says whether there is room for it. Each
// true wants a leave.
func (t *addresses) enter(a netip.Addr) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.open[a] >= t.most {
		return false
	}
	t.open[a]++
	return true
}

func (t *addresses) leave(a netip.Addr) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.open[a]--; t.open[a] <= 0 {
		delete(t.open, a)
	}
}

// comesFrom counts a connection from a, and says whether there is room for it; then
// leave is to be called at its end.
func (b *Broker) comesFrom(a net.Addr) (leave func(), ok bool) {
	ip := addressOf(a)
	if b.addresses.enter(ip) {
		return func() { b.addresses.leave(ip) }, true
	}
	b.count("address")
	// The log may block, and nobody would be let in meanwhile.
	go b.warn(ip.String(), "address", fmt.Errorf("%d connections from this address, per_address allows no more", b.addresses.most))
	return nil, false
}

// addressOf is the IP address of the far side. Those that have none, as the ends of
// a pipe, are all the same one.
func addressOf(a net.Addr) netip.Addr {
	if t, ok := a.(*net.TCPAddr); ok {
		return t.AddrPort().Addr().Unmap()
	}
	p, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return netip.Addr{}
	}
	return p.Addr().Unmap()
}
