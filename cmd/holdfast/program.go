package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
)

// Program is the whole program as a value.
type Program struct {
	Args           []string // without the program's name
	Env            func(key string) string
	Stdin          io.Reader
	Stdout, Stderr io.Writer
}

// The program's exit statuses.
const (
	exitOK    = 0 // done, or ended by a signal in good order
	exitFault = 1 // something went wrong at run time
	exitUsage = 2 // wrong arguments, or a configuration that is not valid
)

// Execute does what Args say, until it is done or ctx ends, and gives the exit
// status.
func (p *Program) Execute(ctx context.Context) int {
	begun := false
	root := p.commands()
	root.PersistentPreRun = func(*cobra.Command, []string) { begun = true }
	err := ofConsole(root.ExecuteContext(ctx))
	if err == nil {
		return exitOK
	}
	if !begun { // cobra did not like the arguments
		err = &usageError{withHint(err, "%s", p.usageHint(root))}
	}
	fmt.Fprintf(p.Stderr, "holdfast: %s\n", printable(err.Error()))
	if h := hintOf(err); h != "" {
		fmt.Fprintf(p.Stderr, "hint: %s\n", printable(h))
	}
	if u := (*usageError)(nil); errors.As(err, &u) {
		return exitUsage
	}
	return exitFault
}

func (p *Program) commands() *cobra.Command {
	root := &cobra.Command{
		Use:                        "holdfast",
		Short:                      "A field gateway that keeps every message until the cloud has it",
		SilenceErrors:              true,
		SilenceUsage:               true,
		DisableSuggestions:         true, // given as a hint
		SuggestionsMinimumDistance: 2,
		CompletionOptions:          cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	root.SetArgs(p.Args)
	root.SetIn(p.Stdin)
	root.SetOut(p.Stdout)
	root.SetErr(p.Stderr)
	root.AddCommand(p.runCommand(), p.checkCommand(), p.statusCommand(), p.passwdCommand(), p.versionCommand())
	root.AddCommand(p.consoleCommands()...)
	return root
}

func (p *Program) usageHint(root *cobra.Command) string {
	if len(p.Args) > 0 {
		if s := root.SuggestionsFor(p.Args[0]); len(s) > 0 && s[0] != p.Args[0] {
			return "did you mean holdfast " + s[0] + "?"
		}
		if c, _, err := root.Find(p.Args); err == nil && c != root {
			return "usage: " + strings.TrimSuffix(c.CommandPath(), c.Name()) + c.Use
		}
	}
	return "holdfast --help lists the commands"
}

func (p *Program) runCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "run [--config FILE]",
		Short: "Run the gateway until SIGINT or SIGTERM",
		Args:  cobra.NoArgs,
	}
	file := c.Flags().String("config", p.Env("HOLDFAST_CONFIG"), "configuration `file`; without one the defaults hold")
	c.RunE = func(c *cobra.Command, _ []string) error {
		cfg, err := p.load(*file)
		if err != nil {
			return err
		}
		lines := new(ring)
		return p.run(c.Context(), cfg, newLog(cfg.Log, p.Stderr, lines), lines)
	}
	return c
}

func (p *Program) checkCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "check FILE",
		Short: "Say what is wrong with a configuration, on any computer",
		Args:  cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			cfg, err := p.load(args[0])
			if err != nil {
				return err
			}
			fmt.Fprintf(p.Stdout, "%s is fine\n%s", args[0], summary(cfg))
			return nil
		},
	}
}

// load loads a configuration and prints its faults, for commands that cannot go
// on with any.
func (p *Program) load(file string) (Config, error) {
	cfg, faults, err := Load(file)
	if err != nil {
		return cfg, &usageError{err}
	}
	for _, f := range faults {
		fmt.Fprintln(p.Stderr, printable(f.In(file)))
	}
	switch len(faults) {
	case 0:
		return cfg, nil
	case 1:
		return cfg, &usageError{fmt.Errorf("%s: 1 fault", file)}
	}
	return cfg, &usageError{fmt.Errorf("%s: %d faults", file, len(faults))}
}

// version is set by the linker (-X main.version=v1.2.3); without it the version
// is the one that the Go command has noted.
var version string

func (p *Program) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintf(p.Stdout, "holdfast %s %s %s/%s\n", buildVersion(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
}

func buildVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(unknown)"
}

// printable takes out what could make a terminal do more than show text.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\n' && r != '\t' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return '?'
		}
		return r
	}, s)
}
