package console

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

func parkedListCommand(r runner) *cobra.Command {
	c := &cobra.Command{Use: "list [--json]", Short: "List parked senders and messages, with the reason for each", Args: cobra.NoArgs}
	asJSON := c.Flags().Bool("json", false, "one JSON object a line")
	c.RunE = func(c *cobra.Command, args []string) error {
		return r.do(c, args, c.OutOrStdout(), func(_ context.Context, d *Desk, out io.Writer) error {
			return d.parkedList(out, *asJSON)
		})
	}
	return c
}

func retryCommand(r runner) *cobra.Command {
	c := &cobra.Command{
		Use: "retry [QUEUE] (--sender ID | --position N | --all)", Short: "Let what was parked go again",
		Long: "Lets parked senders and messages go again; a running gateway takes them up at once.\n" +
			"What is refused again is parked again.",
		Args: cobra.MaximumNArgs(1),
	}
	which := whichOf(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		if err := which.check(c, len(args) > 0); err != nil {
			return err
		}
		return r.do(c, args, c.OutOrStdout(), func(ctx context.Context, d *Desk, out io.Writer) error {
			return d.retry(ctx, out, args, *which)
		})
	}
	return c
}

func exportCommand(r runner) *cobra.Command {
	c := &cobra.Command{
		Use: "export FILE [--sender ID]", Short: "Write what is parked to a file, as JSON Lines",
		Long: "Writes all parked messages to FILE, in the form of queue dump and with the reason for\n" +
			"each. FILE is there as a whole or not at all; - is standard output. Nothing is changed\n" +
			"in the queue.",
		Args: cobra.ExactArgs(1),
	}
	sender := c.Flags().String("sender", "", "only those of this `identity`")
	c.RunE = func(c *cobra.Command, args []string) error {
		do := func(out io.Writer) error {
			return r.do(c, []string{"-"}, out, func(ctx context.Context, d *Desk, out io.Writer) error {
				return d.export(ctx, out, *sender)
			})
		}
		switch {
		case args[0] == "-":
			return do(c.OutOrStdout())
		case !r.files:
			return usage("give - as the FILE", "files are written where the command is given, not here")
		}
		n, err := writeFile(args[0], do)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(c.OutOrStdout(), "%s in %s\n", messages(uint64(n)), printable(args[0]))
		return err
	}
	return c
}

func parkedDiscardCommand(r runner) *cobra.Command {
	c := &cobra.Command{
		Use: "discard [QUEUE] (--sender ID | --position N | --all) --yes", Short: "Give up what is parked: it is counted as discarded",
		Long: "Gives up parked messages. They are counted as discarded, durably, before the command\n" +
			"says so. A parked sender stays parked. Without --yes it only says what it would\n" +
			"discard, and ends with 2.",
		Args: cobra.MaximumNArgs(1),
	}
	which := whichOf(c)
	yes := c.Flags().Bool("yes", false, "really do it")
	c.RunE = func(c *cobra.Command, args []string) error {
		if err := which.check(c, len(args) > 0); err != nil {
			return err
		}
		return r.do(c, args, c.OutOrStdout(), func(ctx context.Context, d *Desk, out io.Writer) error {
			s := *which
			s.parkedOnly = true
			return d.discard(ctx, out, args, s, *yes)
		})
	}
	return c
}

func forgetCommand(r runner) *cobra.Command {
	c := &cobra.Command{
		Use: "forget --yes", Short: "Forget the kept list of devices: the way out when seal.key is lost",
		Long: "Removes the list of devices that was kept for times without a cloud, without opening\n" +
			"it. Until the list is fetched from the cloud again, none of its devices can connect.\n" +
			"Without --yes it only says what it would do, and ends with 2.",
		Args: cobra.NoArgs,
	}
	yes := c.Flags().Bool("yes", false, "really do it")
	c.RunE = func(c *cobra.Command, args []string) error {
		return r.do(c, args, c.OutOrStdout(), func(ctx context.Context, d *Desk, out io.Writer) error {
			return d.forget(ctx, out, *yes)
		})
	}
	return c
}
