package mqtt

import (
	"fmt"
	"time"

	"holdfast.dev/holdfast/hub"
)

// usualPriority is where telemetry goes that says nothing else.
const usualPriority = 5

// Forward makes the router of ordinary clients' messages: one whose topic matches
// a rule is kept in queue, on the terms of the first rule that matches. Telemetry
// of IoT Hub devices has no topic and is not its business. The error names the
// rule, counted from 1, and what is wrong with it.
func Forward(rules []ForwardConfig, queue string) (hub.Router, error) {
	type rule struct {
		filter string
		dest   []hub.Dest
	}
	compiled := make([]rule, 0, len(rules))
	for i, r := range rules {
		if err := checkFilter(r.Filter); err != nil {
			return nil, fmt.Errorf("[[forward]] %d: %w", i+1, err)
		}
		if reserved(r.Filter) {
			return nil, fmt.Errorf("[[forward]] %d: filter %q: ordinary clients cannot publish there; telemetry of devices goes up without a rule", i+1, r.Filter)
		}
		priority := usualPriority
		if r.Priority != nil {
			priority = *r.Priority
		}
		if priority < 0 || priority > 9 {
			return nil, fmt.Errorf("[[forward]] %d: priority %d: want 0 (first) to 9", i+1, priority)
		}
		compiled = append(compiled, rule{r.Filter, []hub.Dest{{Queue: queue, Priority: priority, TTL: time.Duration(r.TTL)}}})
	}
	return func(m *hub.Message) []hub.Dest {
		if m.Topic == "" {
			return nil
		}
		for _, r := range compiled {
			if matches(r.filter, m.Topic) {
				return r.dest
			}
		}
		return nil
	}, nil
}
