package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
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
// under way.
func storeLoad() load { return load{16, 100} }

// measureStores compares the stores on the disk of the work folder and, where
// there can be one, on a disk that is as slow as an SD card.
func (p *peersRun) measureStores(ctx context.Context) error {
	fast := place{"fast", "stores on this disk", p.dir}
	if err := p.measurePlace(ctx, fast, []string{"storage", "jetstream", "default", "badger"}); err != nil {
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
	l := storeLoad()
	rates := rounds{}
	for round := range p.paces.rounds {
		p.tell("%s, %s: round %d of %d …", at.name, l, round+1, p.paces.rounds)
		for i := range ids {
			id := ids[(i+round)%len(ids)]
			m, err := p.measureStore(ctx, id, at, l)
			if err != nil {
				return fmt.Errorf("measure %s, %s: %w", at.name, storeNames[id], err)
			}
			rates[id] = append(rates[id], m.rate())
		}
	}
	p.reportStores(at, l, ids, rates)
	return os.RemoveAll(storeDir(at, "storage"))
}

func storeDir(at place, id string) string { return filepath.Join(at.dir, "store-"+id) }

// measureStore measures one store once. Holdfast's goes on with what is there,
// for a gateway's journal is written over for years; the others begin anew each
// time, which costs them nothing, and are killed with what is still under way,
// which would take those that flush for each message half a minute on a card.
func (p *peersRun) measureStore(ctx context.Context, id string, at place, l load) (burst, error) {
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
func (p *peersRun) reportStores(at place, l load, ids []string, rates rounds) {
	head := fmt.Sprintf("%s, %s: ", at.name, l)
	for _, id := range ids {
		p.report.add(rates.row("peer-"+id+"-"+at.id, head+storeNames[id], "messages/s", id))
	}
	why := "where a flush is fast, both are bound by the processor"
	nats := pairs("S10", head+"storage against NATS JetStream, sync always", rates["storage"], rates["jetstream"])
	bad := pairs("S10", head+"storage against badger, one transaction a message", rates["storage"], rates["badger"])
	if at.id == "sd" {
		p.report.add(nats.judged(">= 150").because(slowly(rates)), bad.judged(">= 100").because(slowly(rates)))
		return
	}
	p.report.add(nats.judged(">= 30").because(why), bad)
	if len(rates["default"]) > 0 {
		p.report.add(pairs("peer-default-"+at.id, head+"storage against NATS JetStream, default sync, which flushes every two minutes", rates["storage"], rates["default"]))
	}
}

func slowly(rates rounds) string {
	return fmt.Sprintf("storage had %s messages/s, JetStream %s, badger %s", number(middle(rates["storage"])),
		number(middle(rates["jetstream"])), number(middle(rates["badger"])))
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
