package driver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	csi "github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/cmd/ublk-loop-csi/pool"
	"github.com/ublk-loop/ublk-loop/transfer"
)

// Options are the options of New.
type Options struct {
	// Name is the driver's name in Kubernetes.
	Name string
	// Version is the driver's version.
	Version string
	// Node is the name of this node.
	Node string
	// Socket is the control socket of ublk-loop serve.
	Socket string
	// Reserve is the space of the pool's file system that volumes leave free, in bytes.
	Reserve int64
	// Overcommit is the factor by which thin volumes may exceed the space of the pool, at
	// least 1.
	Overcommit float64
	// EphemeralLimit is the largest size of an ephemeral volume in bytes, 0 for no limit.
	EphemeralLimit int64
	// Report is called with what the driver found and could not put right.
	Report func(error)
	// Step is called between the steps of calls, with the name of the step that has ended. Tests
	// end the driver there. It can be nil.
	Step func(name string)
}

// Driver answers the calls of CSI. Its methods are safe for concurrent use.
type Driver struct {
	csi.UnimplementedIdentityServer
	csi.UnimplementedControllerServer
	csi.UnimplementedNodeServer

	opts    Options
	pool    *pool.Pool
	devices devices
	keys    keys
	thaws   thaws
	ended   context.Context    // done when the driver ends
	stop    context.CancelFunc // ends it, giveKeys and mergeInBackground
	running sync.WaitGroup     // of them
	busy    locks

	making sync.Mutex // held while space is found for a volume, until its record exists
	// layers is held for reading while layers are made that no record of a volume or snapshot
	// leads to yet, and for writing while layers are removed that no record leads to.
	layers sync.RWMutex
	// chains is held for reading while the files of layers are opened by their records, until a
	// device has them, and for writing while files of merged layers are removed.
	chains   sync.RWMutex
	merging  sync.Mutex    // held while layers are merged
	unmerged chan struct{} // has a value if layers may have to be merged

	mu         sync.Mutex // protects reconciled
	reconciled bool
}

// New returns a driver with the volumes of a pool.
func New(p *pool.Pool, opts Options) (*Driver, error) {
	d, err := newIdle(p, opts)
	if err == nil {
		d.start()
	}
	return d, err
}

// newIdle returns a driver without its goroutines.
func newIdle(p *pool.Pool, opts Options) (*Driver, error) {
	switch {
	case opts.Node == "":
		return nil, fmt.Errorf("the name of the node is empty: %w", unix.EINVAL)
	case opts.Overcommit < 1:
		return nil, fmt.Errorf("overcommit %v: less than 1: %w", opts.Overcommit, unix.EINVAL)
	case opts.Reserve < 0:
		return nil, fmt.Errorf("reserve %d: negative: %w", opts.Reserve, unix.EINVAL)
	}
	if opts.Report == nil {
		opts.Report = func(error) {}
	}
	if opts.Step == nil {
		opts.Step = func(string) {}
	}
	d := &Driver{
		opts: opts, pool: p, devices: devices{server: newServer(opts.Socket), held: map[string]*client.Held{}},
		keys: keys{of: map[string]*transfer.Secret{}, gained: make(chan struct{}, 1)}, unmerged: make(chan struct{}, 1),
	}
	d.ended, d.stop = context.WithCancel(context.Background())
	return d, nil
}

// start starts the driver's goroutines, which end in Close.
func (d *Driver) start() {
	d.running.Go(func() { d.giveKeys(d.ended) })
	d.running.Go(func() { d.mergeInBackground(d.ended) })
}

// Register adds the services of the driver to a server.
func (d *Driver) Register(s *grpc.Server) {
	csi.RegisterIdentityServer(s, d)
	csi.RegisterControllerServer(s, d)
	csi.RegisterNodeServer(s, d)
}

// Stop ends copies that are being made, so that their calls end.
func (d *Driver) Stop() { d.stop() }

// Close closes the devices that the driver keeps open, and wipes its keys. The devices stay.
func (d *Driver) Close() {
	d.stop()
	d.running.Wait()
	d.devices.close()
	d.keys.close()
}

// lasting returns a context for work that takes long. It does not end with the call: callers give up after
// some time, and if each repeated call began the work again, large copies would never be completed. A
// repeated call gets ABORTED until the work is done. The work ends with the driver.
func (d *Driver) lasting(ctx context.Context) (context.Context, context.CancelFunc) {
	lasting, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(d.ended, cancel)
	return lasting, func() {
		stop()
		cancel()
	}
}

// topologyKey is the key of the label that has the name of a volume's node.
func (d *Driver) topologyKey() string { return "topology." + d.opts.Name + "/node" }

// begin reconciles the pool before the first call, and locks an object. A second call for
// the object gets ABORTED.
func (d *Driver) begin(ctx context.Context, ids ...string) (unlock func(), err error) {
	if err := d.Reconcile(ctx); err != nil {
		return nil, status.Errorf(codes.Unavailable, "the driver is not ready: %v", err)
	}
	for i, id := range ids {
		if !d.busy.try(id) {
			d.busy.unlock(ids[:i]...)
			return nil, status.Errorf(codes.Aborted, "another call for %q is under way", id)
		}
	}
	return func() { d.busy.unlock(ids...) }, nil
}

// volume reads the record of a volume. Volumes that are not completely made count as
// missing.
func (d *Driver) volume(id string) (*pool.Volume, error) {
	v, err := d.pool.Volumes.Read(id)
	if errors.Is(err, os.ErrNotExist) || err == nil && v.State != pool.Ready {
		return nil, status.Errorf(codes.NotFound, "volume_id: node %s has no volume %q", d.opts.Node, id)
	}
	return v, failure(err)
}

// changing reads the record of a volume that a call will use or change. It ends a change of the
// disk that was interrupted.
func (d *Driver) changing(ctx context.Context, id string) (*pool.Volume, error) {
	v, err := d.volume(id)
	if err == nil {
		err = failure(d.settle(ctx, v))
	}
	return v, err
}

// locks are the ids of objects with a call under way. The zero value is ready for use.
type locks struct {
	mu  sync.Mutex // protects ids
	ids map[string]bool
}

func (l *locks) try(id string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ids[id] {
		return false
	}
	if l.ids == nil {
		l.ids = map[string]bool{}
	}
	l.ids[id] = true
	return true
}

func (l *locks) unlock(ids ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, id := range ids {
		delete(l.ids, id)
	}
}
