package main

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
)

// profile is how an outage run goes.
type profile struct {
	devices  int
	rate     float64       // messages a second of each device; 0: full speed
	messages int           // in all; 0: as many as the duration allows
	duration time.Duration // how long devices send where messages is 0
	outage   time.Duration
	kills    int // SIGKILLs of the gateway during the outage
	drain    int // further ones while the backlog drains
	payload  int // bytes
	window   int // publishes of one device under way
	silent   bool
	once     bool
	dir, bin string
	stall    time.Duration // without any progress while draining: given up
	env      []string      // added to that of the children
}

// Preset profiles. A flag that is given wins over them.
func quick(p profile) profile {
	p.rate, p.duration, p.outage, p.once = 50, 16*time.Second, 8*time.Second, true
	return p
}

func prove(p profile) profile {
	p.devices, p.rate, p.messages, p.outage, p.kills, p.once = 20, 0, 50000, 30*time.Second, 2, true
	return p
}

func outageCommand() *cobra.Command {
	var given profile
	var isQuick, isProve bool
	cmd := &cobra.Command{
		Use:   "outage",
		Short: "Cut the uplink, kill the gateway, and account for every message",
		Long: `Starts a stand-in hub, the gateway and a few devices, cuts the uplink for a while,
kills the gateway with SIGKILL meanwhile and starts it again, restores the uplink,
watches the backlog drain and prints what became of every message. It fails if
anything acknowledged was lost, overtaken or renamed, or if there are more repeats
than the kills and the cut explain.`,
		Args: cobra.NoArgs,
	}
	f := cmd.Flags()
	f.IntVar(&given.devices, "devices", 6, "`number` of devices; about a third, at most two, are ordinary MQTT clients")
	f.Float64Var(&given.rate, "rate", 10, "messages a second of each device; 0: full speed")
	f.IntVar(&given.messages, "messages", 0, "send this `number` of messages in all, instead of for a time")
	f.DurationVar(&given.duration, "duration", 60*time.Second, "how long devices send, outage included")
	f.DurationVar(&given.outage, "outage", 20*time.Second, "how long the uplink is cut")
	f.IntVar(&given.kills, "kills", 1, "SIGKILLs of the gateway during the outage")
	f.IntVar(&given.drain, "drain-kills", 0, "further SIGKILLs while the backlog drains")
	f.IntVar(&given.payload, "payload", 128, "`bytes` of a message's body")
	f.IntVar(&given.window, "in-flight", 20, "`publishes` of one device that may be under way")
	f.BoolVar(&given.silent, "silent", false, "cut the uplink without a reset: packets vanish")
	f.BoolVar(&given.once, "once", false, "end after the table")
	f.BoolVar(&isQuick, "quick", false, "a run of under a minute that ends after the table")
	f.BoolVar(&isProve, "prove", false, "50,000 messages from 20 devices at full speed, 30 s outage, two kills")
	f.StringVar(&given.dir, "dir", "", "work `folder`, new or empty; a temporary one if not given")
	f.StringVar(&given.bin, "bin", "bin", "`folder` of the holdfast and hubsim binaries")
	cmd.MarkFlagsMutuallyExclusive("quick", "prove")
	cmd.MarkFlagsMutuallyExclusive("messages", "duration")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		p := given
		switch {
		case isQuick:
			p = quick(p)
		case isProve:
			p = prove(p)
		}
		p.override(given, f.Changed)
		p.stall = 2 * time.Minute // longer than any heartbeat or back-off of the gateway
		if err := p.check(); err != nil {
			return err
		}
		return runOutage(cmd.Context(), p, newConsole(os.Stdout))
	}
	return cmd
}

// override puts back what was given as a flag.
func (p *profile) override(given profile, changed func(string) bool) {
	for name, set := range map[string]func(){
		"devices":  func() { p.devices = given.devices },
		"rate":     func() { p.rate = given.rate },
		"messages": func() { p.messages = given.messages },
		"duration": func() { p.duration, p.messages = given.duration, 0 },
		"outage":   func() { p.outage = given.outage },
		"kills":    func() { p.kills = given.kills },
		"once":     func() { p.once = given.once },
	} {
		if changed(name) {
			set()
		}
	}
}

func (p profile) check() error {
	switch {
	case p.devices < 1 || p.devices > 999:
		return fmt.Errorf("--devices %d: want 1 to 999", p.devices)
	case p.rate < 0:
		return fmt.Errorf("--rate %g: want 0 or more", p.rate)
	case p.messages < 0 || p.messages > 0 && p.messages < p.devices:
		return fmt.Errorf("--messages %d: want at least one for each of %d devices", p.messages, p.devices)
	case p.outage <= 0:
		return errors.New("--outage: want more than 0s")
	case p.messages == 0 && p.duration < p.outage+2*time.Second:
		return fmt.Errorf("--duration %s: want at least two seconds more than the outage of %s", p.duration, p.outage)
	case p.kills < 0 || p.drain < 0:
		return errors.New("--kills, --drain-kills: want 0 or more")
	case p.payload < 0 || p.payload > 200<<10:
		return fmt.Errorf("--payload %d: want 0 to 204800 bytes", p.payload)
	case p.window < 1 || p.window > 1000:
		return fmt.Errorf("--in-flight %d: want 1 to 1000", p.window)
	}
	return nil
}

// interval is the time between two messages of one device.
func (p profile) interval() time.Duration {
	if p.rate == 0 {
		return 0
	}
	return time.Duration(float64(time.Second) / p.rate)
}

// stages is into how many equal parts a fixed number of messages is dealt: one
// before the cut, one after it, one around each kill, one for the drain. So devices
// are sending at each of these moments, however fast the machine is.
func (p profile) stages() int { return p.kills + 3 }

// limit is the last number that device i of all may send up to the end of a stage,
// from 1.
func (p profile) limit(i, stage int) int {
	if p.messages == 0 {
		return 1 << 30
	}
	n := p.messages / p.devices
	if i < p.messages%p.devices {
		n++
	}
	return n * stage / p.stages()
}

// bounds are the repeats of one device that this run can explain: each kill may
// swallow the acknowledgements of a device's window, and each kill and each cut
// those of the gateway's window and the settlements that were not yet on disk.
func (p profile) bounds(gatewayWindow int) limits {
	const settlements = 1000
	kills := p.kills + p.drain
	return limits{device: p.window * kills, gateway: (gatewayWindow + settlements) * (kills + 1)}
}
