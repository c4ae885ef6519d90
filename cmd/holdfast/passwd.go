package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"holdfast.dev/holdfast/hub/identity"
)

// maxPassword is the longest password taken, in bytes. Longer ones are a file
// that was piped in by mistake.
const maxPassword = 1024

func (p *Program) passwdCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "passwd [NAME]",
		Short: "Make the hash of an account's password, for the configuration",
		Long: "Asks twice for a password, or reads one line of standard input, and prints its\n" +
			"argon2id hash for the configuration. With a NAME it prints a whole [[account]].",
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			name := strings.Join(args, "")
			if strings.ContainsAny(name, "/\"\\") || printable(name) != name {
				return &usageError{fmt.Errorf("account name %q: no slash, quote, backslash or control character can be in it", name)}
			}
			password, err := p.password(c.Context())
			if err != nil {
				return err
			}
			hash, err := identity.Hash(password)
			if err != nil {
				return fmt.Errorf("hash password: %w", err)
			}
			if name == "" {
				_, err = fmt.Fprintln(p.Stdout, hash)
			} else {
				_, err = fmt.Fprintf(p.Stdout, "[[account]]\nname = \"%s\"\npassword = \"%s\"\n", name, hash)
			}
			return err
		},
	}
}

// password reads a password without showing it: twice from a terminal, one line
// from anything else.
func (p *Program) password(ctx context.Context) ([]byte, error) {
	f, ok := p.Stdin.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return line(p.Stdin)
	}
	first, err := p.ask(ctx, int(f.Fd()), "password: ")
	if err != nil {
		return nil, err
	}
	if len(first) == 0 {
		return nil, errors.New("password is empty")
	}
	again, err := p.ask(ctx, int(f.Fd()), "once more: ")
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(first, again) {
		return nil, withHint(errors.New("the two are not the same"), "start again")
	}
	return first, nil
}

// ask reads one line without echo. A signal gives the terminal its echo back.
func (p *Program) ask(ctx context.Context, fd int, prompt string) ([]byte, error) {
	state, err := term.GetState(fd)
	if err != nil {
		return nil, fmt.Errorf("read password: %w", err)
	}
	fmt.Fprint(p.Stderr, prompt)
	defer fmt.Fprintln(p.Stderr)
	type result struct {
		text []byte
		err  error
	}
	read := make(chan result, 1) // the reader is left behind when ctx ends: the program ends then
	go func() {
		text, err := term.ReadPassword(fd)
		read <- result{text, err}
	}()
	select {
	case r := <-read:
		if r.err != nil {
			return nil, fmt.Errorf("read password: %w", r.err)
		}
		return r.text, nil
	case <-ctx.Done():
		return nil, errors.Join(errors.New("interrupted"), term.Restore(fd, state))
	}
}

// line reads the first line.
func line(r io.Reader) ([]byte, error) {
	b := bufio.NewReader(io.LimitReader(r, maxPassword+2))
	text, err := b.ReadBytes('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read password: %w", err)
	}
	text = bytes.TrimRight(text, "\r\n")
	switch {
	case len(text) == 0:
		return nil, withHint(errors.New("password is empty"), "give it as one line of standard input")
	case len(text) > maxPassword:
		return nil, fmt.Errorf("password is longer than %d bytes", maxPassword)
	}
	return text, nil
}
