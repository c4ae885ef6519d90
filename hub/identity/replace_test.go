package identity

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"holdfast.dev/holdfast/hub"
)

func TestReplaceAccounts(t *testing.T) {
	pump, valve, other := cheap(t, "pump"), cheap(t, "valve"), cheap(t, "other")
	d := mustNew(t, Config{Accounts: []AccountConfig{
		{Name: "pump", Password: pump, Publish: []string{"plant/#"}}, {Name: "valve", Password: valve}, {Name: "gone", Password: other},
	}}, Deps{})
	for _, name := range []string{"pump", "valve"} {
		if _, err := d.Account(t.Context(), name, name); err != nil {
			t.Fatal(err)
		}
	}
	before := map[string]Account{}
	for _, name := range []string{"pump", "valve", "gone"} {
		before[name], _ = d.Rights(name)
	}
	changed := d.Changed()
	c, err := d.ReplaceAccounts([]AccountConfig{
		{Name: "pump", Password: pump, Publish: []string{"plant/+"}, Device: "d1"}, {Name: "valve", Password: other}, {Name: "new", Password: other},
	})
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(c) != "{[new] [gone] [pump valve]}" {
		t.Errorf("changes are %v", c)
	}
	select {
	case <-changed:
	default:
		t.Error("nobody was told")
	}
	if a, ok := d.Rights("pump"); !ok || a.Proof != before["pump"].Proof || a.From != "d1" || !slices.Equal(a.Publish, []string{"plant/+"}) {
		t.Errorf("pump is %+v, was %+v", a, before["pump"])
	}
	if a, ok := d.Rights("valve"); !ok || a.Proof == before["valve"].Proof {
		t.Errorf("valve's password is number %d as before", a.Proof)
	}
	if a, ok := d.Rights("gone"); ok || a.Name != "" {
		t.Errorf("gone is %+v", a)
	}
	for _, x := range []struct {
		name, password string
		good           bool
	}{
		{"pump", "pump", true}, {"valve", "valve", false}, {"valve", "other", true}, {"gone", "other", false}, {"new", "other", true},
	} {
		if _, err := d.Account(t.Context(), x.name, x.password); (err == nil) != x.good {
			t.Errorf("Account(%q, %q): %v, want good %v", x.name, x.password, err, x.good)
		}
	}
}

// What is not changed is not told, and what was proven stays so.
func TestReplaceAccountsBySame(t *testing.T) {
	list := []AccountConfig{{Name: "a", Password: cheap(t, "a")}, {Name: "b", Password: cheap(t, "b"), Subscribe: []string{"#"}}}
	d := mustNew(t, Config{Accounts: list}, Deps{})
	if _, err := d.Account(t.Context(), "a", "a"); err != nil {
		t.Fatal(err)
	}
	changed := d.Changed()
	if c, err := d.ReplaceAccounts([]AccountConfig{list[1], list[0]}); err != nil || c.Any() {
		t.Errorf("changes %+v, %v", c, err)
	}
	select {
	case <-changed:
		t.Error("a change was told")
	default:
	}
	for range hashesAtOnce { // all turns are taken
		d.accounts.Load().turn <- struct{}{}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := d.ReplaceAccounts(append(list[:1:1], AccountConfig{Name: "c", Password: list[1].Password})); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Account(ended, "a", "a"); err != nil {
		t.Errorf("a has to prove the password again: %v", err)
	}
	if _, err := d.Account(ended, "c", "b"); !errors.Is(err, hub.ErrUnsure) {
		t.Errorf("more are hashed at a time than before: %v", err)
	}
}

// A list with faults is refused whole, each fault named and no secret in it.
func TestReplaceAccountsByBad(t *testing.T) {
	hash := cheap(t, "a")
	d := mustNew(t, Config{Accounts: []AccountConfig{{Name: "a", Password: hash}}}, Deps{})
	changed := d.Changed()
	_, err := d.ReplaceAccounts([]AccountConfig{
		{Name: "b", Password: hash}, {Name: "c", Password: "plain-secret"}, {Name: "d", Password: hash, Publish: []string{"a/#/b"}},
	})
	if err == nil || strings.Count(err.Error(), "\n") != 1 || !strings.Contains(err.Error(), `[[account]] "c"`) || strings.Contains(err.Error(), "plain-secret") {
		t.Errorf("error is %v", err)
	}
	select {
	case <-changed:
		t.Error("a change was told")
	default:
	}
	if _, err := d.Account(t.Context(), "a", "a"); err != nil {
		t.Errorf("a: %v", err)
	}
	if _, ok := d.Rights("b"); ok {
		t.Error("b is there")
	}
}

// A password that is being judged while it changes does not become the new one.
func TestReplaceWhileJudged(t *testing.T) {
	first, second := cheap(t, "first"), cheap(t, "second")
	d := mustNew(t, Config{Accounts: []AccountConfig{{Name: "a", Password: first}}}, Deps{})
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			if i%20 == 0 {
				hash := first
				if i%40 == 0 {
					hash = second
				}
				if _, err := d.ReplaceAccounts([]AccountConfig{{Name: "a", Password: hash}}); err != nil {
					t.Error(err)
				}
			}
			_, _ = d.Account(t.Context(), "a", []string{"first", "second"}[i%2])
		})
	}
	wg.Wait()
	if _, err := d.ReplaceAccounts([]AccountConfig{{Name: "a", Password: second}}); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Account(t.Context(), "a", "first"); !errors.Is(err, hub.ErrUnauthorized) {
		t.Errorf("the old password: %v", err)
	}
	if _, err := d.Account(t.Context(), "a", "second"); err != nil {
		t.Errorf("the new password: %v", err)
	}
}
