package main

import (
	"fmt"
	"os"
	"strings"
	"sync"

	"holdfast.dev/holdfast/storage"
)

// The words that a workload of "bench powercut" says on the tape, one a line. What
// it is about to ask for it says before, and what it was told after, from the very
// callback:
//
//	life N                          the process starts, opens the store
//	has QUEUE POS SENDER N TTL      it is there when the store was opened
//	whole QUEUE LAST                and nothing else; LAST is the newest position
//	opened                          of all queues
//	offer SENDER N                  records up to N are going to be offered
//	kept QUEUE POS SENDER N TTL     acknowledged
//	ending QUEUE OUTCOME POS…       somebody asks for their end
//	ended QUEUE OUTCOME POS…        and is told that it is true
//	parking QUEUE SENDER            somebody asks for its parking, or the opposite
//	parked QUEUE SENDER             told that it is true
//	unparked QUEUE SENDER
//	aside QUEUE POS                 somebody parks or unparks one record
//	setting KEY TOKEN               somebody sets a key; "-" removes it
//	set KEY TOKEN                   told that it is true
//	moved N GENERATIONS             how many records this process has moved, and where they lie

// sayer puts words on the tape. A word is there when say returns.
type sayer struct {
	mu  sync.Mutex
	f   *os.File
	err error
}

func (s *sayer) say(format string, args ...any) { s.line(fmt.Sprintf(format, args...)) }

func (s *sayer) line(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.f.WriteString(text); err != nil && s.err == nil {
		s.err = fmt.Errorf("say %.30q: %w", text, err)
	}
}

func (s *sayer) failed() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// positions writes positions as one word each.
func positions(ps []storage.Position) string {
	var b strings.Builder
	for _, p := range ps {
		fmt.Fprintf(&b, " %d", p)
	}
	return b.String()
}
