package identity

import (
	"maps"
	"slices"
)

// AccountChanges are the names of the accounts that a replacement was about, sorted.
type AccountChanges struct {
	Added, Removed []string
	Changed        []string // another password, device or filter
}

// Any says whether anything has changed.
func (c AccountChanges) Any() bool { return len(c.Added)+len(c.Removed)+len(c.Changed) > 0 }

// ReplaceAccounts makes list the accounts, while clients come and go. It is judged
// as New judges it, and taken as a whole or not at all: the error has a line for
// each account that cannot be. Those who wait on Changed are told if there is
// anything to tell. Who has proven an account's password need not do so again
// because others have changed.
func (d *Directory) ReplaceAccounts(list []AccountConfig) (AccountChanges, error) {
	d.replacing.Lock()
	defer d.replacing.Unlock()
	before := d.accounts.Load()
	after, err := readAccounts(list, before.judge, before)
	if err != nil {
		return AccountChanges{}, err
	}
	changes := differences(before, after)
	if !changes.Any() {
		return changes, nil
	}
	d.accounts.Store(after)
	after.forget()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.announce()
	return changes, nil
}

// Rights gives an account as it is now; false: there is none of that name.
func (d *Directory) Rights(name string) (Account, bool) {
	a, ok := d.accounts.Load().byName[name]
	return a.Account, ok
}

func differences(before, after *accounts) (c AccountChanges) {
	for _, name := range slices.Sorted(maps.Keys(before.byName)) {
		old := before.byName[name]
		switch a, ok := after.byName[name]; {
		case !ok:
			c.Removed = append(c.Removed, name)
		case !a.equal(old):
			c.Changed = append(c.Changed, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(after.byName)) {
		if _, ok := before.byName[name]; !ok {
			c.Added = append(c.Added, name)
		}
	}
	return c
}

func (a account) equal(o account) bool {
	return a.hash == o.hash && a.From == o.From && slices.Equal(a.Publish, o.Publish) && slices.Equal(a.Subscribe, o.Subscribe)
}

// forget drops what was proven of passwords that are no more.
func (a *accounts) forget() {
	a.mu.Lock()
	defer a.mu.Unlock()
	maps.DeleteFunc(a.proven, func(name string, p proven) bool { return a.byName[name].hash != p.hash })
}
