package hubtest

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// state is the state file: version 1, JSON. It holds keys, so it is written with
// mode 0600.
type state struct {
	Version   int      `json:"version"`
	PolicyKey []byte   `json:"policy_key"`
	CA        string   `json:"ca,omitempty"` // certificate and key in PEM; "" if the certificate is the caller's
	Devices   []*entry `json:"devices"`
}

const stateVersion = 1

// restore reads the state file if there is one, and makes what it does not hold.
func (h *Hub) restore() error {
	s, err := readState(h.cfg.State)
	if err != nil {
		return err
	}
	for _, e := range s.Devices {
		e.Twin.complete()
		h.registry.entries[e.ID] = e
	}
	if h.cfg.PolicyKey == nil {
		h.cfg.PolicyKey = s.PolicyKey
	}
	if h.cfg.PolicyKey == nil {
		h.cfg.PolicyKey = randomKey()
	}
	h.registry.touch()
	return h.certify(s.CA)
}

// readState gives an empty state if there is no file of that name, or no name.
func readState(name string) (s state, err error) {
	if name == "" {
		return s, nil
	}
	text, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return s, fmt.Errorf("read state: %w", err)
	}
	const anew = "move it away to begin anew"
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber() // so that large integers in twins come back as they went
	if err := d.Decode(&s); err != nil {
		return s, fmt.Errorf("read state %s: %w; %s", name, err, anew)
	}
	if s.Version != stateVersion {
		return s, fmt.Errorf("read state %s: version is %d, want %d; %s", name, s.Version, stateVersion, anew)
	}
	for _, e := range s.Devices {
		if e == nil {
			return s, fmt.Errorf("read state %s: a device is null; %s", name, anew)
		}
		if err := checkID(e.ID); err != nil {
			return s, fmt.Errorf("read state %s: %w; %s", name, err, anew)
		}
	}
	return s, nil
}

// certify takes the caller's certificate, or issues one under the CA given or a new one.
func (h *Hub) certify(ca string) error {
	cert := h.cfg.Certificate
	if len(cert.Certificate) == 0 {
		a, err := newAuthority()
		if ca != "" {
			a, err = parseAuthority(ca)
		}
		if err != nil {
			return err
		}
		if h.caState, err = a.marshal(); err != nil {
			return err
		}
		if cert, err = a.issue(h.cfg.Host); err != nil {
			return err
		}
	}
	h.ca = certPEM(cert.Certificate[len(cert.Certificate)-1])
	h.tls = &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{cert}}
	return nil
}

// saveEvery bounds how often the state is written, and so what a kill can cost.
const saveEvery = 100 * time.Millisecond

// keepState writes the state after changes, and hands received lines on.
func (h *Hub) keepState(ctx context.Context) error {
	tick := time.NewTicker(saveEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			h.running.Wait() // what the last connections bring belongs to it
			return errors.Join(h.save(), h.flushReceived())
		}
		if err := errors.Join(h.save(), h.flushReceived()); err != nil {
			return err
		}
	}
}

func (h *Hub) flushReceived() error {
	if err := h.messages.flush(); err != nil {
		return fmt.Errorf("write received messages: %w", err)
	}
	return nil
}

// save writes the state file beside itself and puts it in place, so that a reader
// sees the older or the newer one, never half of one.
func (h *Hub) save() error {
	select {
	case <-h.registry.dirty:
	default:
		return nil
	}
	if h.cfg.State == "" {
		return nil
	}
	text, err := h.encodeState()
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(h.cfg.State), filepath.Base(h.cfg.State)+".*") // mode 0600
	if err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), h.cfg.State)
	}
	if err != nil {
		os.Remove(f.Name())
		return fmt.Errorf("write state: %w", err)
	}
	return nil
}

func (h *Hub) encodeState() ([]byte, error) {
	h.registry.mu.Lock()
	defer h.registry.mu.Unlock()
	s := state{Version: stateVersion, PolicyKey: h.cfg.PolicyKey, CA: h.caState}
	for _, e := range h.registry.entries {
		s.Devices = append(s.Devices, e)
	}
	text, err := json.MarshalIndent(s, "", "\t")
	if err != nil {
		return nil, fmt.Errorf("encode state: %w", err)
	}
	return append(text, '\n'), nil
}
