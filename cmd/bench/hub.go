package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"time"
)

// simHub is hubsim, the stand-in for the cloud, as a child process.
type simHub struct {
	mqtt, https, control string // addresses
	ca                   string // PEM file that it writes
	child                *child
	client               http.Client
	last                 uint64 // number of the last message that was fetched
}

const hubHost = "hub.local" // the IoT hub's name, in user names and tokens

// startHub runs hubsim with the given devices and waits until it answers.
func startHub(ctx context.Context, kids *children, bin string, p *ports, devices []string) (*simHub, error) {
	h := &simHub{ca: filepath.Join(kids.dir, "hub-ca.pem")}
	h.client.Timeout = 10 * time.Second
	for _, addr := range []*string{&h.mqtt, &h.https, &h.control} {
		port, err := p.free()
		if err != nil {
			return nil, err
		}
		*addr = loopback(port)
	}
	args := []string{"--mqtt", h.mqtt, "--https", h.https, "--control", h.control, "--host", hubHost,
		"--ca-out", h.ca, "--received", filepath.Join(kids.dir, "received.jsonl"), "--policy-key", newKey()}
	for _, d := range devices {
		args = append(args, "--device", d)
	}
	var err error
	if h.child, err = kids.start("hubsim", filepath.Join(bin, "hubsim"), args...); err != nil {
		return nil, err
	}
	if err := ready(ctx, h.child, func() error { return h.get(ctx, "/sim/state", func(io.Reader) error { return nil }) }); err != nil {
		return nil, err
	}
	return h, nil
}

// fetch gives each message that has arrived since the last call, in order.
func (h *simHub) fetch(ctx context.Context, each func(arrival)) error {
	return h.get(ctx, fmt.Sprintf("/sim/messages?after=%d", h.last), func(r io.Reader) error {
		for dec := json.NewDecoder(r); ; {
			var a arrival
			if err := dec.Decode(&a); errors.Is(err, io.EOF) {
				return nil
			} else if err != nil {
				return err
			}
			if a.N != h.last+1 { // then the count would be wrong, and with it the verdict
				return fmt.Errorf("message %d follows message %d: some are missing", a.N, h.last)
			}
			h.last = a.N
			each(a)
		}
	})
}

func (h *simHub) get(ctx context.Context, path string, read func(io.Reader) error) error {
	if err := get(ctx, &h.client, "http://"+h.control+path, read); err != nil {
		return fmt.Errorf("ask hubsim for %s: %w", path, err)
	}
	return nil
}

func get(ctx context.Context, client *http.Client, url string, read func(io.Reader) error) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("answer %s", resp.Status)
	}
	return read(resp.Body)
}

const startTimeout = 30 * time.Second // for a child to answer after its start

// ready waits until probe succeeds, the child has died or too much time is over.
func ready(ctx context.Context, k *child, probe func() error) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		err := probe()
		if err == nil {
			return nil
		}
		select {
		case <-k.done:
			k.asked.Store(true) // told here, not as a surprise
			return k.obituary()
		case <-ctx.Done():
			if context.Cause(ctx) != context.DeadlineExceeded {
				return context.Cause(ctx)
			}
			return fmt.Errorf("%s does not answer %s after its start: %w; the end of %s:\n%s",
				k.name, startTimeout, err, k.log, tail(k.log, 20))
		case <-time.After(50 * time.Millisecond):
		}
	}
}
