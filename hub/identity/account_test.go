package identity

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/crypto/bcrypt"

	"holdfast.dev/holdfast/hub"
)

func cheap(t *testing.T, password string) string {
	t.Helper()
	b, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestAccount(t *testing.T) {
	argon, _ := Hash([]byte("argon-pass"))
	d := mustNew(t, Config{Accounts: []AccountConfig{
		{Name: "pump", Password: cheap(t, "pump-pass"), Device: "d1/m1", Publish: []string{"plant/#"}, Subscribe: []string{"plant/+/set", "$share/g/x"}},
		{Name: "valve", Password: argon},
	}}, Deps{})
	for _, c := range []struct {
		name, password string
		good           bool
	}{
		{"pump", "pump-pass", true},
		{"pump", "pump-pass", true}, // by the proof
		{"valve", "argon-pass", true},
		{"valve", "argon-pass", true},
		{"pump", "argon-pass", false},
		{"pump", "", false},
		{"pump", "pump-pas", false},
		{"pump", "pump-passs", false},
		{"Pump", "pump-pass", false},
		{"nobody", "pump-pass", false}, // even if it is the decoy's
		{"nobody", "argon-pass", false},
		{"", "", false},
		{"pumppump", "-pass", false}, // name and password do not run together in the proof
	} {
		a, err := d.Account(t.Context(), c.name, c.password)
		if c.good && (err != nil || a.Name != c.name) || !c.good && (!errors.Is(err, hub.ErrUnauthorized) || a.Name != "") {
			t.Errorf("Account(%q, %q) = %+v, %v; want good %v", c.name, c.password, a, err, c.good)
		}
		if err != nil && c.password != "" && strings.Contains(err.Error(), c.password) {
			t.Errorf("error quotes the password: %v", err)
		}
	}
	a, _ := d.Account(t.Context(), "pump", "pump-pass")
	if a.From != "d1/m1" || !slices.Equal(a.Publish, []string{"plant/#"}) || !slices.Equal(a.Subscribe, []string{"plant/+/set", "$share/g/x"}) {
		t.Errorf("Account = %+v", a)
	}
}

func TestAccountWithoutAny(t *testing.T) {
	d := mustNew(t, Config{}, Deps{})
	if _, err := d.Account(t.Context(), "a", "b"); !errors.Is(err, hub.ErrUnauthorized) {
		t.Errorf("%v, want ErrUnauthorized", err)
	}
}

// Who has been right does not wait for a turn; who is new, unknown or wrong does.
func TestAccountTurns(t *testing.T) {
	d := mustNew(t, Config{Accounts: []AccountConfig{{Name: "pump", Password: cheap(t, "x")}}}, Deps{})
	if _, err := d.Account(t.Context(), "pump", "x"); err != nil {
		t.Fatal(err)
	}
	for range hashesAtOnce { // all turns are taken
		d.accounts.Load().turn <- struct{}{}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := d.Account(ended, "pump", "x"); err != nil {
		t.Errorf("password that was right before: %v", err)
	}
	for _, c := range [][2]string{{"pump", "y"}, {"nobody", "x"}} {
		if _, err := d.Account(ended, c[0], c[1]); !errors.Is(err, hub.ErrUnsure) || !errors.Is(err, context.Canceled) {
			t.Errorf("Account(%q, %q) = %v; want it to wait for its turn: ErrUnsure", c[0], c[1], err)
		}
	}
}

func TestDecoyIsSteady(t *testing.T) {
	var list []AccountConfig
	for _, n := range []string{"a", "b", "c", "d"} {
		list = append(list, AccountConfig{Name: n, Password: cheap(t, n)})
	}
	j, _ := newJudge()
	a, err := readAccounts(list, j, nil)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, n := range strings.Split("nobody someone root admin mqtt user test guest pi plc x y z", " ") {
		h1, _ := a.decoy(n)
		h2, _ := a.decoy(n)
		if h1 != h2 || h1 == "" {
			t.Errorf("decoy of %q is not steady", n)
		}
		seen[h1] = true
	}
	if len(seen) < 2 {
		t.Error("all names have one decoy")
	}
}

func TestAccountAtOnce(t *testing.T) {
	d := mustNew(t, Config{Accounts: []AccountConfig{{Name: "a", Password: cheap(t, "a")}, {Name: "b", Password: cheap(t, "b")}}}, Deps{})
	var wg sync.WaitGroup
	for i := range 64 {
		name, password := string(rune('a'+i%3)), string(rune('a'+i%2))
		wg.Go(func() {
			_, err := d.Account(t.Context(), name, password)
			if want := name == password; (err == nil) != want {
				t.Errorf("Account(%q, %q): %v, want good %v", name, password, err, want)
			}
		})
	}
	wg.Wait()
}
