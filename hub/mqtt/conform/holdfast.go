package conform

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Holdfast is the real program, built from this tree and run with a configuration
// as a person would write it; the accounts come from "holdfast passwd". Its files
// are in dir.
func Holdfast(dir string) (*Target, error) {
	t := &Target{
		Name: "holdfast", User: "conform", Password: "secret", Narrow: "narrow",
		Patience: 20 * time.Second, dir: dir,
	}
	program := filepath.Join(dir, "holdfast")
	build := exec.Command("go", "build", "-o", program, "holdfast.dev/holdfast/cmd/holdfast")
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // as the Makefile does
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build holdfast: %w\n%s", err, out)
	}
	var https string
	if err := freePorts(&t.Addr, &https); err != nil {
		return nil, err
	}
	t.WebSocket = "wss://" + https + "/$iothub/websocket"
	config := filepath.Join(dir, "holdfast.toml")
	if err := t.configureHoldfast(program, config, https); err != nil {
		return nil, err
	}
	t.launch = func() *exec.Cmd { return exec.Command(program, "run", "--config", config) }
	if err := t.Start(); err != nil {
		return nil, err
	}
	if err := t.trust(filepath.Join(dir, "data", "tls", "ca.pem")); err != nil {
		t.Stop()
		return nil, err
	}
	return t, nil
}

func (t *Target) configureHoldfast(program, config, https string) error {
	h, _, err := net.SplitHostPort(t.Addr)
	if err != nil {
		return fmt.Errorf("split %s: %w", t.Addr, err)
	}
	everywhere, err := account(program, t.User, t.Password, "#")
	if err != nil {
		return err
	}
	narrow, err := account(program, t.Narrow, t.Password, narrowFilter)
	if err != nil {
		return err
	}
	text := fmt.Sprintf(`data = %q
[status]
listen = "off"
[tls]
names = [%q]
[https]
listen = %q
[mqtt]
listen = %q
tls_listen = "off"
%s%s`, filepath.Join(t.dir, "data"), h, https, t.Addr, everywhere, narrow)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return fmt.Errorf("configure holdfast: %w", err)
	}
	return nil
}

// account is an [[account]] that may publish and subscribe within filter.
func account(program, user, password, filter string) (string, error) {
	cmd := exec.Command(program, "passwd", user)
	cmd.Stdin = strings.NewReader(password + "\n")
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("make account %s: %w", user, err)
	}
	return fmt.Sprintf("%spublish = [%q]\nsubscribe = [%q]\n", out, filter, filter), nil
}

// trust makes WebSocket clients trust the certificates in file and no others.
func (t *Target) trust(file string) error {
	pem, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("read holdfast's CA: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return errors.New("read holdfast's CA: no certificate in " + file)
	}
	t.TLS = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	return nil
}
