package snapshotter

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/oci"
)

// without returns a snapshotter without a server.
func without(t *testing.T) (*Snapshotter, Options) {
	t.Helper()
	dir := t.TempDir()
	o := Options{
		Root: filepath.Join(dir, "own"), Size: minSize,
		Settings: &oci.Settings{Socket: filepath.Join(dir, "none.sock"), AttachTimeout: time.Second, Lists: oci.Lists{AllowedImages: []string{dir}, WritableImages: []string{dir}}},
	}
	s, err := New(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s, o
}

// files returns the names of all finished and unfinished files of snapshots.
func files(t *testing.T, root string) []string {
	t.Helper()
	finished, err := filepath.Glob(filepath.Join(root, "snapshots/*"))
	if err != nil {
		t.Fatal(err)
	}
	unfinished, err := filepath.Glob(filepath.Join(root, "new-*"))
	if err != nil {
		t.Fatal(err)
	}
	return append(finished, unfinished...)
}

// If Prepare gets no device, it leaves no snapshot.
func TestWithoutServer(t *testing.T) {
	ctx := context.Background()
	s, o := without(t)
	if err := os.WriteFile(s.dir.path("scratch-8388608"), make([]byte, minSize), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the failed first call must not keep the name
		if _, err := s.Prepare(ctx, "a", ""); !errdefs.IsUnavailable(err) {
			t.Errorf("prepare: %v", err)
		}
		if _, err := s.View(ctx, "b", ""); !errdefs.IsUnavailable(err) {
			t.Errorf("view: %v", err)
		}
	}
	if left := files(t, o.Root); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
	if _, err := s.Prepare(ctx, "a", "no parent"); !errdefs.IsNotFound(err) {
		t.Errorf("prepare without the parent: %v", err)
	}
}

func TestImageLabels(t *testing.T) {
	ctx := context.Background()
	s, o := without(t)
	image := filepath.Join(filepath.Dir(o.Root), "image")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, labels := range []map[string]string{
		{ImageLabel: "/etc/passwd"},
		{ImageLabel: image, OptionsLabel: "suid"},
		{ImageLabel: image, labelPrefix + "other": "x"},
		{OptionsLabel: "ro"},
		{labelPrefix + "encrypt": "file:/key"},
		{ImageLabel: image, labelPrefix + "encrypt": "aes"},
		{ImageLabel: image, labelPrefix + "encrypt": "file:" + image}, // a key that is not allowed
		{ImageLabel: image, labelPrefix + "encrypt": "ephemeral"},     // has nothing to encrypt
		{ImageLabel: image, labelPrefix + "verity.roothash": "/etc/passwd"},
		{ImageLabel: image, labelPrefix + "verity.hashfile": image},  // without a root hash
		{ImageLabel: image, labelPrefix + "verity.roothash": "auto"}, // nothing is beside it
		{ImageLabel: image, labelPrefix + "verity.roothash": "auto", OptionsLabel: "rw"},
	} {
		if _, err := s.Prepare(ctx, "a", "", snapshots.WithLabels(labels)); !errdefs.IsInvalidArgument(err) {
			t.Errorf("labels %q: %v", labels, err)
		}
	}
	if _, err := s.View(ctx, "a", "", snapshots.WithLabels(map[string]string{ImageLabel: image, OptionsLabel: "rw"})); !errdefs.IsInvalidArgument(err) {
		t.Errorf("a view that can be written to: %v", err)
	}
	// These get as far as asking the server.
	if _, err := s.Prepare(ctx, "a", "", snapshots.WithLabels(map[string]string{ImageLabel: image, OptionsLabel: "rw"})); !errdefs.IsUnavailable(err) {
		t.Errorf("an image that is allowed: %v", err)
	}
	s.settings.VerityImages = []string{filepath.Dir(image)}
	if _, err := s.Prepare(ctx, "a", "", snapshots.WithLabels(map[string]string{ImageLabel: image})); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "verity_images") {
		t.Errorf("an image that needs verity: %v", err)
	}
	s.settings.VerityImages = nil
	for _, change := range []func(){
		func() { s.settings.WritableImages = nil },
		func() {
			s.settings.WritableImages = s.settings.AllowedImages
			s.settings.Handlers = map[string]oci.Lists{oci.HandlerSnapshotter: {WritableImages: []string{}}}
		},
	} {
		change()
		if _, err := s.Prepare(ctx, "a", "", snapshots.WithLabels(map[string]string{ImageLabel: image, OptionsLabel: "rw"})); !errdefs.IsInvalidArgument(err) {
			t.Errorf("an image that is not to be written to: %v", err)
		}
	}
}

