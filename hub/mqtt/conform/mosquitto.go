package conform

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// ErrNotInstalled is the answer where a peer is not on this machine.
var ErrNotInstalled = errors.New("not installed")

// Mosquitto is Debian's mosquitto, with a password file and rules for who may use
// which topic. The error is ErrNotInstalled where there is none.
func Mosquitto(dir string) (*Target, error) {
	program, passwd := find("mosquitto"), find("mosquitto_passwd")
	if program == "" || passwd == "" {
		return nil, fmt.Errorf("mosquitto: %w", ErrNotInstalled)
	}
	t := &Target{
		Name: "mosquitto", User: "conform", Password: "secret", Narrow: "narrow",
		Patience: peerPatience, dir: dir,
	}
	var ws string
	if err := freePorts(&t.Addr, &ws); err != nil {
		return nil, err
	}
	t.WebSocket = "ws://" + ws
	users, rules := filepath.Join(dir, "users"), filepath.Join(dir, "rules")
	for _, user := range []string{t.User, t.Narrow} {
		if err := addUser(passwd, users, user, t.Password); err != nil {
			return nil, err
		}
	}
	config := filepath.Join(dir, "mosquitto.conf")
	lines := []string{
		"listener " + port(t.Addr) + " " + address(t.Addr),
		"listener " + port(ws) + " " + address(ws), "protocol websockets",
		"allow_anonymous false", "password_file " + users, "acl_file " + rules,
	}
	if os.Getuid() == 0 {
		lines = append(lines, "user root") // else it would become one who may not read here
	}
	err := errors.Join(
		os.WriteFile(rules, []byte("user "+t.User+"\ntopic readwrite #\ntopic read $SYS/#\nuser "+t.Narrow+"\ntopic readwrite "+narrowFilter+"\n"), 0o600),
		os.WriteFile(config, []byte(strings.Join(lines, "\n")+"\n"), 0o600),
	)
	if err != nil {
		return nil, fmt.Errorf("configure mosquitto: %w", err)
	}
	t.launch = func() *exec.Cmd { return exec.Command(program, "-c", config) }
	return t, t.Start()
}

func addUser(program, file, user, password string) error {
	args := []string{"-b", file, user, password}
	if _, err := os.Stat(file); err != nil {
		args = append([]string{"-c"}, args...)
	}
	if out, err := exec.Command(program, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("add user %s to mosquitto's: %w\n%s", user, err, out)
	}
	return nil
}

// find is where a program is, or "". Debian keeps servers where not every user's
// PATH leads.
func find(program string) string {
	if p, err := exec.LookPath(program); err == nil {
		return p
	}
	for _, dir := range []string{"/usr/sbin", "/usr/local/sbin"} {
		if p, err := exec.LookPath(filepath.Join(dir, program)); err == nil {
			return p
		}
	}
	return ""
}

// port and address are the halves of host:port, which freePort made.
func port(addr string) string    { return addr[strings.LastIndexByte(addr, ':')+1:] }
func address(addr string) string { return addr[:strings.LastIndexByte(addr, ':')] }
