package console

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"holdfast.dev/holdfast/storage"
)

// job is what a command does at the desk, its flags and arguments read.
type job func(ctx context.Context, d *Desk, out io.Writer) error

// runner says what becomes of a command that was given in the right way.
type runner struct {
	do    func(c *cobra.Command, args []string, out io.Writer, j job) error
	files bool // it may write files: it is the program of the person who asks
}

// Commands gives the tree for a program's command line. Each command that was given
// in the right way is handed to do, as words that Desk.Do takes: what runs it
// elsewhere need not know the tree. Flags that the program adds to the commands are
// its own and are not among the words.
func Commands(do func(ctx context.Context, args []string, out io.Writer) error) []*cobra.Command {
	return tree(runner{files: true, do: func(c *cobra.Command, args []string, out io.Writer, _ job) error {
		return do(c.Context(), words(c, args), out)
	}})
}

// ownFlags are the flags of the tree's commands.
const ownFlags = "json limit from sender position all yes"

// words writes a command anew: its path, its own flags as they were set, its
// arguments.
func words(c *cobra.Command, args []string) []string {
	out := strings.Fields(c.CommandPath())[1:]
	for _, name := range strings.Fields(ownFlags) {
		if f := c.Flags().Lookup(name); f != nil && f.Changed {
			out = append(out, "--"+name+"="+f.Value.String())
		}
	}
	return append(append(out, "--"), args...)
}

func tree(r runner) []*cobra.Command {
	return []*cobra.Command{
		group("queue", "See what waits, prove that nothing is missing, decide what is to become of it",
			listCommand(r), showCommand(r), dumpCommand(r), verifyCommand(r), discardCommand(r),
			group("parked", "What was refused: try it again, take it out, or give it up",
				parkedListCommand(r), retryCommand(r), exportCommand(r), parkedDiscardCommand(r))),
		group("scope", "What is kept of the hub's list of devices", forgetCommand(r)),
	}
}

// group is a command that only has others in it. Without one of them it explains
// itself; a wrong one is an error, which cobra would print the help for.
func group(name, short string, commands ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: name + " COMMAND", Short: short, SuggestionsMinimumDistance: 2}
	c.AddCommand(commands...)
	for _, sub := range append(commands, c) {
		sub.DisableFlagsInUseLine = true // Use names them, in the order in which they are asked for
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		if len(args) == 0 {
			return c.Help()
		}
		hint := c.CommandPath() + " --help lists the commands"
		if s := c.SuggestionsFor(args[0]); len(s) > 0 {
			hint = "did you mean " + c.CommandPath() + " " + s[0] + "?"
		}
		return usage(hint, "unknown command %q for %q", args[0], c.CommandPath())
	}
	return c
}

func listCommand(r runner) *cobra.Command {
	c := &cobra.Command{Use: "list [--json]", Short: "List the queues: what waits in each, since when", Args: cobra.NoArgs}
	asJSON := c.Flags().Bool("json", false, "one JSON object a line")
	c.RunE = func(c *cobra.Command, args []string) error {
		return r.do(c, args, c.OutOrStdout(), func(_ context.Context, d *Desk, out io.Writer) error {
			return d.list(out, *asJSON)
		})
	}
	return c
}

func showCommand(r runner) *cobra.Command {
	c := &cobra.Command{Use: "show QUEUE [--limit N] [--from POSITION] [--json]", Short: "Show what waits in a queue, a line for each message", Args: cobra.ExactArgs(1)}
	limit := c.Flags().Uint("limit", 20, "show at most so many `messages`; 0: all")
	from := c.Flags().Uint64("from", 0, "begin at this `position`")
	asJSON := c.Flags().Bool("json", false, "one JSON object a line, as dump prints them")
	c.RunE = func(c *cobra.Command, args []string) error {
		return r.do(c, args, c.OutOrStdout(), func(ctx context.Context, d *Desk, out io.Writer) error {
			part := part{from: storage.Position(*from), limit: *limit}
			if *asJSON {
				return d.dump(ctx, out, args[0], part)
			}
			return d.show(ctx, out, args[0], part)
		})
	}
	return c
}

