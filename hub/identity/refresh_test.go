package identity

import (
	"context"
	"encoding/base64"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"holdfast.dev/holdfast/hub"
)

// start runs d until the test ends; call it inside synctest.
func start(t *testing.T, d *Directory) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	synctest.Wait()
	return func() {
		t.Helper()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
}

// since gives the times of the fetches, counted from from.
func since(from time.Time, at []time.Time) (out []time.Duration) {
	for _, x := range at {
		out = append(out, x.Sub(from))
	}
	return out
}

func TestRunEachHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := newSource(entry("d1", keyA))
		d := mustNew(t, Config{}, Deps{Source: src})
		from := time.Now()
		defer start(t, d)()
		if !d.Known("d1") {
			t.Error("d1 is not known after the start")
		}
		time.Sleep(2*time.Hour + time.Minute)
		if got := since(from, src.fetches()); len(got) != 3 || got[1] != time.Hour || got[2] != 2*time.Hour {
			t.Errorf("fetched at %v, want 0, 1h, 2h", got)
		}
	})
}

func TestRunBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, out := newSource(entry("d1", keyA)), &listener{}
		src.setDown(true)
		d := mustNew(t, Config{}, Deps{Source: src, Keep: kept(t, entry("d0", keyA)), Log: out.log()})
		from := time.Now()
		defer start(t, d)()
		time.Sleep(20 * time.Minute)
		at := since(from, src.fetches())
		for i := 1; i < len(at); i++ {
			if gap := at[i] - at[i-1]; gap < backOffFirst || gap > backOffLast {
				t.Errorf("gap %d is %v, want 5s to 60s", i, gap)
			}
		}
		if len(at) < 20 || len(at) > 120 {
			t.Errorf("%d fetches in 20 min, want some 40", len(at))
		}
		if st := d.Status(); !errors.Is(st.Err, errCloud) || !st.Complete {
			t.Errorf("status %+v, want the error and the old scope", st)
		}
		if try(t, d, "d0", keyA) != nil {
			t.Error("the last good scope is not in force")
		}
		src.setDown(false)
		time.Sleep(backOffLast)
		synctest.Wait()
		if st := d.Status(); st.Err != nil || !d.Known("d1") || d.Known("d0") {
			t.Errorf("after the return: status %+v, d1 known %v, d0 known %v", st, d.Known("d1"), d.Known("d0"))
		}
		if !has(out.String(), "scope is not refreshed", "scope has changed") {
			t.Errorf("log: %s", out)
		}
	})
}

func TestRunFollowsTheLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, link := newSource(entry("d1", keyA)), newLink(false)
		d := mustNew(t, Config{}, Deps{Source: src, Online: link})
		from := time.Now()
		defer start(t, d)()
		pass := func(wait time.Duration, want int) {
			t.Helper()
			time.Sleep(wait)
			synctest.Wait()
			if n := len(src.fetches()); n != want {
				t.Errorf("%v after the start: %d fetches, want %d (%v)", time.Since(from), n, want, since(from, src.fetches()))
			}
		}
		step := func(wait time.Duration, up bool, want int) {
			t.Helper()
			time.Sleep(wait)
			link.set(up)
			pass(0, want)
		}
		step(3*time.Hour, true, 1) // nothing while it is down
		step(time.Minute, false, 1)
		step(time.Minute, true, 2) // at once
		step(time.Second, false, 2)
		step(time.Second, true, 2) // flaps: within the gap
		pass(refreshGap-2*time.Second, 3)
		src.setDown(true)
		step(time.Minute, false, 3)
		step(time.Minute, true, 4)    // fails, waits
		step(time.Second, false, 4)   // the link goes and comes during the wait:
		step(time.Second, true, 5)    // at once, not after the back-off
		step(time.Second, false, 5)   //
		step(5*time.Hour, false, 5)   // no retries while it is down
		src.setDown(false)            //
		step(time.Second, true, 6)    //
		step(61*time.Minute, true, 8) // the hour, and a change that says "up"
	})
}

