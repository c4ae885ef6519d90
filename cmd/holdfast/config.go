package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"holdfast.dev/holdfast/hub"
	"holdfast.dev/holdfast/hub/identity"
	"holdfast.dev/holdfast/hub/iothub"
	"holdfast.dev/holdfast/hub/mqtt"
	"holdfast.dev/holdfast/storage"
)

// Config is the whole configuration, one TOML file. Its zero value works.
// docs/configuration.md describes every key.
type Config struct {
	Data   string       `toml:"data"` // folder of everything that is kept: "holdfast-data" if empty
	Log    LogConfig    `toml:"log"`
	Status StatusConfig `toml:"status"`
	TLS    TLSConfig    `toml:"tls"`
	HTTPS  HTTPSConfig  `toml:"https"`
	Store  StoreConfig  `toml:"store"`

	MQTT     mqtt.Config              `toml:"mqtt"`
	IoTHub   iothub.Config            `toml:"iothub"`
	Devices  []identity.DeviceConfig  `toml:"device"`
	Accounts []identity.AccountConfig `toml:"account"`
	Forwards []mqtt.ForwardConfig     `toml:"forward"`
}

// LogConfig is the [log] part.
type LogConfig struct {
	Level  string `toml:"level"`  // "debug", "info" if empty, "warn" or "error"
	Format string `toml:"format"` // "text" if empty, or "json"
}

// StatusConfig is the [status] part: the page, without TLS and without a
// password, so on the loopback interface unless somebody decides otherwise.
type StatusConfig struct {
	Listen string `toml:"listen"` // "127.0.0.1:9600" if empty, "off" for none
}

// TLSConfig is the [tls] part: the certificate that devices see on 8883 and 443.
type TLSConfig struct {
	Certificate string   `toml:"certificate"` // PEM file, the server's first; made by the gateway if empty
	Key         string   `toml:"key"`         // PEM file
	Names       []string `toml:"names"`       // further DNS names and addresses for the one that is made
}

// HTTPSConfig is the [https] part: MQTT over WebSocket.
type HTTPSConfig struct {
	// Listen is ":443" if empty, "off" for none. The default is given up, with a
	// word in the log, where the user may not open that port.
	Listen string `toml:"listen"`
}

// StoreConfig is the [store] part.
type StoreConfig struct {
	MaxBytes     hub.Size     `toml:"max_bytes"`     // most that the store may take on disk: 1GiB if zero
	SegmentBytes hub.Size     `toml:"segment_bytes"` // of one journal file: 16MiB if zero
	Ring         int          `toml:"ring"`          // journal files, beyond half of which what waits moves into generations: 8 if zero
	Scratch      string       `toml:"scratch"`       // folder on a RAM disk in which generations are built; /dev/shm if empty and there
	Linger       hub.Duration `toml:"linger"`        // longest wait for company before a flush: 1ms if zero
}

// Options are c for storage.
func (c StoreConfig) Options(clock storage.Clock) storage.Options {
	return storage.Options{
		Clock:        clock,
		SegmentBytes: int(c.SegmentBytes),
		MaxBytes:     int64(c.MaxBytes),
		Ring:         c.Ring,
		Scratch:      scratch(c.Scratch),
		Linger:       c.Linger.Or(0),
	}
}

// scratch is where generations are built: memory where there is a place in it, for
// badger's writing is not what the card should wear out by.
func scratch(folder string) string {
	const shm = "/dev/shm"
	var st unix.Statfs_t
	if folder == "" && unix.Statfs(shm, &st) == nil && st.Type == unix.TMPFS_MAGIC {
		return shm
	}
	return folder
}

// Fault is one thing that is wrong with a configuration.
type Fault struct {
	Line, Column int    // from 1; 0 where the fault has no place in the file
	Key          string // dotted; "" for a fault of the form
	Text         string // what is wrong, and what is wanted; never a secret
}

// In writes the fault as compilers do: "FILE:LINE:COLUMN: key: text".
func (f Fault) In(file string) string {
	if f.Line > 0 {
		file += fmt.Sprintf(":%d:%d", f.Line, f.Column)
	}
	if f.Key == "" {
		return file + ": " + f.Text
	}
	return file + ": " + f.Key + ": " + f.Text
}

// Load reads and judges a configuration. It finds all faults, not only the first,
// and does not look at anything but the file, so that it says the same on any
// computer. With faults, the Config is not to be used. The error says that the
// file could not be read. An empty path gives the configuration without a file.
func Load(path string) (Config, []Fault, error) {
	if path == "" {
		return Config{}.filled(), nil, nil
	}
	doc, err := readSome(path, maxConfig)
	if errors.Is(err, fs.ErrNotExist) {
		return Config{}, nil, withHint(fmt.Errorf("read configuration: %w", err),
			"without --config and HOLDFAST_CONFIG the gateway runs with its defaults")
	}
	if err != nil {
		return Config{}, nil, fmt.Errorf("read configuration: %w", err)
	}
	c, faults := parse(doc)
	return c.filled(), faults, nil
}

// maxConfig is far more than a configuration needs: a device file or a disk image
// given by mistake is told from one.
const maxConfig = 1 << 20 // bytes

func readSome(path string, most int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	doc, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(doc)) > most {
		err = fmt.Errorf("%s: it has more than %d bytes, and is no configuration", path, most)
	}
	return doc, err
}

// filled has the defaults of cmd/holdfast's own parts; the rooms fill in theirs.
func (c Config) filled() Config {
	or := func(s *string, def string) {
		if *s == "" {
			*s = def
		}
	}
	or(&c.Data, "holdfast-data")
	or(&c.Log.Level, "info")
	or(&c.Log.Format, "text")
	or(&c.Status.Listen, "127.0.0.1:9600")
	return c
}