func dumpCommand(r runner) *cobra.Command {
	c := &cobra.Command{
		Use: "dump QUEUE [--limit N] [--from POSITION]", Short: "Print what waits in a queue as JSON Lines, whole",
		Long: "Prints every message that waits in a queue, parked ones too, as one JSON object a\n" +
			"line. Nothing is changed. A body that is not UTF-8 text is given in base64.",
		Args: cobra.ExactArgs(1),
	}
	limit := c.Flags().Uint("limit", 0, "print at most so many `messages`; 0: all")
	from := c.Flags().Uint64("from", 0, "begin at this `position`")
	c.RunE = func(c *cobra.Command, args []string) error {
		return r.do(c, args, c.OutOrStdout(), func(ctx context.Context, d *Desk, out io.Writer) error {
			return d.dump(ctx, out, args[0], part{from: storage.Position(*from), limit: *limit})
		})
	}
	return c
}

func verifyCommand(r runner) *cobra.Command {
	c := &cobra.Command{
		Use: "verify", Short: "Prove that ledger and data agree",
		Long: "Counts the index anew and compares it with the ledger, prints the ledger's equation\n" +
			"for each sender and queue, and reads every message that waits to check its checksum.\n" +
			"Ends with 1 if something does not agree or cannot be read.",
		Args: cobra.NoArgs,
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		return r.do(c, args, c.OutOrStdout(), func(ctx context.Context, d *Desk, out io.Writer) error { return d.verify(ctx, out) })
	}
	return c
}

func discardCommand(r runner) *cobra.Command {
	c := &cobra.Command{
		Use: "discard QUEUE (--sender ID | --position N | --all) --yes", Short: "Give messages up: they are counted as discarded",
		Long: "Gives up messages that wait in a queue, parked ones too. They are counted as\n" +
			"discarded, durably, before the command says so. Without --yes it only says what it\n" +
			"would discard, and ends with 2.",
		Args: cobra.ExactArgs(1),
	}
	which := whichOf(c)
	yes := c.Flags().Bool("yes", false, "really do it")
	c.RunE = func(c *cobra.Command, args []string) error {
		if err := which.check(c, true); err != nil {
			return err
		}
		return r.do(c, args, c.OutOrStdout(), func(ctx context.Context, d *Desk, out io.Writer) error {
			return d.discard(ctx, out, args, *which, *yes)
		})
	}
	return c
}

// selection is which messages a decision is about.
type selection struct {
	sender     string
	position   uint64
	all        bool
	parkedOnly bool
}

func whichOf(c *cobra.Command) *selection {
	s := new(selection)
	c.Flags().StringVar(&s.sender, "sender", "", "all of this `identity`")
	c.Flags().Uint64Var(&s.position, "position", 0, "the one at this `position`")
	c.Flags().BoolVar(&s.all, "all", false, "all there are")
	return s
}

// check says whether exactly one choice was made; a position is one of a queue.
func (s *selection) check(c *cobra.Command, queue bool) error {
	n := 0
	for _, name := range []string{"sender", "position", "all"} {
		if f := c.Flags().Lookup(name); f.Changed && f.Value.String() != "false" {
			n++
		}
	}
	hint := "usage: holdfast " + strings.Join(strings.Fields(c.CommandPath())[1:], " ") + strings.TrimPrefix(c.Use, c.Name())
	switch {
	case n != 1:
		return usage(hint, "say which messages: one of --sender, --position and --all")
	case !s.all && s.sender == "" && s.position == 0: // a variable of a script that was not set must not mean all
		return usage(hint, "--sender is empty, or --position is 0: there is no such message")
	case c.Flags().Changed("position") && !queue:
		return usage(hint, "--position needs a QUEUE: each has positions of its own")
	}
	return nil
}

func (s selection) String() string {
	switch {
	case s.sender != "":
		return fmt.Sprintf("of %s", printable(s.sender))
	case s.position > 0:
		return fmt.Sprintf("at position %d", s.position)
	}
	return "of all senders"
}
