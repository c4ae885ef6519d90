package main

import (
	"errors"
	"fmt"
	"net"
	"syscall"
)

// hinted is an error with a sentence about what to do.
type hinted struct {
	error
	hint string
}

func (e *hinted) Unwrap() error { return e.error }

func withHint(err error, format string, args ...any) error {
	return &hinted{err, fmt.Sprintf(format, args...)}
}

// hintOf is the hint of the outermost error that has one, or "".
func hintOf(err error) string {
	if h := (*hinted)(nil); errors.As(err, &h) {
		return h.hint
	}
	return ""
}

// usageError is an error in what the program was asked to do.
type usageError struct{ error }

func (e *usageError) Unwrap() error { return e.error }

// listen opens a TCP listener; key is the configuration key that the address came
// from and other an address that needs no privilege.
func listen(address, key, other string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	switch {
	case err == nil:
		return l, nil
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, withHint(fmt.Errorf("%s: %w", key, err),
			"another program has that port (ss -ltnp shows which); stop it, or set %s = %q, or \"off\"", key, other)
	case errors.Is(err, syscall.EACCES):
		return nil, withHint(fmt.Errorf("%s: %w", key, err),
			"run as root, or set %s = %q, or \"off\"", key, other)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return nil, withHint(fmt.Errorf("%s: %w", key, err),
			"no interface of this machine has that address; \":port\" listens on all of them")
	}
	return nil, fmt.Errorf("%s: %w", key, err)
}
