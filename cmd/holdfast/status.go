package main

import (
	"time"

	"holdfast.dev/holdfast/hub/web"
	"holdfast.dev/holdfast/storage"
)

// status is what the page, /status and "holdfast status" show.
func (g *gateway) status() web.Status {
	s := web.Status{
		Version: buildVersion(),
		Started: g.started.UTC(),
		Uptime:  time.Since(g.started).Seconds(),
		Clients: g.clients(),
		Log:     g.lines.last(50),
	}
	g.addStore(&s)
	g.addCloud(&s)
	p := g.people.Status()
	s.Identities = web.Identities{Count: p.Known, Age: -1}
	if p.Complete {
		s.Identities.Age = p.Age.Seconds()
	}
	if p.Err != nil {
		s.Identities.LastError = p.Err.Error()
	}
	for _, f := range g.health().Report() {
		s.Health = append(s.Health, web.Check{Name: f.Name, OK: f.OK, Reason: f.Reason, Hint: f.Hint})
	}
	return s
}

func (g *gateway) addStore(s *web.Status) {
	st := g.queue.Stats()
	s.Store = web.Store{
		Commits: st.Commits, Records: st.Records, Bytes: st.Bytes,
		Disk: st.Disk, MaxBytes: st.MaxBytes, Reserve: st.Reserve, Segments: st.Segments,
		Generations: st.Generations, Moved: st.Moved, Damage: len(st.Damage),
	}
	for _, q := range g.queue.Queues() {
		f := q.Stats()
		if f.Last == 0 {
			continue // nothing was ever in it
		}
		out := web.Queue{Name: f.Name, Pending: f.Pending, Parked: f.Parked, Bytes: f.Bytes}
		if f.Oldest != (storage.Stamp{}) {
			least, _ := g.clock.Age(f.Oldest)
			out.Oldest = least.Seconds()
		}
		s.Queues = append(s.Queues, out)
	}
	for _, r := range g.queue.Ledger() {
		row := web.Row{Sender: r.Sender, Queue: r.Queue, Counts: web.Counts{
			Accepted: r.Accepted, Delivered: r.Delivered, Expired: r.Expired, Evicted: r.Evicted,
			Discarded: r.Discarded, Damaged: r.Damaged, Parked: r.Parked, Pending: r.Pending, Unrouted: r.Unrouted,
		}}
		s.Ledger = append(s.Ledger, row)
		s.Totals = s.Totals.Plus(row.Counts)
	}
}

func (g *gateway) addCloud(s *web.Status) {
	if g.cloud == nil {
		s.Link.Since = g.started.UTC()
		return
	}
	st := g.cloud.State()
	s.Link = web.Link{Configured: true, Up: st.Up, Since: st.Since.UTC(), LastError: st.LastError}
	for _, c := range st.Connections {
		s.Connections = append(s.Connections, web.Connection{
			ID: string(c.ID), State: c.State, InFlight: c.InFlight, LastError: c.LastError,
		})
	}
}

// clients is the number of downstream connections.
func (g *gateway) clients() (n int) {
	g.broker.Metrics(func(name string, value float64, _ ...string) {
		if name == "mqtt_clients" {
			n = int(value)
		}
	})
	return n
}
