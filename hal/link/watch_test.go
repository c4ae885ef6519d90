package link

import (
	"context"
	"encoding/binary"
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// In a network namespace of its own the loopback link is taken down and up.
func TestWatchTellsOfALinkThatComesUp(t *testing.T) {
	told := make(chan struct{}, 1000)
	ended, entered := make(chan error, 1), make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var ns *os.File
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			ns, err = os.Open("/proc/thread-self/ns/net")
		}
		entered <- err
		if err == nil {
			ended <- Watch(ctx, func() { told <- struct{}{} })
		}
	}()
	if err := <-entered; err != nil {
		t.Skipf("a network namespace needs root: %v", err)
	}
	defer ns.Close()
	toggled := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		toggled <- toggle(ctx, ns)
	}()
	select {
	case <-told:
	case <-time.After(10 * time.Second):
		t.Error("nobody is told")
	}
	cancel()
	if err := <-toggled; err != nil {
		t.Errorf("take lo down and up: %v", err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// toggle takes lo down and up, again and again, in namespace ns.
func toggle(ctx context.Context, ns *os.File) error {
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for up := true; ctx.Err() == nil; up = !up {
		req, err := unix.NewIfreq("lo")
		if err != nil {
			return err
		}
		if req.SetUint16(0); up {
			req.SetUint16(unix.IFF_UP)
		}
		if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
	return nil
}

func TestAdded(t *testing.T) {
	message := func(kind uint16, size int) []byte {
		b := make([]byte, max(unix.SizeofNlMsghdr, (size+3)&^3))
		binary.NativeEndian.PutUint32(b, uint32(size))
		binary.NativeEndian.PutUint16(b[4:], kind)
		return b
	}
	down, up := message(unix.RTM_DELADDR, 37), message(unix.RTM_NEWADDR, 40)
	for _, c := range []struct {
		name string
		b    []byte
		want bool
	}{
		{"nothing", nil, false},
		{"an address goes", down, false},
		{"one comes behind it", append(down, up...), true},
		{"cut off", up[:3], false},
		{"a length that leads nowhere", message(unix.RTM_DELLINK, 4), false},
		{"a length beyond the end", append(message(unix.RTM_DELLINK, 400)[:32:32], up...), false},
	} {
		if got := added(c.b); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
