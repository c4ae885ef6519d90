// Package console is the desk of the queue: what a person at a command line does
// with the messages that wait. It lists and prints them, proves that ledger and
// data agree, and carries out the decisions that only a person may take: to try
// again what was parked, and to discard what nobody will ever take.
//
// There is one tree of commands. A Desk carries it out on an open store; Commands
// is the same tree for a program's own command line, which hands each command, its
// flags and arguments checked, to whoever has the store: a Desk in the same
// process, or, through Call, the Server of a running gateway, which has it locked.
//
// Nothing here changes a store unless the command says so, and each decision is on
// disk and in the ledger before it is reported. Payloads are strangers' bytes: what
// goes to a person is made printable, JSON too.
package console

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"

	"github.com/spf13/cobra"

	"holdfast.dev/holdfast/hub/identity"
	"holdfast.dev/holdfast/storage"
)

// Desk carries out commands on an open store. Do may be called by any goroutine.
type Desk struct {
	Queue *storage.DB     // the messages; nil: there are no commands for them
	Scope identity.Keeper // what is kept of the devices; nil: it cannot be forgotten
	Clock storage.Clock
	Log   *slog.Logger // decisions; nothing if nil

	decisions sync.Mutex // one at a time, so that each is counted for itself
}

// Do carries out one command and writes what it has to say to out. args are the
// words after the program's name: "queue", "list". The error says what was wrong
// and is an *Error where there is more to say.
func (d *Desk) Do(ctx context.Context, args []string, out io.Writer) error {
	root := newRoot(tree(runner{do: func(c *cobra.Command, _ []string, out io.Writer, j job) error {
		w := bufio.NewWriterSize(out, 32<<10) // a write for each line is most of the work of a dump
		err := j(c.Context(), d, w)
		if e := w.Flush(); err == nil {
			err = e
		}
		return err
	}})...)
	begun := false
	root.PersistentPreRun = func(*cobra.Command, []string) { begun = true }
	root.SetArgs(append([]string{}, args...)) // nil would mean the process's own
	root.SetOut(out)
	root.SetErr(out)
	err := root.ExecuteContext(ctx)
	if err != nil && !begun {
		return &Error{Err: err, Status: StatusUsage}
	}
	return err
}

func newRoot(commands ...*cobra.Command) *cobra.Command {
	root := &cobra.Command{
		Use: "holdfast", SilenceErrors: true, SilenceUsage: true, DisableSuggestions: true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	root.AddCommand(commands...)
	return root
}

// Exit statuses of commands.
const (
	StatusOK    = 0
	StatusFault = 1 // it did not work, or what was to be proven is not so
	StatusUsage = 2 // not asked in the right way, or not confirmed; nothing was done
)

// Error is an error with what to do about it.
type Error struct {
	Err    error
	Hint   string // "" if there is nothing to advise
	Status int    // StatusFault or StatusUsage
}

func (e *Error) Error() string { return e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// Status gives the exit status that err stands for.
func Status(err error) int {
	if e := (*Error)(nil); errors.As(err, &e) {
		return e.Status
	}
	if err != nil {
		return StatusFault
	}
	return StatusOK
}

// stopped is the error of a command that was cancelled.
type stopped struct{ cause error }

func (stopped) Error() string   { return "stopped before the end" }
func (s stopped) Unwrap() error { return s.cause }

// usage is an error in how a command was given.
func usage(hint, format string, args ...any) error {
	return &Error{Err: fmt.Errorf(format, args...), Hint: hint, Status: StatusUsage}
}

// fault is an error at run time.
func fault(hint, format string, args ...any) error {
	return &Error{Err: fmt.Errorf(format, args...), Hint: hint, Status: StatusFault}
}

func (d *Desk) log() *slog.Logger {
	if d.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return d.Log
}
