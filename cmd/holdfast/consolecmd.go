package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"holdfast.dev/holdfast/hub/console"
	"holdfast.dev/holdfast/storage"
)

// controlSocket is where a running gateway answers the console's commands.
const controlSocket = "control" // in the data folder

// startTime is how long a gateway may hold its stores before its console answers.
const startTime = 5 * time.Second

// folder is the data folder that a console command is about.
type folder struct{ data, config string }

// consoleCommands are the console's, each with the flags that say of which
// gateway: a running one is asked, the folder of one that does not run is opened.
func (p *Program) consoleCommands() []*cobra.Command {
	var at folder
	list := console.Commands(func(ctx context.Context, args []string, out io.Writer) error {
		return p.atDesk(ctx, at, args, out)
	})
	for _, c := range list {
		c.PersistentFlags().StringVar(&at.data, "data", "", "data `folder` of the gateway, or of a card; that of the configuration if empty")
		c.PersistentFlags().StringVar(&at.config, "config", p.Env("HOLDFAST_CONFIG"), "configuration `file`")
	}
	return list
}

// ofConsole turns the console's errors into this program's.
func ofConsole(err error) error {
	e := (*console.Error)(nil)
	if !errors.As(err, &e) {
		return err
	}
	if e.Hint != "" {
		err = withHint(err, "%s", e.Hint)
	}
	if e.Status == console.StatusUsage {
		err = &usageError{err}
	}
	return err
}

func (p *Program) atDesk(ctx context.Context, at folder, args []string, out io.Writer) error {
	cfg, err := p.load(at.config)
	if err != nil {
		return err
	}
	if at.data != "" {
		cfg.Data = at.data
	}
	socket := filepath.Join(cfg.Data, controlSocket)
	for deadline := time.Now().Add(startTime); ; {
		err := console.Call(ctx, socket, args, out)
		if !errors.Is(err, console.ErrNobody) {
			return err
		}
		desk, closeDesk, err := p.openDesk(cfg, args[0])
		if err == nil {
			return errors.Join(desk.Do(ctx, args, out), closeDesk())
		}
		if !errors.Is(err, storage.ErrLocked) {
			return err
		}
		if time.Now().After(deadline) {
			return withHint(err, "its console does not answer at %s: it may still be reading its store; look at its log, or stop it", socket)
		}
		select { // it is starting, or ending
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// openDesk opens the one store that a command is about: the other may be damaged,
// or not there.
func (p *Program) openDesk(cfg Config, command string) (*console.Desk, func() error, error) {
	d := &console.Desk{Clock: storage.SystemClock()}
	log := newLog(LogConfig{Level: "warn", Format: "text"}, p.Stderr, new(ring))
	o := cfg.Store.Options(d.Clock)
	name := "queue"
	if command == "scope" {
		o = storage.Options{Clock: d.Clock, SegmentBytes: stateSegment, MaxBytes: stateMax}
		name = "state"
	}
	o.Log, o.Still = log, true
	dir, err := storeFolder(cfg.Data, name)
	if err != nil {
		return nil, nil, err
	}
	db, err := storage.Open(dir, o)
	switch {
	case errors.Is(err, syscall.EROFS):
		return nil, nil, withHint(err, "to open a store is to write to it: mount the card writable, or copy the folder and give the copy with --data")
	case errors.Is(err, fs.ErrPermission):
		return nil, nil, withHint(err, "give the command as the user that the gateway runs as")
	case err != nil:
		return nil, nil, err
	}
	if name == "state" {
		d.Scope = db.Map(scopeMap)
	} else {
		d.Queue = db
	}
	return d, db.Close, nil
}

// storeFolder finds a store that is there already; opening one makes it, and a
// wrong path must not.
func storeFolder(data, name string) (string, error) {
	dirs := []string{filepath.Join(data, name)}
	if name == "queue" {
		dirs = append(dirs, data) // the store's own folder
	}
	for _, dir := range dirs {
		for _, mark := range []string{"STORE", filepath.Join("journal", "STORE")} {
			_, err := os.Stat(filepath.Join(dir, mark))
			if err == nil {
				return dir, nil
			}
			if errors.Is(err, fs.ErrPermission) {
				return "", withHint(fmt.Errorf("open store %s: %w", dir, err), "give the command as the user that the gateway runs as")
			}
			if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
				return "", fmt.Errorf("open store %s: %w", dir, err)
			}
		}
	}
	return "", withHint(fmt.Errorf("open store %s: there is none", dirs[0]),
		"give the gateway's data folder with --data, or its configuration with --config or HOLDFAST_CONFIG")
}
