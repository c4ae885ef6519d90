package hub

// Check is one thing that must be well, with a hint for whoever finds it is not.
type Check struct {
	Name string
	Hint string
	Test func() error // nil: well; it must answer at once
}

// Health is an ordered chain: what comes later needs what comes earlier. The first
// check that fails is the reason, and those behind it are not asked.
type Health []Check

// Finding is what a check has found.
type Finding struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Reason string `json:"reason,omitempty"`
	Hint   string `json:"hint,omitempty"`
}

// Report asks the chain.
func (h Health) Report() []Finding {
	out := make([]Finding, 0, len(h))
	failed := ""
	for _, c := range h {
		f := Finding{Name: c.Name, OK: failed == ""}
		switch {
		case failed != "":
			f.Reason = "not asked: " + failed + " comes first"
		default:
			if err := c.Test(); err != nil {
				f.OK, f.Reason, f.Hint, failed = false, err.Error(), c.Hint, c.Name
			}
		}
		out = append(out, f)
	}
	return out
}
