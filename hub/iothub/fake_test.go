package iothub

import (
	"context"
	"sync"
	"testing"
	"time"

	"holdfast.dev/holdfast/hub"
)

// fakeHub is what an Upstream is given: it hands commands to do, and says who
// listens.
type fakeHub struct {
	do func(context.Context, hub.Command) (hub.Reply, error)

	mu      sync.Mutex
	list    []hub.Present
	changed chan struct{}
}

func newFakeHub(do func(context.Context, hub.Command) (hub.Reply, error)) *fakeHub {
	return &fakeHub{do: do, changed: make(chan struct{})}
}

func (f *fakeHub) Publish(_ context.Context, _ hub.Message, done func(error)) { done(hub.ErrFull) }

func (f *fakeHub) Do(ctx context.Context, c hub.Command) (hub.Reply, error) {
	if f.do == nil {
		return hub.Reply{}, hub.ErrUnknown
	}
	return f.do(ctx, c)
}

func (f *fakeHub) Attach(id hub.Identity, _ hub.Doer, kinds ...hub.Kind) func() {
	f.change(func() { f.list = append(f.list, hub.Present{ID: id, Kinds: kinds}) })
	return func() { f.change(func() { f.list = nil }) }
}

func (f *fakeHub) change(what func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	what()
	close(f.changed)
	f.changed = make(chan struct{})
}

func (f *fakeHub) Changed() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.changed
}

func (f *fakeHub) List() []hub.Present {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]hub.Present(nil), f.list...)
}

// start runs u until the test ends, and fails the test if it does not stop.
func start(t *testing.T, u *Upstream, h hub.Hub) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- u.Run(ctx, h) }()
	stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(20 * time.Second):
			t.Errorf("Run does not end")
		}
	})
	t.Cleanup(stop)
	return stop
}

// until polls for a condition.
func until(t *testing.T, what string, d time.Duration, ok func() bool) {
	t.Helper()
	end := time.Now().Add(d)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %v", what, d)
		}
		<-tick.C
	}
}

// result is what became of one message.
type result struct {
	id  string
	err error
}

// outcomes collects what done says, and checks that it says it once and in order.
type outcomes struct {
	t    *testing.T
	mu   sync.Mutex
	want []string // ids handed over and not yet done
	got  []result
}

func (o *outcomes) publish(u *Upstream, m hub.Message) {
	o.mu.Lock()
	o.want = append(o.want, m.ID)
	o.mu.Unlock()
	u.Publish(o.t.Context(), m, func(err error) {
		o.mu.Lock()
		defer o.mu.Unlock()
		if len(o.want) == 0 || o.want[0] != m.ID {
			o.t.Errorf("done of %s out of turn", m.ID)
			return
		}
		o.want = o.want[1:]
		o.got = append(o.got, result{m.ID, err})
	})
}

func (o *outcomes) all() []result {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]result(nil), o.got...)
}

func (o *outcomes) count() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.got)
}
