package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/pelletier/go-toml/v2"
)

// gateway is the holdfast process, its configuration and its addresses.
type gateway struct {
	bin, config      string
	mqtt, tls, https string // https is "off" where it is not wanted
	status           string // address of the status page
	ca               string // PEM file of the authority that it makes for itself
	kids             *children
	child            *child
	client           http.Client
	window           int // messages under way upstream for one device, as configured
}

// gatewayConfig is what bench sets of holdfast.toml.
type gatewayConfig struct {
	Data   string `toml:"data"`
	Status struct {
		Listen string `toml:"listen"`
	} `toml:"status"`
	HTTPS struct {
		Listen string `toml:"listen"`
	} `toml:"https"`
	MQTT struct {
		Listen    string `toml:"listen"`
		TLSListen string `toml:"tls_listen"`
	} `toml:"mqtt"`
	IoTHub struct {
		Connection string `toml:"connection"`
		Address    string `toml:"address"`
		HTTPS      string `toml:"https"`
		CA         string `toml:"ca,omitempty"`
		Window     int    `toml:"window"`
	} `toml:"iothub"`
	Device  []deviceConfig  `toml:"device,omitempty"`
	Account []accountConfig `toml:"account,omitempty"`
	Forward []forwardConfig `toml:"forward,omitempty"`
}

type deviceConfig struct {
	ID         string `toml:"id"`
	PrimaryKey string `toml:"primary_key"`
}

type accountConfig struct {
	Name      string   `toml:"name"`
	Password  string   `toml:"password"`
	Device    string   `toml:"device,omitempty"`
	Publish   []string `toml:"publish,omitempty"`
	Subscribe []string `toml:"subscribe,omitempty"`
}

type forwardConfig struct {
	Filter string `toml:"filter"`
}

// gatewayWindow is the upstream window of one device that bench configures: it is
// the documented default, set so that the bounds of the table are known.
const gatewayWindow = 100

// newGateway chooses addresses: for a person who is to connect (fixed) the same
// ones each time where they are free, and HTTPS too.
func newGateway(kids *children, bin string, p *ports, fixed bool) (*gateway, error) {
	g := &gateway{bin: bin, kids: kids, https: "off", window: gatewayWindow,
		config: filepath.Join(kids.dir, "holdfast.toml"),
		ca:     filepath.Join(kids.dir, "gateway", "tls", "ca.pem")}
	g.client.Timeout = 2 * time.Second
	choose := func(addr *string, usual int) error {
		port, err := p.choose(usual, fixed)
		*addr = loopback(port)
		return err
	}
	err := errors.Join(choose(&g.mqtt, 18830), choose(&g.tls, 18883), choose(&g.status, 18080))
	if fixed {
		err = errors.Join(err, choose(&g.https, 18443))
	}
	return g, err
}

// configure writes holdfast.toml; c brings what is beside addresses and folder.
func (g *gateway) configure(c gatewayConfig) error {
	c.Data = filepath.Join(g.kids.dir, "gateway")
	c.Status.Listen, c.HTTPS.Listen = g.status, g.https
	c.MQTT.Listen, c.MQTT.TLSListen = g.mqtt, g.tls
	c.IoTHub.Window = g.window
	b, err := toml.Marshal(c)
	if err != nil {
		return fmt.Errorf("write the gateway's configuration: %w", err)
	}
	return os.WriteFile(g.config, b, 0o600)
}

// start runs the gateway and waits until its status page answers.
func (g *gateway) start(ctx context.Context) error {
	var err error
	g.child, err = g.kids.start("holdfast", filepath.Join(g.bin, "holdfast"), "run", "--config", g.config)
	if err != nil {
		return err
	}
	return ready(ctx, g.child, func() error { _, err := g.poll(ctx); return err })
}

// status is what bench reads of the gateway's /status.
type status struct {
	Link struct {
		Up bool `json:"up"`
	} `json:"link"`
	Queues []struct {
		Name    string  `json:"name"`
		Pending uint64  `json:"pending"`
		Parked  uint64  `json:"parked"`
		Oldest  float64 `json:"oldest_s"`
	} `json:"queues"`
	Totals ledger `json:"totals"`
	Store  struct {
		Commits uint64 `json:"commits"`
		Records uint64 `json:"records"`
	} `json:"store"`
	Clients int `json:"clients"`
}

// ledger is what the gateway says became of the messages that it took.
type ledger struct {
	Accepted  uint64 `json:"accepted"`
	Delivered uint64 `json:"delivered"`
	Expired   uint64 `json:"expired"`
	Evicted   uint64 `json:"evicted"`
	Discarded uint64 `json:"discarded"`
	Damaged   uint64 `json:"damaged"`
	Parked    uint64 `json:"parked"`
	Pending   uint64 `json:"pending"`
	Unrouted  uint64 `json:"unrouted"`
}

// wrong says what the ledger should not say at the end of a run in which acked
// messages were acknowledged.
func (l ledger) wrong(acked int64) []string {
	var out []string
	sum := l.Delivered + l.Expired + l.Evicted + l.Discarded + l.Damaged + l.Parked + l.Pending
	if sum != l.Accepted {
		out = append(out, fmt.Sprintf("the gateway's ledger does not add up: %d accepted, %d accounted for", l.Accepted, sum))
	}
	if gone := sum - l.Delivered - l.Parked - l.Pending; gone > 0 {
		out = append(out, fmt.Sprintf("the gateway's ledger says that %d were expired, evicted, discarded or damaged", gone))
	}
	if kept := l.Accepted + l.Unrouted; kept < uint64(acked) {
		out = append(out, fmt.Sprintf("the gateway's ledger knows of %d messages, %d were acknowledged", kept, acked))
	}
	if l.Unrouted > 0 {
		out = append(out, fmt.Sprintf("the gateway says that no queue wanted %d messages", l.Unrouted))
	}
	return out
}

// waiting is the whole backlog and the age of its oldest message in seconds.
func (s status) waiting() (pending, parked uint64, oldest float64) {
	for _, q := range s.Queues {
		pending, parked, oldest = pending+q.Pending, parked+q.Parked, max(oldest, q.Oldest)
	}
	return pending, parked, oldest
}

// poll reads the status page.
func (g *gateway) poll(ctx context.Context) (status, error) {
	return readStatus(ctx, &g.client, g.status)
}

func readStatus(ctx context.Context, client *http.Client, addr string) (status, error) {
	var s status
	err := get(ctx, client, "http://"+addr+"/status", func(r io.Reader) error { return json.NewDecoder(r).Decode(&s) })
	if err != nil {
		return s, fmt.Errorf("read the gateway's status: %w", err)
	}
	return s, nil
}
