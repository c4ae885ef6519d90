package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"holdfast.dev/holdfast/hub/web"
)

// maxStatus is the most that is read of an answer, in bytes.
const maxStatus = 16 << 20

func (p *Program) statusCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "status [--address HOST:PORT] [--json]",
		Short: "Ask a running gateway how it is",
		Args:  cobra.NoArgs,
	}
	address := c.Flags().String("address", "127.0.0.1:9600", "`host:port` of the gateway's page, [status] listen")
	raw := c.Flags().Bool("json", false, "print the answer as it is")
	c.RunE = func(c *cobra.Command, _ []string) error {
		body, err := fetchStatus(c.Context(), *address)
		if err != nil {
			return err
		}
		if *raw {
			_, err = p.Stdout.Write(body)
			return err
		}
		var s web.Status
		if err := json.Unmarshal(body, &s); err != nil {
			return withHint(fmt.Errorf("read status of %s: %w", *address, err), "is that a holdfast gateway?")
		}
		_, err = io.WriteString(p.Stdout, printable(screen(s)))
		return err
	}
	return c
}

func fetchStatus(ctx context.Context, address string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/status", nil)
	if err != nil {
		return nil, &usageError{fmt.Errorf("address %q: want host:port", address)}
	}
	client := http.Client{Transport: &http.Transport{}} // no proxy: it is this machine, or one beside it
	defer client.CloseIdleConnections()
	res, err := client.Do(req)
	if errors.Is(err, syscall.ECONNREFUSED) {
		return nil, withHint(fmt.Errorf("ask %s: nobody listens there", address),
			"is the gateway running, and is [status] listen that address?")
	}
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", address, err)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxStatus))
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", address, err)
	}
	if res.StatusCode != http.StatusOK {
		return nil, withHint(fmt.Errorf("ask %s: %s", address, res.Status), "is that a holdfast gateway?")
	}
	return body, nil
}

// screen writes a status for a person, in one screen as long as there are few
// devices.
func screen(s web.Status) string {
	var b strings.Builder
	if c, failed := s.FirstFailing(); failed {
		fmt.Fprintf(&b, "NOT WELL  %s: %s\n", c.Name, c.Reason)
		if c.Hint != "" {
			fmt.Fprintf(&b, "          %s\n", c.Hint)
		}
	} else {
		b.WriteString("all is well\n")
	}
	t := s.Totals
	for _, l := range [][2]string{
		{"version", fmt.Sprintf("%s, up %s", s.Version, web.Age(s.Uptime))},
		{"link", linkWords(s.Link)},
		{"messages", fmt.Sprintf("%s accepted, %s delivered, %s pending, %s parked", count(t.Accepted), count(t.Delivered), count(t.Pending), count(t.Parked))},
		{"not delivered", fmt.Sprintf("%s (expired %s, evicted %s, discarded %s, damaged %s); unrouted %s",
			count(t.Lost()), count(t.Expired), count(t.Evicted), count(t.Discarded), count(t.Damaged), count(t.Unrouted))},
		{"store", storeWords(s.Store)},
		{"clients", fmt.Sprintf("%d connected, %d identities known", s.Clients, s.Identities.Count)},
	} {
		fmt.Fprintf(&b, "%-14s %s\n", l[0], l[1])
	}
	if s.Identities.LastError != "" {
		fmt.Fprintf(&b, "%-14s %s\n", "identities", s.Identities.LastError)
	}
	tables(&b, s)
	return b.String()
}

func tables(b *strings.Builder, s web.Status) {
	w := tabwriter.NewWriter(b, 0, 0, 2, ' ', tabwriter.AlignRight)
	if len(s.Queues) > 0 {
		fmt.Fprint(w, "\nqueue\tpending\tparked\tbytes\toldest\t\n")
		for _, q := range s.Queues {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t\n", q.Name, count(q.Pending), count(q.Parked), web.Size(float64(q.Bytes)), web.Age(q.Oldest))
		}
		_ = w.Flush() // to a strings.Builder, which takes everything
	}
	if len(s.Ledger) > 0 {
		fmt.Fprint(w, "\nsender\tqueue\taccepted\tdelivered\tpending\tparked\tended otherwise\tunrouted\t\n")
		for _, r := range s.Ledger {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t\n", r.Sender, r.Queue, count(r.Accepted), count(r.Delivered),
				count(r.Pending), count(r.Parked), count(r.Lost()), count(r.Unrouted))
		}
		_ = w.Flush()
	}
	for _, c := range s.Connections {
		if c.LastError != "" {
			fmt.Fprintf(b, "\nconnection of %s: %s, %s\n", c.ID, c.State, c.LastError)
		}
	}
}

func linkWords(l web.Link) string {
	switch {
	case !l.Configured:
		return "none is configured"
	case l.Up:
		return "up since " + l.Since.Local().Format(time.DateTime)
	case l.LastError != "":
		return "DOWN since " + l.Since.Local().Format(time.DateTime) + ": " + l.LastError
	}
	return "DOWN since " + l.Since.Local().Format(time.DateTime)
}

func storeWords(s web.Store) string {
	w := fmt.Sprintf("%s of %s (%s in reserve), %s records in %s flushes", web.Size(float64(s.Disk)), web.Size(float64(s.MaxBytes)), web.Size(float64(s.Reserve)), count(s.Records), count(s.Commits))
	if s.Damage > 0 {
		w += fmt.Sprintf("; DAMAGED in %d places", s.Damage)
	}
	return w
}

// count is web.Count with a blank that every terminal knows.
func count(n uint64) string {
	return strings.ReplaceAll(web.Count(float64(n)), "\u202f", " ")
}
