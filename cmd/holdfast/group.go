package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime/debug"
	"time"
)

// Service is something that runs until its context ends.
type Service struct {
	Name string
	// Run returns soon after ctx ends. What it returns before that, nil too, is a
	// fault: it is run again, unless the error was made by fatal.
	Run   func(ctx context.Context) error
	Grace time.Duration // how long Run may take to return when it is stopped; 5 s if zero
}

// How a service that ended by itself is run again.
const (
	firstPause   = time.Second
	longestPause = time.Minute
	ranWell      = 5 * time.Minute // after this long the pauses begin anew
	defaultGrace = 5 * time.Second
)

// fatal marks an error that running again does not cure: it ends the group.
func fatal(err error) error { return &fatalError{err} }

type fatalError struct{ error }

func (e *fatalError) Unwrap() error { return e.error }

// panicError is a panic of a service, with where it was.
type panicError struct {
	value any
	stack []byte
}

func (e *panicError) Error() string { return fmt.Sprintf("panic: %v", e.value) }

// runGroup starts the services in the order of the list and keeps each of them
// running until ctx ends or one of them returns a fatal error. Then they are
// stopped in reverse order, one after the other, so that each can rely on all
// before it to the end: what takes messages stops before what keeps them. A
// service that does not return within its grace is named in the log and left
// behind.
//
// The error is the fatal one, or nil when ctx ended.
func runGroup(ctx context.Context, log *slog.Logger, services []Service) error {
	fatals := make(chan error, len(services))
	var running []*member
	for _, s := range services {
		m := &member{Service: s, log: log.With("service", s.Name), done: make(chan struct{})}
		own, cancel := context.WithCancel(context.WithoutCancel(ctx)) // ended by its turn, not by ctx
		m.stop = cancel
		running = append(running, m)
		go func() {
			defer close(m.done)
			if err := m.keep(own); err != nil {
				fatals <- fmt.Errorf("%s: %w", m.Name, err)
			}
		}()
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-fatals:
	}
	for i := len(running) - 1; i >= 0; i-- {
		running[i].end()
	}
	return err
}

// member is a Service of a running group.
type member struct {
	Service
	log  *slog.Logger
	stop context.CancelFunc
	done chan struct{} // closed when Run has returned for the last time
}

// keep runs the service again and again until ctx ends (nil) or it returns a
// fatal error.
func (m *member) keep(ctx context.Context) error {
	pause := firstPause
	for {
		begun := time.Now()
		err := m.once(ctx)
		if ctx.Err() != nil {
			m.explain(err)
			return nil
		}
		if f := (*fatalError)(nil); errors.As(err, &f) {
			return err
		}
		if time.Since(begun) >= ranWell {
			pause = firstPause
		}
		wait := jitter(pause)
		m.report(err, wait)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		pause = min(2*pause, longestPause)
	}
}

func (m *member) once(ctx context.Context) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &panicError{v, debug.Stack()}
		}
	}()
	return m.Run(ctx)
}

func (m *member) report(err error, wait time.Duration) {
	args := []any{"again_in", wait.Round(10 * time.Millisecond)}
	if err != nil {
		args = append(args, "error", err)
	}
	if h := hintOf(err); h != "" {
		args = append(args, "hint", h)
	}
	if p := (*panicError)(nil); errors.As(err, &p) {
		m.log.Error("service panicked", append(args, "stack", string(p.stack))...)
		return
	}
	m.log.Warn("service ended", args...)
}

// explain logs what a service had to say when it was told to stop.
func (m *member) explain(err error) {
	if err == nil || errors.Is(err, context.Canceled) {
		return
	}
	args := []any{"error", err}
	if p := (*panicError)(nil); errors.As(err, &p) {
		args = append(args, "stack", string(p.stack))
	}
	m.log.Warn("service stopped with an error", args...)
}

// end stops the service and waits for it, no longer than its grace.
func (m *member) end() {
	m.stop()
	grace := m.Grace
	if grace == 0 {
		grace = defaultGrace
	}
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-m.done:
		m.log.Debug("service stopped")
	case <-timer.C:
		m.log.Error("service does not stop, leaving it", "grace", grace)
	}
}

// jitter is d, give or take a quarter, so that services that fell together do not
// rise together.
func jitter(d time.Duration) time.Duration {
	return d - d/4 + rand.N(d/2)
}
