package snapshotter

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
)

// The label counts for containers only, and up to the maximum.
func TestSizeOf(t *testing.T) {
	s := &Snapshotter{maxSize: 1 << 30}
	for text, want := range map[string]int64{
		"8388608": 8 << 20, "1073741824": 1 << 30, "16777217": 16 << 20,
		"": 0, "0": 0, "-1": 0, "1G": 0, "8388607": 0, "1073741825": 0, "9223372036854775808": 0,
	} {
		size, err := s.sizeOf(map[string]string{SizeLabel: text})
		if size != want || (want == 0) != errdefs.IsInvalidArgument(err) || err != nil && !strings.Contains(err.Error(), SizeLabel) {
			t.Errorf("%q: %d bytes, error %v, want %d", text, size, err, want)
		}
	}
	for _, labels := range []map[string]string{nil, {SizeLabel: "1", refLabel: "sha256:0"}} {
		if size, err := s.sizeOf(labels); size != 0 || err != nil {
			t.Errorf("%v: %d bytes, error %v", labels, size, err)
		}
	}
	if _, err := s.sizeOf(map[string]string{SizeLabel: "8388608", ImageLabel: "/x"}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("an image with a size: %v", err)
	}
}

// A wrong size leaves no snapshot, and the size of a snapshot cannot be changed later.
func TestPrepareSize(t *testing.T) {
	ctx := context.Background()
	s, o := without(t)
	with := func(size string) snapshots.Opt { return snapshots.WithLabels(map[string]string{SizeLabel: size}) }
	if _, err := s.Prepare(ctx, "a", "", with("many")); !errdefs.IsInvalidArgument(err) {
		t.Errorf("prepare: %v", err)
	}
	if left := files(t, o.Root); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
	recorded(t, s, &creation{kind: snapshots.KindActive, key: "a", opts: []snapshots.Opt{with("8388608")}})
	changed := snapshots.Info{Name: "a", Labels: map[string]string{SizeLabel: "16777216"}}
	if _, err := s.Update(ctx, changed, "labels."+SizeLabel); !errdefs.IsInvalidArgument(err) {
		t.Errorf("update: %v", err)
	}
}

// A file system gets larger and smaller with its content. One with too much content is
// refused in words.
func TestResize(t *testing.T) {
	for _, program := range []string{"mke2fs", "debugfs", "e2fsck", "resize2fs"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip(err)
		}
	}
	ctx := context.Background()
	s, _ := without(t)
	s.scratch.size = 64 << 20
	name, err := s.scratch.file(ctx)
	if err != nil {
		t.Fatal(err)
	}
	content := filepath.Join(t.TempDir(), "content")
	want := bytes.Repeat([]byte("content\n"), 2<<20) // 16 MiB
	if err := os.WriteFile(content, want, 0o600); err != nil {
		t.Fatal(err)
	}
	path := s.dir.path(name)
	if err := call(ctx, "debugfs", "-w", "-R", "write "+content+" content", path); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, size := range []int64{64 << 20, 32 << 20, 96 << 20, 30<<20 + blockSize} {
		if err := resize(ctx, f, size); err != nil {
			t.Fatalf("to %d bytes: %v", size, err)
		}
		if info, err := f.Stat(); err != nil || info.Size() != size {
			t.Errorf("to %d bytes: the file has %d, error %v", size, info.Size(), err)
		}
		if out, err := exec.Command("e2fsck", "-f", "-n", path).CombinedOutput(); err != nil {
			t.Errorf("to %d bytes: %v: %s", size, err, out)
		}
		if got, err := exec.Command("debugfs", "-R", "cat content", path).Output(); err != nil || !bytes.Equal(got, want) {
			t.Errorf("to %d bytes: the content differs, error %v", size, err)
		}
	}
	err = resize(ctx, f, minSize)
	if !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "8388608 bytes are too few for the content") {
		t.Errorf("16 MiB of content in %d bytes: %v", minSize, err)
	}
	canceled, cancel := context.WithCancel(ctx)
	cancel()
	if err := resize(canceled, f, 64<<20); !errors.Is(err, context.Canceled) {
		t.Errorf("a size that nobody wants: %v", err)
	}
}
