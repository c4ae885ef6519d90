package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"
)

// console is where the story is told: headlines with the time since the start, and
// one live line, rewritten in place on a terminal, else printed every two seconds.
type console struct {
	out   io.Writer
	start time.Time
	width func() int // of the terminal; nil if it is none

	mu   sync.Mutex
	live bool      // the cursor stands at the end of the live line
	last time.Time // the live line was printed
}

const plainEvery = 2 * time.Second // between live lines where they cannot be rewritten

func newConsole(out *os.File) *console {
	c := &console{out: out, start: time.Now()}
	if fd := int(out.Fd()); term.IsTerminal(fd) {
		c.width = func() int {
			w, _, err := term.GetSize(fd)
			if err != nil || w < 20 {
				return 80
			}
			return w
		}
	}
	return c
}

// say prints a headline.
func (c *console) say(format string, args ...any) {
	c.text(c.clock() + "  " + fmt.Sprintf(format, args...) + "\n")
}

// text prints whole lines as they are.
func (c *console) text(s string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.live {
		io.WriteString(c.out, "\r\x1b[K")
		c.live = false
	}
	io.WriteString(c.out, s)
}

// line shows the live line, in its narrow form where the terminal is too narrow
// for the wide one.
func (c *console) line(wide, narrow string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.clock() + "  " + wide
	if c.width == nil {
		if time.Since(c.last) >= plainEvery {
			c.last = time.Now()
			io.WriteString(c.out, s+"\n")
		}
		return
	}
	most := c.width() - 1
	if len(s) > most {
		s = c.clock() + "  " + narrow
	}
	s = s[:min(len(s), most)] // all ASCII
	io.WriteString(c.out, "\r\x1b[K"+s)
	c.live = true
}

func (c *console) clock() string {
	return fmt.Sprintf("%6.1fs", time.Since(c.start).Seconds())
}

// view is what the live line shows.
type view struct {
	gateway        bool // it answers
	link           bool
	clients        int
	backlog        uint64
	parked         uint64
	oldest         float64 // seconds
	in, out        float64 // messages a second
	acked, arrived int64
	ledger         ledger
}

// state is the first word of the line.
func (v view) state() string {
	switch {
	case !v.gateway:
		return "no gateway"
	case v.link:
		return "link up"
	}
	return "link down"
}

func (v view) narrow() string {
	return fmt.Sprintf("%-9s backlog %s, %.0f s  in %.0f/s out %.0f/s  arrived %s of %s",
		v.state(), thousands(int64(v.backlog)), v.oldest, v.in, v.out, thousands(v.arrived), thousands(v.acked))
}

func (v view) wide() string {
	return fmt.Sprintf("%-10s  backlog %6s  oldest %3.0f s  in %5.0f/s  out %5.0f/s  acked %s  arrived %s  clients %d",
		v.state(), thousands(int64(v.backlog)), v.oldest, v.in, v.out, thousands(v.acked), thousands(v.arrived), v.clients)
}

// thousands writes n with commas.
func thousands(n int64) string {
	s := fmt.Sprint(n)
	var b strings.Builder
	for i, d := range s {
		if i > 0 && (len(s)-i)%3 == 0 && s[i-1] != '-' {
			b.WriteByte(',')
		}
		b.WriteRune(d)
	}
	return b.String()
}
