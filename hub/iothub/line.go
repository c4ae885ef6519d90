package iothub

import (
	"fmt"
	"net"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

// line is what is known of the bare connection under a connection to the hub.
type line struct {
	heard   atomic.Int64 // when a byte was last read, in Unix nanoseconds; 0 before the first
	written atomic.Int64 // bytes that the kernel has taken
	tcp     atomic.Pointer[net.TCPConn]
}

// over is conn with the line listening in.
func (l *line) over(conn net.Conn) net.Conn {
	if tcp, ok := conn.(*net.TCPConn); ok {
		l.tcp.Store(tcp)
	}
	return ear{conn, l}
}

// arrived is how many bytes the far kernel has confirmed: at least, for one that
// is being written counts when the kernel has taken it.
func (l *line) arrived() int64 {
	n := l.written.Load()
	if tcp := l.tcp.Load(); tcp != nil {
		n -= int64(unconfirmed(tcp))
	}
	return n
}

type ear struct {
	net.Conn
	*line
}

func (e ear) Read(p []byte) (int, error) {
	n, err := e.Conn.Read(p)
	if n > 0 {
		e.heard.Store(time.Now().UnixNano())
	}
	return n, err
}

func (e ear) Write(p []byte) (int, error) {
	n, err := e.Conn.Write(p)
	e.written.Add(int64(n))
	return n, err
}

// unconfirmed is how many bytes the kernel still holds that the far one has not
// confirmed: SIOCOUTQ of tcp(7), which has TIOCOUTQ's number. 0 if it cannot be
// told.
func unconfirmed(conn *net.TCPConn) int {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0
	}
	var n int32
	_ = raw.Control(func(fd uintptr) { // an error leaves 0
		_, _, _ = syscall.Syscall(syscall.SYS_IOCTL, fd, syscall.TIOCOUTQ, uintptr(unsafe.Pointer(&n)))
	})
	return int(n)
}

// attend finds out that a connection is dead before anybody's patience with an
// acknowledgement ends. While something waits for one and nothing at all is heard
// the hub is asked with a PINGREQ; if it stays silent after that, or after one that
// the library has sent, the connection is given up. A hub that is slow to
// acknowledge answers pings, and any byte counts.
//
// On a thin uplink a PINGREQ can stand in line behind megabytes. So the grace
// begins when the far kernel has confirmed it, and until then every byte that is
// confirmed is a sign of life.
func (c *conn) attend() {
	set := c.s.u.set.timings
	tick := time.NewTicker(set.grace / 10)
	defer tick.Stop()
	var asked, mark, most int64 // the PINGREQ that is out, what was written by then, what was confirmed
	var tried, moved time.Time  // moved: when most last grew on the way to mark, or began to
	for {
		var now time.Time
		select {
		case <-c.down:
			return
		case now = <-tick.C:
		}
		heard, ping := c.line.heard.Load(), c.tap.pinged.Load()
		if ping < heard {
			if now.Sub(tried) > set.ask && now.Sub(time.Unix(0, heard)) > set.ask && c.s.waits(now) > set.ask {
				tried = now // it can take a while: one writes at a time
				c.s.u.wg.Go(c.tap.ping)
				c.s.u.askOwn()
			}
			continue
		}
		arrived := c.line.arrived()
		if ping != asked && asked < heard {
			asked, mark, most, moved = ping, c.line.written.Load(), arrived, time.Unix(0, ping)
		}
		if arrived > most {
			if most < mark {
				moved = now
			}
			most = arrived
		}
		if now.Sub(moved) > set.grace {
			c.lost(fmt.Errorf("nothing heard for %v, no answer to a ping", now.Sub(time.Unix(0, heard)).Round(time.Second)))
			return
		}
	}
}

// waits is how long the hub has had something to acknowledge on this session's
// connection and has not, without any progress; 0 if it has nothing.
func (s *session) waits(now time.Time) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.front()
	if e == nil {
		return 0
	}
	return min(now.Sub(e.sent), now.Sub(s.moved))
}

// askOwn asks the gateway's own connection when another has gone silent: an idle
// one would take longer to find out.
func (u *Upstream) askOwn() {
	s := u.session(u.Gateway())
	if s == nil {
		return
	}
	s.mu.Lock()
	own := s.conn
	s.mu.Unlock()
	if own != nil && own.tap.pinged.Load() < own.line.heard.Load() {
		u.wg.Go(own.tap.ping)
	}
}