// The annotations of an image's layers arrive as labels, together with the label that
// containerd sets. They must not name a file of the host.
func TestImageLabelsOfLayers(t *testing.T) {
	ctx := context.Background()
	s, o := without(t)
	image := filepath.Join(filepath.Dir(o.Root), "image")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, labels := range []map[string]string{
		{ImageLabel: image, OptionsLabel: "rw"},
		{ImageLabel: image},
		{OptionsLabel: "rw"},
		{labelPrefix + "encrypt": "none"},
	} {
		labels["containerd.io/snapshot.ref"] = "sha256:0"
		if _, err := s.Prepare(ctx, "a", "", snapshots.WithLabels(labels)); !errdefs.IsPermissionDenied(err) {
			t.Errorf("prepare with labels %q: %v", labels, err)
		}
		if _, err := s.View(ctx, "a", "", snapshots.WithLabels(labels)); !errdefs.IsPermissionDenied(err) {
			t.Errorf("view with labels %q: %v", labels, err)
		}
		recorded(t, s, &creation{kind: snapshots.KindActive, key: "b", opts: []snapshots.Opt{snapshots.WithLabels(labels)}})
		if _, err := s.Mounts(ctx, "b"); !errdefs.IsPermissionDenied(err) {
			t.Errorf("mounts of one with labels %q: %v", labels, err)
		}
		if err := s.Remove(ctx, "b"); err != nil {
			t.Error(err)
		}
	}
}

// recorded makes a snapshot without a device.
func recorded(t *testing.T, s *Snapshotter, c *creation) {
	t.Helper()
	if err := s.record(context.Background(), c, nil); err != nil {
		t.Fatal(err)
	}
}

// Update changes foreign labels, but not the image.
func TestUpdateLabels(t *testing.T) {
	ctx := context.Background()
	s, _ := without(t)
	labels := map[string]string{ImageLabel: "/a", "other": "1"}
	recorded(t, s, &creation{kind: snapshots.KindActive, key: "a", opts: []snapshots.Opt{snapshots.WithLabels(labels)}})
	update := func(image, other string, fields ...string) error {
		_, err := s.Update(ctx, snapshots.Info{Name: "a", Labels: map[string]string{ImageLabel: image, "other": other}}, fields...)
		return err
	}
	for _, fields := range [][]string{{"labels." + ImageLabel}, {"labels"}, nil} {
		if err := update("/b", "1", fields...); !errdefs.IsInvalidArgument(err) {
			t.Errorf("another image by %q: %v", fields, err)
		}
		if err := update("/a", "2", fields...); err != nil {
			t.Errorf("another label by %q: %v", fields, err)
		}
	}
	if info, err := s.Stat(ctx, "a"); err != nil || info.Labels[ImageLabel] != "/a" || info.Labels["other"] != "2" {
		t.Errorf("labels are %q, error %v", info.Labels, err)
	}
	if err := s.Commit(ctx, "b", "a"); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("commit of an image: %v", err)
	}
	if err := s.Remove(ctx, "a"); err != nil {
		t.Errorf("remove: %v", err)
	}
}

