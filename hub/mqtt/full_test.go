package mqtt

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"holdfast.dev/holdfast/hub"
	"holdfast.dev/holdfast/storage"
)

// The whole way with a real store that is full: devices wait, the drain makes room
// for them, and all that they sent is in the queue once and in order.
func TestFullStore(t *testing.T) {
	db, err := storage.Open(t.TempDir(), storage.Options{SegmentBytes: 1 << 20, MaxBytes: 4 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	core := hub.NewCore(db, storage.SystemClock(), func(m *hub.Message) []hub.Dest {
		return []hub.Dest{{Queue: "up", Priority: 5}}
	})
	_, g := newFakes()
	b, err := New(Config{Listen: "127.0.0.1:0", Window: 20}, stored(t, Deps{Gate: g, Gateway: "gw", Log: slog.New(slog.DiscardHandler)}))
	if err != nil {
		t.Fatal(err)
	}
	run(t, b, core)

	const count = 200 // of 20 KiB, for each of two: about twice what fits
	acks := make(chan error, 2)
	send := func(id string) {
		c := device(t, b, id)
		go func() {
			for i := range count {
				c.publish("devices/"+id+"/messages/events/", 1, uint16(i+1), fmt.Sprintf("%d %s", i, strings.Repeat("x", 20<<10)))
			}
		}()
		go func() {
			for i := range count {
				pk, err := c.read()
				if err == nil && (pk.FixedHeader.Type != packets.Puback || pk.PacketID != uint16(i+1)) {
					err = fmt.Errorf("%s read %s %d, want PUBACK %d", id, packets.PacketNames[pk.FixedHeader.Type], pk.PacketID, i+1)
				}
				if err != nil {
					acks <- fmt.Errorf("%s message %d: %w", id, i, err)
					return
				}
			}
			acks <- nil
		}()
	}
	send("d1")
	send("d2")
	eventually(t, "the store is full", db.Full)

	q := db.Queue(hub.Lane("up", 5))
	seen, last := map[string]bool{}, map[string]int{"d1": -1, "d2": -1}
	var after storage.Position
	end := time.Now().Add(2 * patience)
	for got := 0; got < 2*count; {
		if time.Now().After(end) {
			t.Fatalf("%d of %d are in the queue", got, 2*count)
		}
		items, at, err := q.Read(after, storage.Limit{Records: 10}, nil)
		if err != nil {
			t.Fatal(err)
		}
		var ps []storage.Position
		for _, item := range items {
			m, err := hub.Decode(&item)
			if err != nil {
				t.Fatal(err)
			}
			var n int
			fmt.Sscan(string(m.Body), &n)
			key := fmt.Sprint(item.Sender, " ", n)
			if seen[key] {
				t.Errorf("message %s came twice", key)
			}
			seen[key] = true
			if n != last[item.Sender]+1 {
				t.Errorf("message %s came after %d", key, last[item.Sender])
			}
			last[item.Sender] = n
			ps = append(ps, item.Position)
		}
		after, got = at, got+len(items)
		q.Settle(ps, storage.Delivered, nil)
		if len(items) == 0 {
			<-time.After(10 * time.Millisecond)
		}
	}
	if len(seen) != 2*count {
		t.Errorf("%d messages came, want %d", len(seen), 2*count)
	}
	for range 2 {
		select {
		case err := <-acks:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(patience):
			t.Errorf("acknowledgements are missing")
		}
	}
}
