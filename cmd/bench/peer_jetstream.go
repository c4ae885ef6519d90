package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// measureJetStream publishes through JetStream's own client: a connection for each
// producer, each with a window of publishes under way.
func (b *broker) measureJetStream(ctx context.Context, l load, pace peersPaces) (burst, error) {
	r := &run{stop: make(chan struct{})}
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	var wg sync.WaitGroup
	for producer := range l.clients {
		js, nc, err := b.jetStream(ctx, l.window)
		if err != nil {
			fail(err)
			break
		}
		defer nc.Close()
		wg.Go(func() {
			if err := r.publishJetStream(ctx, js, producer, l.window); err != nil {
				fail(err)
			}
		})
	}
	out := r.count(ctx, pace, l)
	close(r.stop)
	wg.Wait()
	if err := context.Cause(ctx); err != nil {
		return out, b.diagnose(err)
	}
	if out.acked == 0 {
		return out, fmt.Errorf("%s: nothing acknowledged in %.1f s", b.name, out.seconds)
	}
	return out, nil
}

// jetStream connects, and makes the stream if it is not there yet.
func (b *broker) jetStream(ctx context.Context, window int) (jetstream.JetStream, *nats.Conn, error) {
	nc, err := nats.Connect("nats://"+b.native, nats.Timeout(connectTimeout), nats.NoReconnect())
	if err != nil {
		return nil, nil, fmt.Errorf("connect to JetStream: %w", err)
	}
	js, err := jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(window+1))
	if err == nil {
		ctx, cancel := context.WithTimeout(ctx, patientFor)
		defer cancel()
		_, err = js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
			Name: "bench", Subjects: []string{"plant.>"}, Storage: jetstream.FileStorage,
		})
	}
	if err != nil {
		nc.Close()
		return nil, nil, fmt.Errorf("make the stream: %w", err)
	}
	return js, nc, nil
}

// publishJetStream keeps window publishes under way until the run is stopped.
func (r *run) publishJetStream(ctx context.Context, js jetstream.JetStream, producer, window int) error {
	subject := fmt.Sprintf("plant.%s.press.temperature", clientName(producer))
	template := peerBody(producer, 0)
	var open []jetstream.PubAckFuture
	late := time.NewTimer(patientFor)
	defer late.Stop()
	for n := 1; ; n++ {
		for len(open) >= window {
			late.Reset(patientFor)
			select {
			case <-open[0].Ok():
				r.acked.Add(1)
			case err := <-open[0].Err():
				return fmt.Errorf("publish: %w", err)
			case <-late.C:
				return errors.New("publish: no acknowledgement in time")
			case <-r.stop:
				return nil
			case <-ctx.Done():
				return nil // somebody else has said why
			}
			open = open[1:]
		}
		f, err := js.PublishAsync(subject, numbered(template, n))
		if err != nil {
			return fmt.Errorf("publish: %w", err)
		}
		open = append(open, f)
	}
}
