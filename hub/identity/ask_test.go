package identity

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"holdfast.dev/holdfast/hub"
)

func TestRotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, link := newSource(entry("d1", keyB, keyC)), newLink(false)
		keep := kept(t, entry("d1", keyA))
		d := mustNew(t, Config{}, Deps{Source: src, Online: link, Keep: keep})
		changed := d.Changed()
		if try(t, d, "d1", keyB) != hub.ErrUnauthorized {
			t.Error("offline: want the new key to be refused")
		}
		link.set(true)
		if try(t, d, "d1", keyB) != nil || try(t, d, "d1", keyC) != nil || src.asks("d1") != 1 {
			t.Errorf("online: want both new keys to be taken after one question (%d)", src.asks("d1"))
		}
		if try(t, d, "d1", keyA) != hub.ErrUnauthorized || src.asks("d1") != 1 {
			t.Errorf("old key: want it refused without another question (%d)", src.asks("d1"))
		}
		time.Sleep(askAgain)
		if try(t, d, "d1", keyA) != hub.ErrUnauthorized || src.asks("d1") != 2 {
			t.Errorf("old key, later: want one more question (%d)", src.asks("d1"))
		}
		if fired(changed) {
			t.Error("Changed fired although the same are known")
		}
		d = mustNew(t, Config{}, Deps{Keep: keep})
		if try(t, d, "d1", keyB) != nil {
			t.Error("new key is not kept")
		}
	})
}

func TestUnknownIsAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := newSource()
		d := mustNew(t, Config{}, Deps{Source: src})
		for range 5 {
			if try(t, d, "new", keyA) != hub.ErrUnauthorized {
				t.Error("want ErrUnauthorized")
			}
		}
		src.put(entry("new", keyA))
		time.Sleep(askAgain - time.Second)
		if try(t, d, "new", keyA) != hub.ErrUnauthorized || src.asks("new") != 1 {
			t.Errorf("asked %d times within %v, want once", src.asks("new"), askAgain)
		}
		time.Sleep(time.Second)
		changed := d.Changed()
		if try(t, d, "new", keyA) != nil || !d.Known("new") || !fired(changed) {
			t.Error("want it to be known now, and Changed to say so")
		}
	})
}

// Who waits for a turn is let in by the whole scope if that comes first.
func TestScopeAnswersWhoWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := newSource()
		d := mustNew(t, Config{}, Deps{Source: src})
		for range askAtOnce {
			d.asked.turn <- struct{}{}
		}
		got := make(chan error, 1)
		go func() { got <- try(t, d, "d1", keyA) }()
		synctest.Wait()
		src.put(entry("d1", keyA))
		if _, err := d.refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := <-got; err != nil || src.asks("d1") != 0 {
			t.Errorf("%v, asked %d times; want it to be known from the scope", err, src.asks("d1"))
		}
	})
}

// Who is known and cannot be found singly stays.
func TestSingleFailureKeeps(t *testing.T) {
	src := newSource()
	d := mustNew(t, Config{}, Deps{Source: src, Keep: kept(t, entry("d1", keyA))})
	if try(t, d, "d1", keyB) != hub.ErrUnauthorized || src.asks("d1") != 1 {
		t.Error("want the cloud to be asked and the wrong key refused")
	}
	if !d.Known("d1") || try(t, d, "d1", keyA) != nil {
		t.Error("d1 is gone")
	}
}

// Who was found singly and then vanished from the whole is not told "no" until the
// cloud has been asked again.
func TestRemovedSinceAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := newSource(entry("d1", keyA))
		d := mustNew(t, Config{}, Deps{Source: src})
		if try(t, d, "d1", keyA) != nil {
			t.Fatal("d1 is not known")
		}
		src.drop("d1")
		if _, err := d.refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		if try(t, d, "d1", keyA) != hub.ErrUnsure {
			t.Error("want ErrUnsure")
		}
		time.Sleep(askAgain)
		if try(t, d, "d1", keyA) != hub.ErrUnauthorized {
			t.Error("later: want ErrUnauthorized")
		}
	})
}

// A bad token that no key could make good is not worth a question.
func TestNotAskedForNothing(t *testing.T) {
	src := newSource(entry("d1", keyA))
	d := mustNew(t, Config{}, Deps{Source: src, Hosts: []string{testHost}})
	for _, pass := range []string{"", "x", token("d2", keyA), strings.Replace(token("d1", keyA), testHost, "other.host", 1)} {
		if _, err := d.Device(t.Context(), user("d1"), pass); !errors.Is(err, hub.ErrUnauthorized) {
			t.Errorf("%v, want ErrUnauthorized", err)
		}
	}
	if n := src.asks("d1"); n != 0 {
		t.Errorf("asked %d times", n)
	}
}

func TestWrongAnswer(t *testing.T) {
	src := newSource()
	src.scope["d1"] = entry("d2", keyA) // a cloud that mixes things up
	d := mustNew(t, Config{}, Deps{Source: src})
	if try(t, d, "d1", keyA) != hub.ErrUnsure || d.Known("d1") || d.Known("d2") {
		t.Error("want ErrUnsure and nobody to be known")
	}
}

func TestAskedOnceForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := newSource(entry("d1", keyA))
		src.hang = 5 * time.Second
		d := mustNew(t, Config{}, Deps{Source: src})
		first, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for i := range 20 {
			ctx := t.Context()
			if i == 0 {
				ctx = first
			}
			wg.Go(func() {
				_, err := d.Device(ctx, user("d1"), token("d1", keyA))
				if i > 0 && err != nil {
					t.Errorf("%d: %v", i, err)
				}
				if i == 0 && sentinel(t, err) != hub.ErrUnsure {
					t.Errorf("who hangs up: %v, want ErrUnsure", err)
				}
			})
			synctest.Wait() // the first one is the one whose ctx ends
		}
		cancel()
		wg.Wait()
		if n := src.asks("d1"); n != 1 {
			t.Errorf("asked %d times", n)
		}
	})
}

func TestQuestionHasAnEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := newSource(entry("d1", keyA))
		src.hang = time.Hour
		d := mustNew(t, Config{}, Deps{Source: src})
		begin := time.Now()
		if try(t, d, "d1", keyA) != hub.ErrUnsure || time.Since(begin) != askTimeout {
			t.Errorf("ended after %v, want %v", time.Since(begin), askTimeout)
		}
	})
}

// Made-up names must not become a stream of questions, nor fill the memory.
func TestFloodOfNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := newSource()
		src.hang = time.Second
		d := mustNew(t, Config{}, Deps{Source: src})
		var wg sync.WaitGroup
		var mu sync.Mutex
		got := map[error]int{}
		for i := range 100 {
			wg.Go(func() {
				err := try(t, d, hub.Identity(fmt.Sprintf("x%d", i)), keyA)
				mu.Lock()
				defer mu.Unlock()
				got[err]++
			})
		}
		wg.Wait()
		// One second each, ten seconds of patience.
		if want := askAtOnce * 10; got[hub.ErrUnauthorized] > want || got[hub.ErrUnauthorized] < want-askAtOnce || got[nil] != 0 {
			t.Errorf("answers %v, want %d asked and the others unsure", got, want)
		}
		if n := src.most(); n != askAtOnce {
			t.Errorf("%d questions at once, want %d", n, askAtOnce)
		}
		time.Sleep(askAgain)
		src.mu.Lock()
		src.hang = 0
		src.mu.Unlock()
		for i := range askKept + 100 {
			try(t, d, hub.Identity(fmt.Sprintf("y%d", i)), keyA)
		}
		if n := len(d.asked.answers); n > askKept {
			t.Errorf("%d answers held, want %d at most", n, askKept)
		}
		if try(t, d, "z", keyA) != hub.ErrUnsure {
			t.Error("no room: want ErrUnsure")
		}
		time.Sleep(askAgain)
		if try(t, d, "z", keyA) != hub.ErrUnauthorized || len(d.asked.answers) != 1 {
			t.Errorf("later: want room again (%d answers)", len(d.asked.answers))
		}
	})
}

func TestNoSecretIsLogged(t *testing.T) {
	src, out, keep := newSource(entry("d1", keyA), entry("d2", keyB)), &listener{}, &fakeKeeper{}
	keep.refuse(errors.New("disk is full"))
	d := mustNew(t, Config{}, Deps{Source: src, Log: out.log(), Keep: keep})
	var all strings.Builder
	for _, id := range []hub.Identity{"d1", "d2", "d3"} {
		pass := token(id, keyC)
		_, err := d.Device(t.Context(), user(id), pass)
		sig := pass[strings.Index(pass, "sig="):strings.Index(pass, "&se=")]
		fmt.Fprintln(&all, err)
		if has(err.Error(), sig) {
			t.Errorf("error shows the signature: %v", err)
		}
	}
	_, err := d.refresh(t.Context())
	fmt.Fprintln(&all, err, d.Status())
	text := all.String() + out.String()
	if !has(out.String(), "identity is not kept") {
		t.Errorf("nothing was logged: %s", out)
	}
	for _, key := range [][]byte{keyA, keyB, keyC, sealer} {
		if has(text, string(key)) || has(text, fmt.Sprint(key)) {
			t.Errorf("a key is shown: %s", text)
		}
	}
}

func TestAllAtOnce(t *testing.T) {
	src, link := newSource(), newLink(true)
	d := mustNew(t, Config{}, Deps{Source: src, Keep: &fakeKeeper{}, Online: link})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ran := make(chan error, 1)
	go func() { ran <- d.Run(ctx) }()
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 200 {
				id := hub.Identity(fmt.Sprintf("d%d", i%10))
				switch g {
				case 0:
					src.put(entry(id, keyA))
					link.set(i%3 > 0)
				case 1:
					d.refresh(ctx)
					src.drop(id)
				default:
					changed := d.Changed()
					d.Device(ctx, user(id), token(id, keyA))
					d.Known(id)
					d.Status()
					fired(changed)
				}
			}
		})
	}
	wg.Wait()
	cancel()
	if err := <-ran; err != nil {
		t.Errorf("Run: %v", err)
	}
}
