package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

// everything is one run of all measurements.
type everything struct {
	*measure
	bin     string   // folder of the gateway's binaries, for the peers
	without []string // subcommands that are left out
	page    bool
	tell    io.Writer // progress
	rows    []figure
}

// all in the order they run; each is a process of its own, so that memory is its own.
func allOf() []string {
	return []string{"steady", "ingest", "backlog", "drain", "memory", "reopen", "full", "latency", "powercut", "peers"}
}

func allCommand() *cobra.Command {
	var e everything
	cmd := &cobra.Command{
		Use:   "all",
		Short: "Every measurement in turn, as one page",
		Long: `Every measurement runs in turn, in a process of its own, and one page comes out:
each target with its figure, missed ones included and why, what was measured beside
them, the machine, and what could not be measured here. --page prints it as Markdown,
as it stands in docs/durability.md.

Flushes and bytes are counted by loop devices, the slow device and the power cuts need
/dev/fuse, dropping caches needs root: run it as root, or those rows are skipped. The
peers need a gateway in --bin ("make build") and whatever of mosquitto and RabbitMQ is
installed. In full it takes some twenty minutes, and wants a machine with nothing else
to do and 8 GB free under --dir.`,
		Args: cobra.NoArgs,
	}
	e.measure = measureFlags(cmd)
	f := cmd.Flags()
	f.BoolVar(&e.page, "page", false, "print Markdown")
	f.StringVar(&e.bin, "bin", "bin", "`folder` of the holdfast and hubsim binaries")
	f.StringSliceVar(&e.without, "without", nil, "leave out these `measurements`: "+strings.Join(allOf(), ","))
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		e.tell = cmd.ErrOrStderr()
		return e.run(cmd.Context(), cmd.OutOrStdout())
	}
	return cmd
}

func (e *everything) run(ctx context.Context, out io.Writer) error {
	dir, temporary, err := workDir(e.dir)
	if err != nil {
		return err
	}
	if temporary {
		defer os.RemoveAll(dir)
	}
	m, err := machineOf(dir)
	if err != nil {
		return err
	}
	begun := time.Now()
	for _, name := range allOf() {
		if slices.Contains(e.without, name) {
			e.fail(name, "left out with --without")
			continue
		}
		if err := e.one(ctx, name, filepath.Join(dir, name)); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			e.fail(name, err.Error())
		}
	}
	if e.json {
		return (&report{json: true, figures: e.rows}).print(out)
	}
	p := page{m: m, begun: begun, took: time.Since(begun), quick: e.quick, figures: e.rows}
	if e.page {
		_, err = io.WriteString(out, p.markdown())
	} else {
		_, err = io.WriteString(out, p.text())
	}
	return err
}

// fail keeps a row for a subcommand that has not done what it should.
func (e *everything) fail(name, why string) {
	e.rows = append(e.rows, figure{ID: name, What: "bench " + name, Why: skipped + why})
}

// one runs a subcommand and keeps its rows, those of a run that failed half way, too.
func (e *everything) one(ctx context.Context, name, dir string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	args := []string{name, "--json", "--dir", dir}
	if e.quick {
		args = append(args, "--quick")
	}
	if name == "peers" {
		args = append(args, "--bin", e.bin)
	}
	begun := time.Now()
	fmt.Fprintf(e.tell, "bench %s …\n", name)
	cmd := exec.CommandContext(ctx, self, args...)
	var said bytes.Buffer
	cmd.Stderr = io.MultiWriter(e.tell, &said)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C comes through here, in order
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 30 * time.Second
	b, err := cmd.Output()
	rows, parsed := parseRows(b)
	e.rows = append(e.rows, rows...)
	if err != nil {
		return fmt.Errorf("%w: %s", err, lastLine(said.String()))
	}
	if parsed != nil {
		return parsed
	}
	fmt.Fprintf(e.tell, "bench %s: %d figures in %s\n", name, len(rows), time.Since(begun).Round(time.Second))
	return nil
}

func lastLine(s string) string {
	s = strings.TrimSpace(s)
	return s[strings.LastIndexByte(s, '\n')+1:]
}

// parseRows reads what a report has printed with --json.
func parseRows(b []byte) ([]figure, error) {
	var rows []figure
	for i, line := range strings.Split(strings.TrimSuffix(string(b), "\n"), "\n") {
		if line == "" {
			continue
		}
		d := json.NewDecoder(strings.NewReader(line))
		d.DisallowUnknownFields()
		var f figure
		if err := d.Decode(&f); err != nil {
			return rows, fmt.Errorf("line %d is no figure (%w): %.80q", i+1, err, line)
		}
		if d.More() {
			return rows, fmt.Errorf("line %d is more than one figure: %.80q", i+1, line)
		}
		rows = append(rows, f)
	}
	return rows, nil
}
