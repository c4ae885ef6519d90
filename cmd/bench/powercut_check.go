package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"holdfast.dev/holdfast/storage"
)

// cutQuestion is what a checker is asked: does the store in Dir keep what the first
// Upto marks of a file promise?
type cutQuestion struct {
	InPlace bool // it is badger, written in place
	Dir     string
	Marks   string // a file with a JSON array of strings
	Upto    int
	Room    cutRoom
	Use     bool // put something in, and open it again
}

func checkCommand() *cobra.Command {
	return &cobra.Command{
		Use: "check", Short: "Look whether a store keeps what was promised", Hidden: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return checkAll(cmd.Context(), cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
}

// checkAll answers questions, one a line. It is a process of its own because a
// store that is opened after a cut may take its process with it, as badger does.
func checkAll(ctx context.Context, in io.Reader, out io.Writer) error {
	var told toldSoFar
	questions, answers := json.NewDecoder(in), json.NewEncoder(out)
	for {
		var q cutQuestion
		if err := questions.Decode(&q); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("read a question: %w", err)
		}
		f, err := q.answer(ctx, &told)
		if err != nil {
			return err
		}
		if err := answers.Encode(f); err != nil {
			return err
		}
	}
}

func (q cutQuestion) answer(ctx context.Context, told *toldSoFar) (findings, error) {
	if err := told.load(q.Marks, q.Upto); err != nil {
		return findings{}, err
	}
	if q.InPlace {
		return judgeInPlace(q.Dir, told.marks[:q.Upto])
	}
	if err := told.upTo(q.Upto); err != nil {
		return findings{}, err
	}
	return q.judge(ctx, told.promise)
}

// toldSoFar is the promise after so many marks of a file.
type toldSoFar struct {
	file    string
	marks   []string
	upto    int
	promise *promise
}

// load reads the marks of a file, of which there must be n.
func (s *toldSoFar) load(file string, n int) error {
	if file != s.file {
		b, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		s.file, s.marks, s.promise = file, nil, nil
		if err := json.Unmarshal(b, &s.marks); err != nil {
			return fmt.Errorf("read marks %s: %w", file, err)
		}
	}
	if n > len(s.marks) {
		return fmt.Errorf("read marks %s: there are %d, not %d", file, len(s.marks), n)
	}
	return nil
}

// upTo makes the promise that of the first n marks. Cuts come in order mostly, so
// mostly it is the last one and some more.
func (s *toldSoFar) upTo(n int) error {
	if s.promise == nil || n < s.upto {
		s.promise, s.upto = newPromise(), 0
	}
	for ; s.upto < n; s.upto++ {
		if err := s.promise.hear(s.marks[s.upto]); err != nil {
			return fmt.Errorf("mark %d of %s: %w", s.upto, s.file, err)
		}
	}
	return nil
}

// judge opens the store and looks; if asked to, it puts something in, and opens
// and looks again.
func (q cutQuestion) judge(ctx context.Context, p *promise) (findings, error) {
	o := q.Room.options()
	db, err := storage.Open(q.Dir, o)
	if err != nil {
		return findings{Shut: err.Error()}, nil
	}
	f, err := p.judge(db)
	if err != nil || !q.Use || !f.clean() {
		return f, errors.Join(err, db.Close())
	}
	done, last := make(chan error, 1), db.Queue("after").Stats().Last
	body := cutBody{sender: "after", n: 1, queues: []string{"after"}, size: 100}
	db.Append(ctx, storage.Record{Sender: "after", Body: body.bytes(), To: []storage.Dest{{Queue: "after", Note: []byte("after")}}},
		func(err error) { done <- err })
	put := <-done
	if put != nil && !errors.Is(put, storage.ErrFull) {
		f.wrong("nothing can be put in after the cut: %v", put)
	}
	if err := db.Close(); err != nil {
		f.wrong("close after the cut: %v", err)
		return f, nil
	}
	if db, err = storage.Open(q.Dir, o); err != nil {
		return findings{Shut: "when opened again: " + err.Error()}, nil
	}
	if put == nil && db.Queue("after").Stats().Last != last+1 {
		f.lost("what was put in after the cut")
	}
	p.offered["after"] = 1
	again, err := p.judge(db)
	delete(p.offered, "after")
	for _, l := range slices.Concat(again.Lost, again.Wrong) {
		f.wrong("when opened again: %s", l)
	}
	return f, errors.Join(err, db.Close())
}
