package main

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"holdfast.dev/holdfast/hub"
	"holdfast.dev/holdfast/storage"
)

// longSilence is worth a word: a hub that is well answers within a second or two,
// and a connection that stays silent is given up soon after.
const longSilence = 8 * time.Second

// health is the chain that the page and every other place report: the first that
// is not well is the reason.
func (g *gateway) health() hub.Health {
	chain := hub.Health{
		{Name: "store", Hint: "look at the disk; the gateway opens the store anew when it starts", Test: func() error {
			return errors.Join(g.state.Err(), g.queue.Err())
		}},
		{Name: "room", Hint: "bring the uplink back, free space on the disk of " + g.cfg.Data + ", or raise [store] max_bytes, whichever it is", Test: g.room},
	}
	damage := hub.Check{Name: "damage", Hint: "its bytes lie in quarantine/ beside the journal; the rest goes on. Look after the disk, and restart when you have seen to it", Test: g.damage}
	if g.cloud == nil {
		return append(chain, damage)
	}
	return append(chain,
		hub.Check{Name: "cloud", Hint: "check the uplink and [iothub] connection; messages are kept and go up in order when it is back", Test: g.uplink},
		hub.Check{Name: "people", Hint: "the gateway needs one sync with the hub's list of devices before it can let them in", Test: func() error {
			s := g.people.Status()
			switch {
			case s.Complete:
				return nil
			case s.Err != nil:
				return fmt.Errorf("the hub's list of devices was never fetched: %w", s.Err)
			}
			return errors.New("the hub's list of devices was never fetched")
		}},
		hub.Check{Name: "parked", Hint: "holdfast queue parked list shows all; check that the devices are enabled and children of this gateway", Test: g.parked},
		damage, // last: it hides nothing that can still be mended
	)
}

func (g *gateway) room() error {
	if !g.queue.Full() {
		return nil
	}
	s := g.queue.Stats()
	if s.DiskFull {
		return fmt.Errorf("the disk is full: the queue has %d bytes of it and may have %d; devices are told to wait", s.Disk, s.MaxBytes)
	}
	return fmt.Errorf("the queue is full: %d of %d bytes; devices are told to wait", s.Disk, s.MaxBytes)
}

// damage is what was found when the stores were opened.
func (g *gateway) damage() error {
	for _, db := range []*storage.DB{g.state, g.queue} {
		for _, d := range db.Stats().Damage {
			if !d.Torn && d.Kept == "" {
				return fmt.Errorf("at least %d records are missing from %s", d.Records, d.File)
			}
			if !d.Torn {
				return fmt.Errorf("%s could not be read at offset %d: %d records; kept in %s", d.File, d.Offset, d.Records, d.Kept)
			}
		}
	}
	return nil
}

func (g *gateway) uplink() error {
	switch s := g.cloud.State(); {
	case !s.Up:
		return fmt.Errorf("no connection to %s: %s", g.cloud.Host(), s.LastError)
	case s.Hint != "":
		return errors.New(s.Hint)
	case s.Silent > longSilence:
		return fmt.Errorf("%s has not acknowledged what was due for %.0f s", g.cloud.Host(), s.Silent.Seconds())
	default:
		for _, c := range s.Connections {
			if c.Hint != "" {
				return fmt.Errorf("%s gets nothing up: %s", c.ID, c.Hint)
			}
		}
	}
	return nil
}

func (g *gateway) parked() error {
	senders, records, first := 0, 0, ""
	for _, q := range g.lanes() {
		p := q.Parked()
		senders += len(p)
		if who := slices.Sorted(maps.Keys(p)); len(who) > 0 && first == "" {
			first = fmt.Sprintf("%s: %s", who[0], p[who[0]])
		}
		r := q.ParkedRecords()
		records += len(r)
		if len(r) > 0 && first == "" {
			first = fmt.Sprintf("one of %s: %s", r[0].Sender, r[0].Reason)
		}
	}
	if senders+records == 0 {
		return nil
	}
	return fmt.Errorf("%d senders and %d single messages are parked; %s", senders, records, first)
}
