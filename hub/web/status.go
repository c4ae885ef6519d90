package web

import "time"

// Status is everything that the page shows, as GET /status gives it. It holds no
// key, token or password, and nothing in it may be taken for markup: the page
// escapes all of it.
type Status struct {
	Version     string       `json:"version"`
	Started     time.Time    `json:"started"`
	Uptime      float64      `json:"uptime_s"` // seconds
	Link        Link         `json:"link"`
	Queues      []Queue      `json:"queues"`
	Totals      Counts       `json:"totals"` // over all rows of the ledger
	Ledger      []Row        `json:"ledger"`
	Store       Store        `json:"store"`
	Clients     int          `json:"clients"` // connected downstream
	Identities  Identities   `json:"identities"`
	Connections []Connection `json:"connections"` // upstream, one for each identity
	Health      []Check      `json:"health"`      // in order; the first that is not ok is the reason
	Log         []string     `json:"log"`         // the last 50 lines, oldest first
}

// Link is the way to the cloud.
type Link struct {
	Configured bool      `json:"configured"` // false: there is no cloud, and nothing waits for one
	Up         bool      `json:"up"`
	Since      time.Time `json:"since"` // of the present state
	LastError  string    `json:"last_error"`
}

// Queue is what waits for one destination.
type Queue struct {
	Name    string  `json:"name"`
	Pending uint64  `json:"pending"`  // messages
	Parked  uint64  `json:"parked"`   // messages
	Bytes   uint64  `json:"bytes"`    // of bodies, pending and parked
	Oldest  float64 `json:"oldest_s"` // age of the oldest pending message in seconds; 0 if there is none
}

// Counts say what became of messages. They add up:
//
//	accepted = delivered + expired + evicted + discarded + damaged + parked + pending
//
// Unrouted counts messages that no queue wanted; they were never accepted.
type Counts struct {
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

// Lost is how many of the accepted will never be delivered.
func (c Counts) Lost() uint64 { return c.Expired + c.Evicted + c.Discarded + c.Damaged }

// Plus is the sum of both.
func (c Counts) Plus(o Counts) Counts {
	return Counts{
		Accepted: c.Accepted + o.Accepted, Delivered: c.Delivered + o.Delivered, Expired: c.Expired + o.Expired,
		Evicted: c.Evicted + o.Evicted, Discarded: c.Discarded + o.Discarded, Damaged: c.Damaged + o.Damaged,
		Parked: c.Parked + o.Parked, Pending: c.Pending + o.Pending, Unrouted: c.Unrouted + o.Unrouted,
	}
}

// Row is one line of the ledger.
type Row struct {
	Sender string `json:"sender"`
	Queue  string `json:"queue"` // "" for the messages that no queue wanted
	Counts
}

// Store is the folder that everything is kept in.
type Store struct {
	Commits     uint64 `json:"commits"` // flushes
	Records     uint64 `json:"records"`
	Bytes       uint64 `json:"bytes"`     // written since the store was opened
	Disk        int64  `json:"disk"`      // bytes that journal and generations take
	MaxBytes    int64  `json:"max_bytes"` // bytes that they may take
	Reserve     int64  `json:"reserve"`   // bytes of these that are kept free, so that a full store can be drained
	Segments    int    `json:"segments"`
	Generations int    `json:"generations"` // that what was not drained soon has moved into
	Moved       uint64 `json:"moved"`       // records moved there since the store was opened
	Damage      int    `json:"damage"`      // places that could not be read
}

// Identities is what is known of who may connect.
type Identities struct {
	Count     int     `json:"count"`
	Age       float64 `json:"age_s"` // seconds since the cloud was last asked with success; negative: never
	LastError string  `json:"last_error"`
}

// Connection is one connection to the cloud, on behalf of one identity.
type Connection struct {
	ID        string `json:"id"`
	State     string `json:"state"`
	InFlight  int    `json:"inflight"` // messages that wait for the cloud's acknowledgement
	LastError string `json:"last_error"`
}

// Check is one link of the health chain.
type Check struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Reason string `json:"reason"` // what is wrong
	Hint   string `json:"hint"`   // what to do
}

// FirstFailing is the first check that is not ok: the reason for everything
// after it.
func (s Status) FirstFailing() (Check, bool) {
	for _, c := range s.Health {
		if !c.OK {
			return c, true
		}
	}
	return Check{}, false
}
