// Package web is the gateway's page: what it is doing, readable by a person with
// a browser, by a program, and by a load balancer.
//
//	GET /         the page; it renews itself
//	GET /status   the same as JSON, see Status
//	GET /healthz  200 "ok", or 503 and the first check that fails
//
// The few types are Status, which somebody who knows all rooms fills in, and the
// handler that New makes of it. The page is rendered here and only here: its
// script fetches the page again and puts the new <main> in the place of the old
// one, so it works without the script too, and html/template is the one place
// where text becomes markup.
//
// Nothing here changes anything, and nothing here is secret; whoever can reach
// the listener can read it. It is meant for the loopback interface.
package web

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html/template"
	"net/http"
	"strings"
	"time"
)

//go:embed page.html
var pageSource string

// New makes the handler. status is called for every request, by several
// goroutines at once; it must not block for long.
func New(status func() Status) http.Handler {
	h := &handler{
		status: status,
		page:   template.Must(template.New("page").Funcs(words).Parse(pageSource)),
		policy: contentPolicy(pageSource),
		pace:   newPace(time.Now),
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", h.servePage)
	mux.HandleFunc("GET /status", h.serveStatus)
	mux.HandleFunc("GET /healthz", h.serveHealth)
	return mux
}

type handler struct {
	status func() Status
	page   *template.Template
	policy string
	pace   *pace
}

// view is what the template is given.
type view struct {
	Status
	Rates  Rates
	Fault  Check
	Failed bool
}

func (h *handler) servePage(w http.ResponseWriter, _ *http.Request) {
	s := h.status()
	v := view{Status: s, Rates: h.pace.add(s.Totals)}
	v.Fault, v.Failed = s.FirstFailing()
	var page bytes.Buffer // rendered whole first: half a page says nothing
	if err := h.page.Execute(&page, v); err != nil {
		http.Error(w, "render page: "+err.Error(), http.StatusInternalServerError)
		return
	}
	header(w, "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", h.policy)
	_, _ = w.Write(page.Bytes()) // a reader that has gone is nobody's fault
}

func (h *handler) serveStatus(w http.ResponseWriter, _ *http.Request) {
	body, err := json.MarshalIndent(h.status().filled(), "", "  ")
	if err != nil {
		http.Error(w, "write status: "+err.Error(), http.StatusInternalServerError)
		return
	}
	header(w, "application/json")
	_, _ = w.Write(append(body, '\n'))
}

func (h *handler) serveHealth(w http.ResponseWriter, _ *http.Request) {
	header(w, "text/plain; charset=utf-8")
	c, failed := h.status().FirstFailing()
	if !failed {
		fmt.Fprintln(w, "ok")
		return
	}
	w.WriteHeader(http.StatusServiceUnavailable)
	fmt.Fprintf(w, "%s: %s\n", c.Name, c.Reason)
	if c.Hint != "" {
		fmt.Fprintf(w, "hint: %s\n", c.Hint)
	}
}

func header(w http.ResponseWriter, contentType string) {
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
}

// filled has empty lists in place of missing ones, so that readers of the JSON
// need not know the difference.
func (s Status) filled() Status {
	if s.Queues == nil {
		s.Queues = []Queue{}
	}
	if s.Ledger == nil {
		s.Ledger = []Row{}
	}
	if s.Connections == nil {
		s.Connections = []Connection{}
	}
	if s.Health == nil {
		s.Health = []Check{}
	}
	if s.Log == nil {
		s.Log = []string{}
	}
	return s
}

// contentPolicy allows the page's own script and style, by their hashes, and
// nothing else: if a text ever became markup, it still would not run.
func contentPolicy(page string) string {
	return "default-src 'none'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'" +
		"; script-src " + hashOf(page, "<script>", "</script>") +
		"; style-src " + hashOf(page, "<style>", "</style>")
}

func hashOf(page, from, to string) string {
	_, rest, ok := strings.Cut(page, from)
	text, _, ok2 := strings.Cut(rest, to)
	if !ok || !ok2 {
		return "'none'"
	}
	sum := sha256.Sum256([]byte(text))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}
