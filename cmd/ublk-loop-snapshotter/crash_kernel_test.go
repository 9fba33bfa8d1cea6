package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/proxy"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// remote is a snapshotter in another process.
type remote struct {
	snapshots.Snapshotter
	*process
	root string
	ctx  context.Context
}

// snapshotterListens waits until the snapshotter accepts connections. Its socket exists
// before that.
func (b *bed) snapshotterListens() {
	b.Helper()
	b.until("the snapshotter listens", func() bool {
		conn, err := net.Dial("unix", snapshotterSocket)
		return err == nil && conn.Close() == nil
	})
}

// startRemote starts a snapshotter, and waits until it answers.
func (b *bed) startRemote(ctx context.Context) *remote {
	b.Helper()
	_ = os.Remove(snapshotterSocket)
	r := &remote{root: filepath.Join(b.dir, "snapshotter"), ctx: namespaces.WithNamespace(ctx, "test")}
	r.process = b.start(os.Getenv("UBLK_LOOP_SNAPSHOTTER"), "--root", r.root, "--address", snapshotterSocket, "--size", "16M")
	b.snapshotterListens()
	conn, err := grpc.NewClient("unix://"+snapshotterSocket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = conn.Close() })
	r.Snapshotter = proxy.NewSnapshotter(snapshotsapi.NewSnapshotsClient(conn), snapshotterName)
	return r
}

// Wherever the snapshotter is killed, no device stays, and the next snapshotter continues
// with the existing files.
func TestCrashSnapshotter(t *testing.T) {
	b := newBed(t, ublktest.Own, ublktest.Snapshotter, ublktest.OldestAndNewest, ublktest.Soak)
	for i := range ublktest.Kills(t, 3, 6) {
		r := b.startRemote(t.Context())
		r.clear()
		after := time.Duration(rand.Int64N(int64(2 * time.Second)))
		var timer *time.Timer
		n, err := r.work(func() { // the first device exists
			timer = time.AfterFunc(after, func() { _ = r.cmd.Process.Kill() })
		})
		if timer == nil || timer.Stop() {
			t.Fatalf("kill %d: before it, in round %d: %v", i, n, err)
		}
		<-r.done
		t.Logf("killed after %s, in round %d: %v", after, n, err)
		if !errdefs.IsUnavailable(err) {
			t.Errorf("kill %d: %v", i, err)
		}
		b.devicesAre(0)
	}
	r := b.startRemote(t.Context())
	r.clear()
	r.end(unix.SIGTERM)
}

// work makes and removes snapshots until a call fails. It calls begun when the first
// snapshot exists.
func (r *remote) work(begun func()) (round int, err error) {
	for ; ; round++ {
		name := func(s string) string { return fmt.Sprintf("%s%d", s, round) }
		for i, step := range []func() error{
			func() error { _, err := r.Prepare(r.ctx, name("active"), ""); return err },
			func() error { return r.Commit(r.ctx, name("parent"), name("active")) },
			func() error { _, err := r.Prepare(r.ctx, name("child"), name("parent")); return err },
			func() error { _, err := r.View(r.ctx, name("view"), name("parent")); return err },
			func() error { _, err := r.Mounts(r.ctx, name("child")); return err },
			func() error { return r.Remove(r.ctx, name("view")) },
			func() error { return r.Commit(r.ctx, name("second"), name("child")) },
			func() error { _, err := r.Prepare(r.ctx, name("grandchild"), name("second")); return err },
			func() error { return r.Remove(r.ctx, name("grandchild")) },
			func() error { return r.Remove(r.ctx, name("second")) },
			func() error { return r.Remove(r.ctx, name("parent")) },
		} {
			if err := step(); err != nil {
				return round, err
			}
			if round == 0 && i == 0 {
				begun()
			}
		}
	}
}

// clear removes all snapshots, children first, and checks that no file and no device is
// left.
func (r *remote) clear() {
	r.b.Helper()
	for left := -1; left != 0; {
		var names []string
		err := r.Walk(r.ctx, func(_ context.Context, info snapshots.Info) error {
			names = append(names, info.Name)
			if info.Kind != snapshots.KindCommitted {
				_, err := r.Mounts(r.ctx, info.Name) // each snapshot must have its file
				return err
			}
			return nil
		})
		if err != nil || len(names) == left {
			r.b.Fatalf("%q cannot be removed, error %v", names, err)
		}
		left = len(names)
		for _, name := range names {
			if err := r.Remove(r.ctx, name); err != nil && !errdefs.IsFailedPrecondition(err) {
				r.b.Errorf("remove %s: %v", name, err)
			}
		}
	}
	r.b.devicesAre(0)
	files, err := filepath.Glob(filepath.Join(r.root, "snapshots/*"))
	unfinished, _ := filepath.Glob(filepath.Join(r.root, "new-*"))
	if files = append(files, unfinished...); err != nil || len(files) > 0 {
		r.b.Errorf("left behind: %q, error %v", files, err)
	}
}
