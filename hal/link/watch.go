// Package link is the machine's network links. So far it only tells when one of
// them may have come up, so that whoever waits for a way out can try at once
// instead of waiting out a timer.
package link

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// groups are the kernel's announcements that mean a way may be there that was not:
// a link, an address, a route (rtnetlink(7)).
const groups = unix.RTMGRP_LINK | unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR | unix.RTMGRP_IPV4_ROUTE | unix.RTMGRP_IPV6_ROUTE

// Watch calls changed, from one goroutine, whenever the kernel announces that a
// link, an address or a route was added or changed, until ctx ends. What is only
// taken away is not told. It may call for nothing; it does not miss anything: where
// the kernel had to drop announcements, it calls.
func Watch(ctx context.Context, changed func()) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("watch links: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		return fmt.Errorf("watch links: %w", err)
	}
	wait := unix.NsecToTimeval(int64(500 * time.Millisecond)) // to look at ctx
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait); err != nil {
		return fmt.Errorf("watch links: %w", err)
	}
	buf := make([]byte, 64<<10)
	for ctx.Err() == nil {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		switch {
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.ENOBUFS):
			changed()
		case err != nil:
			return fmt.Errorf("watch links: %w", err)
		case added(buf[:n]):
			changed()
		}
	}
	return nil
}

// added says whether one of the messages in b announces something new. Each begins
// with its length (4), in the machine's byte order, and its type (2), and is padded
// to 4 bytes (netlink(7)).
func added(b []byte) bool {
	for len(b) >= unix.SizeofNlMsghdr {
		size := int(binary.NativeEndian.Uint32(b))
		switch binary.NativeEndian.Uint16(b[4:]) {
		case unix.RTM_NEWLINK, unix.RTM_NEWADDR, unix.RTM_NEWROUTE:
			return true
		}
		size = (size + 3) &^ 3
		if size < unix.SizeofNlMsghdr || size > len(b) {
			return false
		}
		b = b[size:]
	}
	return false
}