// The start and Cleanup remove files that belong to no snapshot, and keep the others.
func TestCleanup(t *testing.T) {
	ctx := context.Background()
	s, o := without(t)
	none := func(context.Context, snapshots.Info) error { return unix.EEXIST }
	if err := errors.Join(s.Walk(ctx, none), s.Cleanup(ctx)); err != nil {
		t.Errorf("without a snapshot: %v", err)
	}
	recorded(t, s, &creation{kind: snapshots.KindActive, key: "a"})
	if err := s.Walk(ctx, none); !errors.Is(err, unix.EEXIST) {
		t.Errorf("walk of one snapshot: %v", err)
	}
	make := func(names ...string) {
		for _, name := range names {
			if err := os.WriteFile(filepath.Join(o.Root, name), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	make("snapshots/1", "snapshots/2", "new-1")
	if err := s.Cleanup(ctx); err != nil {
		t.Error(err)
	}
	if left := files(t, o.Root); len(left) != 2 { // one of them is unfinished
		t.Errorf("after a cleanup there are %q", left)
	}
	make("snapshots/3")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := New(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if left := files(t, o.Root); len(left) != 1 || filepath.Base(left[0]) != "1" {
		t.Errorf("after a start there are %q", left)
	}
	if _, err := again.Stat(ctx, "a"); err != nil {
		t.Error(err)
	}
}

// A file that cannot be removed is reported, and does not keep the snapshotter from its start.
func TestStartWithStuckFiles(t *testing.T) {
	ctx := context.Background()
	s, o := without(t)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	stuck := []string{"new-1", "snapshots/99"}
	for _, name := range stuck { // which is not removed while it has something in it
		if err := os.MkdirAll(filepath.Join(o.Root, name, "x"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	var reports []error
	o.Report = func(err error) { reports = append(reports, err) }
	again, err := New(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	for _, name := range stuck {
		if !strings.Contains(errors.Join(reports...).Error(), name) {
			t.Errorf("%s is not reported: %v", name, reports)
		}
	}
	if err := again.Cleanup(ctx); err == nil {
		t.Error("a cleanup that leaves a file has no error")
	}
}

func TestNewRefuses(t *testing.T) {
	ctx := context.Background()
	_, o := without(t)
	if _, err := New(ctx, o); !errors.Is(err, unix.EWOULDBLOCK) {
		t.Errorf("a second one of a directory: %v", err)
	}
	open := o
	open.Root = filepath.Join(t.TempDir(), "open")
	if err := os.Mkdir(open.Root, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := New(ctx, open); !errors.Is(err, unix.EPERM) {
		t.Errorf("a directory that others can read: %v", err)
	}
	for _, wrong := range []Options{{Root: "relative", Size: minSize}, {Root: "/x", Size: 4096}, {Root: "/x", Size: minSize + 512}} {
		if _, err := New(ctx, wrong); !errors.Is(err, os.ErrInvalid) {
			t.Errorf("%+v: %v", wrong, err)
		}
	}
}

// The empty file system takes little disk space, whatever its size.
func TestScratch(t *testing.T) {
	for _, program := range []string{"mke2fs", "debugfs", "e2fsck"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip(err)
		}
	}
	s, _ := without(t)
	for _, size := range []int64{minSize, 10 << 30} {
		s.scratch.size = size
		name, err := s.scratch.file(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		if usage, err := s.dir.usage(name); err != nil || usage.Size > 2<<20 {
			t.Errorf("of %d bytes it takes %d, error %v", size, usage.Size, err)
		}
		if out, err := exec.Command("e2fsck", "-f", "-n", s.dir.path(name)).CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	}
	if left := files(t, s.dir.Name()); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

func TestRequests(t *testing.T) {
	var r requests
	unlock := r.lock("a")
	r.lock("b")() // must not wait
	second := make(chan struct{})
	go func() { // the code below waits for it
		defer close(second)
		r.lock("a")()
	}()
	select {
	case <-second:
		t.Error("two requests for one snapshot at once")
	case <-time.After(50 * time.Millisecond):
	}
	unlock()
	<-second
	if len(r.byKey) != 0 {
		t.Errorf("%d snapshots are remembered", len(r.byKey))
	}
}