func TestRunFollowsDoubt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := newSource(entry("d1", keyA), entry("d2", keyA))
		d := mustNew(t, Config{}, Deps{Source: src, Online: newLink(true)})
		defer start(t, d)()
		time.Sleep(10 * time.Second)
		src.drop("d2") // removed in the cloud, which refuses it from now on
		for range 5 {
			d.Doubt()
		}
		time.Sleep(doubtGap - 11*time.Second)
		if !d.Known("d2") {
			t.Error("fetched within the gap")
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if n := len(src.fetches()); d.Known("d2") || n != 2 {
			t.Errorf("d2 is known: %v, after %d fetches, want 2", d.Known("d2"), n)
		}
	})
}

func TestRunGivesUpWithTheLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, link, out := newSource(entry("d1", keyA)), newLink(true), &listener{}
		src.hang = 90 * time.Second // packets are dropped
		d := mustNew(t, Config{}, Deps{Source: src, Online: link, Log: out.log()})
		defer start(t, d)()
		time.Sleep(time.Second)
		link.set(false)
		synctest.Wait()
		src.mu.Lock()
		src.hang = 0
		src.mu.Unlock()
		link.set(true)
		synctest.Wait()
		if !d.Known("d1") {
			t.Error("the fetch that hung held up the next one")
		}
		if has(out.String(), "not refreshed") {
			t.Errorf("a lost link is no warning: %s", out)
		}
	})
}

func TestRunEndsInTheMiddle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := newSource()
		src.hang = time.Hour
		stop := start(t, mustNew(t, Config{}, Deps{Source: src, Online: newLink(true)}))
		begin := time.Now()
		stop()
		if took := time.Since(begin); took != 0 {
			t.Errorf("Run ended %v after ctx", took)
		}
		start(t, mustNew(t, Config{}, Deps{}))() // and without a cloud
	})
}

func TestFetchHasAnEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := newSource()
		src.hang = 24 * time.Hour
		d := mustNew(t, Config{}, Deps{Source: src})
		defer start(t, d)()
		time.Sleep(refreshTimeout + backOffLast)
		if n := len(src.fetches()); n != 2 || !errors.Is(d.Status().Err, context.DeadlineExceeded) {
			t.Errorf("%d fetches, error %v; want the second one under way", n, d.Status().Err)
		}
	})
}

func TestVanish(t *testing.T) {
	key := base64.StdEncoding.EncodeToString(keyC)
	src := newSource(entry("d1", keyA), entry("d2", keyA), entry("fix", keyA))
	keep := &fakeKeeper{}
	d := mustNew(t, Config{Devices: []DeviceConfig{{ID: "fix", PrimaryKey: key}}}, Deps{Source: src, Keep: keep})
	refresh := func(want bool) {
		t.Helper()
		changed := d.Changed()
		if _, err := d.refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		if fired(changed) != want {
			t.Errorf("Changed fired %v, want %v", !want, want)
		}
	}
	if d.Known("d1") || !d.Known("fix") {
		t.Error("before: want the file's alone to be known")
	}
	refresh(true)
	if st := d.Status(); st.Known != 3 || st.FromFile != 1 || st.FromScope != 3 || !st.Complete || st.Err != nil {
		t.Errorf("status %+v", st)
	}
	if try(t, d, "fix", keyC) != nil || try(t, d, "fix", keyA) != hub.ErrUnauthorized {
		t.Error("fix: want the file's key, not the scope's")
	}
	refresh(false)

	src.drop("d1")
	src.drop("fix")
	refresh(true)
	if d.Known("d1") || !d.Known("d2") || !d.Known("fix") {
		t.Error("after: want d2 and fix to be known, d1 not")
	}
	if _, there := keep.Get("entry/d1"); there {
		t.Error("d1 is still kept")
	}

	off := entry("d2", keyA)
	off.Enabled = false
	src.put(off)
	refresh(true)
	if d.Known("d2") {
		t.Error("d2 is known although it is disabled")
	}
	src.put(entry("d2", keyB)) // enabled again, with a new key
	refresh(true)
	if try(t, d, "d2", keyB) != nil {
		t.Error("d2: new key is not taken")
	}
	src.setDown(true)
	changed := d.Changed()
	if _, err := d.refresh(t.Context()); !errors.Is(err, errCloud) {
		t.Errorf("refresh: %v", err)
	}
	if !d.Known("d2") || fired(changed) || !errors.Is(d.Status().Err, errCloud) {
		t.Error("a refresh that fails must change nothing but the status")
	}
}

