package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"holdfast.dev/holdfast/storage/crashdisk"
)

// place is a disk that the stores are compared on.
type place struct {
	id, name, dir string
}

// storeNames are the stores that are compared without a broker before them.
var storeNames = map[string]string{
	"storage":   "Holdfast's storage",
	"badger":    "badger, one transaction a message",
	"jetstream": "NATS JetStream through its own client, sync always",
	"default":   "NATS JetStream through its own client, default sync",
}

// storeLoad is what both disks are loaded with: many producers, each with much
// under way. What flushes for each message is not faster with more under way, and
// on a card it would have half a minute of it before it answers.
func (at place) load(id string) load {
	if at.id == "sd" && id != "storage" {
		return load{16, 10}
	}
	return load{16, 100}
}

// measureStores compares the stores on the disk of the work folder and, where
// there can be one, on a disk that is as slow as an SD card.
func (p *peersRun) measureStores(ctx context.Context) error {
	fast := place{"fast", "stores on this disk", p.dir}
	ids := []string{"storage", "jetstream", "badger"}
	if !p.quick {
		ids = append(ids, "default")
	}
	if err := p.measurePlace(ctx, fast, ids); err != nil {
		return err
	}
	if p.quick {
		return nil
	}
	const sd = "stores on the SD card model"
	disk, err := crashdisk.Open(crashdisk.Options{Name: fmt.Sprintf("peers-%d", os.Getpid()), Folder: p.dir, Bytes: 1 << 30, Delay: crashdisk.SDCard()})
	if errors.Is(err, crashdisk.ErrMissing) {
		p.report.skip("S10", sd, err.Error())
		return nil
	}
	if err != nil {
		return err
	}
	err = p.measurePlace(ctx, place{"sd", sd, disk.Dir()}, []string{"storage", "jetstream", "badger"})
	return errors.Join(err, p.stop(), disk.Close())
}

// measurePlace lets the stores take turns on one disk.
func (p *peersRun) measurePlace(ctx context.Context, at place, ids []string) error {
	rates := rounds{}
	p.tell("%s: writing the ring once …", at.name)
	if _, err := p.measureStore(ctx, "storage", at); err != nil {
		return err
	}
	for round := range p.paces.rounds {
		p.tell("%s: round %d of %d …", at.name, round+1, p.paces.rounds)
		for i := range ids {
			id := ids[(i+round)%len(ids)]
			if round > 0 && len(rates[id]) == 0 {
				continue // it has failed
			}
			m, err := p.measureStore(ctx, id, at)
			switch {
			case err == nil:
				rates[id] = append(rates[id], m.rate())
			case id == "storage" || ctx.Err() != nil:
				return fmt.Errorf("measure %s, %s: %w", at.name, storeNames[id], err)
			default:
				why, _, _ := strings.Cut(err.Error(), "\n")
				p.report.skip("peer-"+id+"-"+at.id, at.name+": "+storeNames[id], why)
				if err := p.stop(); err != nil {
					return err
				}
			}
		}
	}
	p.reportStores(at, ids, rates)
	return os.RemoveAll(storeDir(at, "storage"))
}

func storeDir(at place, id string) string { return filepath.Join(at.dir, "store-"+id) }

// measureStore measures one store once. Holdfast's goes on with what is there,
// for a gateway's journal is written over for years; the others begin anew each
// time, which costs them nothing, and are killed with what is still under way,
// which would take those that flush for each message half a minute on a card.
func (p *peersRun) measureStore(ctx context.Context, id string, at place) (burst, error) {
	l := at.load(id)
	switch id {
	case "storage":
		return p.runStore(ctx, id, storeDir(at, id), l)
	case "badger":
		b, err := p.runStore(ctx, id, storeDir(at, id), l)
		return b, errors.Join(err, os.RemoveAll(storeDir(at, id)))
	}
	nats := map[string]string{"jetstream": "nats-always", "default": "nats"}[id]
	b, err := p.broker(nats, storeDir(at, id))
	if err != nil {
		return burst{}, err
	}
	p.brokers = append(p.brokers, b)
	if err := b.launch(ctx); err != nil {
		return burst{}, err
	}
	m, err := b.measureJetStream(ctx, l, p.paces)
	if err != nil {
		return burst{}, err
	}
	return m, p.stop()
}

// reportStores adds the rows of one disk.
func (p *peersRun) reportStores(at place, ids []string, rates rounds) {
	head := at.name + ": "
	for _, id := range ids {
		if len(rates[id]) > 0 {
			p.report.add(rates.row("peer-"+id+"-"+at.id, fmt.Sprintf("%s%s, %s", head, storeNames[id], at.load(id)), "messages/s", id))
		}
	}
	against := func(row, peer, target string) {
		if len(rates[peer]) == 0 {
			return // not in this run, or its row says why
		}
		f := pairs(row, head+"storage against "+storeNames[peer], rates["storage"], rates[peer])
		if target != "" {
			f = f.judged(target).because(fmt.Sprintf("the peer had %s messages/s, storage %s", number(middle(rates[peer])), number(middle(rates["storage"]))))
		}
		p.report.add(f)
	}
	if at.id == "sd" {
		against("S10", "jetstream", ">= 150")
		against("S10", "badger", ">= 100")
		return
	}
	against("S10", "jetstream", ">= 30")
	against("peer-badger-"+at.id, "badger", "")
	against("peer-default-"+at.id, "default", "")
}

// runStore runs the process that measures a store, and reads what it found.
func (p *peersRun) runStore(ctx context.Context, id, dir string, l load) (burst, error) {
	logs, err := os.MkdirTemp(p.dir, "store-")
	if err != nil {
		return burst{}, err
	}
	kids := newChildren(logs)
	defer kids.close()
	result := filepath.Join(logs, "result")
	args := append(p.self[1:len(p.self):len(p.self)], id, "--dir", dir, "--result", result,
		"--producers", fmt.Sprint(l.clients), "--in-flight", fmt.Sprint(l.window),
		"--warm", p.paces.warm.String(), "--for", p.paces.length.String())
	k, err := kids.start(id, p.self[0], args...)
	if err != nil {
		return burst{}, err
	}
	k.asked.Store(true) // its end is what is waited for
	select {
	case <-k.done:
	case <-ctx.Done():
		k.kill()
		return burst{}, ctx.Err()
	case <-time.After(p.paces.warm + p.paces.length + 2*time.Minute): // of a slow disk's opening and closing
		k.kill()
		return burst{}, k.obituary()
	}
	if k.err != nil {
		return burst{}, k.obituary()
	}
	var found storeResult
	b, err := os.ReadFile(result)
	if err == nil {
		err = json.Unmarshal(b, &found)
	}
	if err != nil {
		return burst{}, fmt.Errorf("read what was measured: %w", err)
	}
	return burst{acked: found.Acked, seconds: found.Seconds}, os.RemoveAll(logs)
}
