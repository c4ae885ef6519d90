package main

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// rounds are the values that one contender had, one a round.
type rounds map[string][]float64

// loads are those of the tables.
func (p *peersRun) loads() []load {
	if p.quick {
		return []load{{10, 100}, {1, 1}}
	}
	return []load{{10, 100}, {1, 20}, {1, 1}}
}

// flushID is where the waits of the bare flush are kept.
const flushID = "flush"

// measureLoad lets all brokers take a load in turn, in an order that changes from
// round to round, so that none always comes after the same.
func (p *peersRun) measureLoad(ctx context.Context, l load) error {
	ids := p.present()
	p.tell("%s: starting %d brokers …", l, len(ids))
	if err := p.start(ctx, ids, l.String()); err != nil {
		return err
	}
	rates, waits, late := rounds{}, rounds{}, rounds{}
	for round := range p.paces.rounds {
		p.tell("%s: round %d of %d …", l, round+1, p.paces.rounds)
		p.freeze(nil)
		bare, err := bareFlush(ctx, filepath.Join(p.dir, "flush"), p.paces.length)
		if err != nil {
			return err
		}
		waits[flushID] = append(waits[flushID], micros(bare.wait(0.5)))
		rates[flushID] = append(rates[flushID], bare.rate())
		first := round % len(p.brokers)
		for _, b := range append(slices.Clone(p.brokers[first:]), p.brokers[:first]...) {
			p.freeze(b)
			m, err := b.measure(ctx, l, p.paces, round*100_000_000)
			if err != nil {
				if err := p.giveUp(ctx, b, l.String(), err); err != nil {
					return err
				}
				continue
			}
			rates[b.id] = append(rates[b.id], m.rate())
			waits[b.id] = append(waits[b.id], micros(m.wait(0.5)))
			late[b.id] = append(late[b.id], micros(m.wait(0.99)))
		}
	}
	p.reportLoad(l, rates, waits, late)
	return p.stop()
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// reportLoad adds the rows of a load, and those that are held against a target.
func (p *peersRun) reportLoad(l load, rates, waits, late rounds) {
	for _, id := range p.present() {
		if len(rates[id]) == 0 {
			continue // given up, which its row says
		}
		name := l.String() + ": " + brokerNames[id]
		p.report.add(rates.figure("peer-"+id, name, "messages/s"))
		if l.clients == 1 {
			p.report.add(waits.row("peer-"+id, name+", p50", "µs", id), late.row("peer-"+id, name+", p99", "µs", id))
		}
	}
	p.report.add(rates.row("peer-"+flushID, l.String()+": the bare flush of a page", "/s", flushID))
	over := func(id, what string, target string, peers ...string) {
		p.over(id, l.String()+": Holdfast against "+what, target, rates, peers...)
	}
	switch l {
	case load{10, 100}:
		over("S11", "mochi without a store", ">= 1", "mochi")
		over("S11", "mosquitto without durability", ">= 1.5", "mosquitto", "mosquitto-persist")
		over("S13", "RabbitMQ", ">= 12", "rabbitmq")
		over("peer-mosquitto-always", "mosquitto that saves at each change", "", "mosquitto-always")
		over("peer-nats", "NATS default sync", "", "nats")
		over("peer-nats-always", "NATS sync always", "", "nats-always")
		over("peer-sink", "the client's own limit", "", "sink")
	case load{1, 20}:
		over("S13", "RabbitMQ", ">= 5", "rabbitmq")
	case load{1, 1}:
		p.report.add(pairs("S12", l.String()+": Holdfast's p50 against the bare flush's", waits["holdfast"], waits[flushID]).judged("<= 1.15").
			because("the way through a socket and back is beside the flush, and a disk that waits for the client flushes more slowly than one that is kept busy; the next row is against a flush behind the same socket"))
		if len(waits["sink-always"]) > 0 {
			p.report.add(pairs("peer-sink-always", l.String()+": Holdfast's p50 against a page flushed behind a socket", waits["holdfast"], waits["sink-always"]))
		}
		over("S12", "RabbitMQ", ">= 2", "rabbitmq")
		over("peer-mosquitto", "mosquitto, which keeps nothing", "", "mosquitto")
		over("peer-mochi", "mochi, which keeps nothing", "", "mochi")
	}
}

// over adds the ratio of Holdfast to the faster of some peers, or says why not.
func (p *peersRun) over(id, what, target string, rates rounds, peers ...string) {
	var fastest []float64
	for _, peer := range peers {
		if r := rates[peer]; len(r) > 0 && (fastest == nil || middle(r) > middle(fastest)) {
			fastest = r
		}
	}
	if fastest == nil {
		if target != "" {
			why := p.absent(peers[0])
			if why == "" {
				why = "it was not measured in this run"
			}
			p.report.skip(id, what, why)
		}
		return
	}
	f := pairs(id, what, rates["holdfast"], fastest)
	if target != "" {
		f = f.judged(target).because(fmt.Sprintf("the peer had %s messages/s, Holdfast %s", number(middle(fastest)), number(middle(rates["holdfast"]))))
	}
	p.report.add(f)
}

// pairs is the median of the ratios of each round: rounds are pairs, for what
// disturbs one of a pair disturbs the other, too.
func pairs(id, what string, a, b []float64) figure {
	var all []float64
	for i := range min(len(a), len(b)) {
		all = append(all, a[i]/b[i])
	}
	return spread(id, what, "x", all)
}

// figure is the row of the broker that a figure's id names.
func (r rounds) figure(id, what, unit string) figure {
	return r.row(id, what, unit, strings.TrimPrefix(id, "peer-"))
}

func (r rounds) row(id, what, unit, of string) figure { return spread(id, what, unit, r[of]) }

// spread is the median with least and most.
func spread(id, what, unit string, values []float64) figure {
	f := figure{ID: id, What: what, Unit: unit, Value: middle(values)}
	if len(values) > 1 {
		f.Low, f.High = slices.Min(values), slices.Max(values)
	}
	return f
}

const pageSize = 4096

// flushPage is what is written before a bare flush: not zeros, which a disk may not
// even write.
func flushPage() []byte { return []byte(strings.Repeat("holdfast", pageSize/8)) }

// bareFlush overwrites pages of a file that is there, each flushed alone: the
// least that a durable acknowledgement costs.
func bareFlush(ctx context.Context, path string, length time.Duration) (burst, error) {
	const pages = 1024
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return burst{}, fmt.Errorf("measure the bare flush: %w", err)
	}
	defer f.Close()
	if s, err := f.Stat(); err == nil && s.Size() == 0 { // written once, so that no block need be found later
		if _, err := f.Write(make([]byte, pageSize*pages)); err != nil {
			return burst{}, fmt.Errorf("measure the bare flush: %w", err)
		}
	}
	if err := f.Sync(); err != nil {
		return burst{}, fmt.Errorf("measure the bare flush: %w", err)
	}
	buf := flushPage()
	var out burst
	begun := time.Now()
	for last := begun; last.Sub(begun) < length && ctx.Err() == nil; {
		if _, err := f.WriteAt(buf, int64(out.acked%pages)*pageSize); err != nil {
			return burst{}, fmt.Errorf("measure the bare flush: %w", err)
		}
		if err := unix.Fdatasync(int(f.Fd())); err != nil {
			return burst{}, fmt.Errorf("measure the bare flush: %w", err)
		}
		now := time.Now()
		out.waits, last = append(out.waits, now.Sub(last)), now
		out.acked++
	}
	out.seconds = time.Since(begun).Seconds()
	slices.Sort(out.waits)
	return out, ctx.Err()
}

// middle is the median.
func middle(values []float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	s := slices.Sorted(slices.Values(values))
	if n := len(s); n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[len(s)/2]
}