// An entry that was learned while the whole scope was on its way is newer than it.
func TestLearnedDuringFetch(t *testing.T) {
	src := newSource(entry("d1", keyA))
	keep := &fakeKeeper{}
	d := mustNew(t, Config{}, Deps{Source: src, Keep: keep})
	src.inside = func() {
		src.put(entry("d1", keyB), entry("d2", keyB))
		for _, id := range []hub.Identity{"d1", "d2"} {
			if err := d.ask(t.Context(), id); err != nil {
				t.Errorf("ask %s: %v", id, err)
			}
		}
	}
	if _, err := d.refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 2 { // in memory, and after a restart
		for _, id := range []hub.Identity{"d1", "d2"} {
			if try(t, d, id, keyB) != nil {
				t.Errorf("%s: what was learned singly is gone", id)
			}
		}
		d = mustNew(t, Config{}, Deps{Keep: keep})
	}
	d = mustNew(t, Config{}, Deps{Source: src, Keep: keep})
	src.inside = nil
	src.drop("d2")
	if _, err := d.refresh(t.Context()); err != nil || d.Known("d2") {
		t.Errorf("next refresh: %v, d2 known %v; it must remove it", err, d.Known("d2"))
	}
}

func TestRestartOffline(t *testing.T) {
	src, keep := newSource(entry("d1", keyA, keyB), entry("d1/m1", keyC)), &fakeKeeper{}
	d := mustNew(t, Config{}, Deps{Source: src, Keep: keep})
	if _, err := d.refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	src.setDown(true)
	late := fakeClock{noon.Add(30 * 24 * time.Hour), 0}
	d = mustNew(t, Config{}, Deps{Source: src, Keep: keep, Online: newLink(false), Clock: late})
	for id, key := range map[hub.Identity][]byte{"d1": keyB, "d1/m1": keyC} {
		if err := try(t, d, id, key); err != nil {
			t.Errorf("%s: %v", id, err)
		}
	}
	if st := d.Status(); !st.Complete || st.Known != 2 || !st.Synced.Wall.Equal(noon) || st.Age != 30*24*time.Hour {
		t.Errorf("status %+v", st)
	}
	if try(t, d, "d9", keyA) != hub.ErrUnsure {
		t.Error("d9: want ErrUnsure, it may have been added since")
	}
}

func TestKeepFails(t *testing.T) {
	src, keep := newSource(entry("d1", keyA)), &fakeKeeper{}
	d := mustNew(t, Config{}, Deps{Source: src, Keep: keep})
	full := errors.New("disk is full")
	keep.refuse(full)
	if _, err := d.refresh(t.Context()); !errors.Is(err, full) {
		t.Errorf("refresh: %v", err)
	}
	if !d.Known("d1") {
		t.Error("d1: what was fetched is not used because the disk is full")
	}
	src.put(entry("d2", keyA))
	for _, id := range []hub.Identity{"d1", "d2"} {
		if try(t, d, id, keyA) != nil {
			t.Errorf("%s: not served although it is known", id)
		}
	}
	if !errors.Is(d.Status().Err, full) {
		t.Errorf("status: %v", d.Status().Err)
	}
	keep.refuse(nil)
	if _, err := d.refresh(t.Context()); err != nil || d.Status().Err != nil {
		t.Errorf("refresh: %v, status %v", err, d.Status().Err)
	}
	if len(keep.Keys()) != 3 {
		t.Errorf("kept: %q", keep.Keys())
	}
}
