package snapshotter

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/transfer/snapshot"
)

// chunkOf returns a chunk of equal bytes.
func chunkOf(b byte) []byte { return bytes.Repeat([]byte{b}, storeChunk) }

// imageWith makes the image of a snapshot from bytes.
func imageWith(t *testing.T, s *Snapshotter, id string, content []byte) {
	t.Helper()
	if err := os.WriteFile(s.dir.path(fileOf(id)), content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// storeWith makes the store of a snapshot over its parents, with changes of chunks.
func storeWith(t *testing.T, s *Snapshotter, size int64, ids []string, changes map[uint64]byte) {
	t.Helper()
	below, err := s.dir.openLayers(ids[1:])
	if err != nil {
		t.Fatal(err)
	}
	defer below.close()
	f, err := os.OpenFile(s.dir.path(storeOf(ids[0])), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := makeStore(f, below, size); err != nil {
		t.Fatal(err)
	}
	layout, err := snapshot.NewLayout(storeChunk)
	if err != nil {
		t.Fatal(err)
	}
	var records []byte
	for old, b := range changes {
		at := layout.DataChunk(uint64(len(records) / 16))
		records = binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(records, old), at)
		if _, err := f.WriteAt(chunkOf(b), layout.Offset(at)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := f.WriteAt(records, layout.Offset(layout.Area(0))); err != nil {
		t.Fatal(err)
	}
}

// An image of layers has the latest change of each chunk, and zeros where a store makes the
// device larger.
func TestFlatten(t *testing.T) {
	s, _ := without(t)
	imageWith(t, s, "1", slices.Concat(chunkOf('a'), chunkOf('a'), chunkOf('a')[:4096]))
	storeWith(t, s, 2*storeChunk+4096, []string{"2", "1"}, map[uint64]byte{1: 'b', 2: 'b'})
	storeWith(t, s, 5*storeChunk-4096, []string{"3", "2", "1"}, map[uint64]byte{0: 'c', 2: 'c', 4: 'c'})
	l, err := s.dir.openLayers([]string{"3", "2", "1", "none"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	if err := s.flattenOwn(context.Background(), "3", l); err != nil {
		t.Fatal(err)
	}
	want := slices.Concat(chunkOf('c'), chunkOf('b'), chunkOf('c'), chunkOf(0), chunkOf('c')[4096:])
	if got, err := os.ReadFile(s.dir.path(fileOf("3"))); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the image has %d other bytes, error %v", len(got), err)
	}
	names := files(t, s.dir.Name())
	for i, name := range names {
		names[i] = filepath.Base(name)
	}
	if !slices.Equal(names, []string{"1", "2.cow", "3"}) {
		t.Errorf("the files are %q", names)
	}
}

// calling is a context that counts the looks at its end.
type calling struct {
	context.Context
	looks int
	on    func(look int)
}

func (c *calling) Err() error {
	c.looks++
	c.on(c.looks)
	return nil
}

// Cleanup can remove the store of a snapshot as soon as there is an image.
func TestFlattenDuringCleanup(t *testing.T) {
	s, _ := without(t)
	imageWith(t, s, "1", chunkOf('a'))
	storeWith(t, s, storeChunk, []string{"2", "1"}, map[uint64]byte{0: 'b'})
	l, err := s.dir.openLayers([]string{"2", "1"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	ctx := &calling{Context: t.Context()}
	ctx.on = func(look int) {
		if look == 2 { // the first look is before the image is copied, the second with the store open
			if err := s.dir.Remove(storeOf("2")); err != nil {
				t.Error(err)
			}
		}
	}
	if err := s.flattenOwn(ctx, "2", l); err != nil || ctx.looks != 2 {
		t.Errorf("after %d looks: %v", ctx.looks, err)
	}
	if got, err := os.ReadFile(s.dir.path(fileOf("2"))); err != nil || !bytes.Equal(got, chunkOf('b')) {
		t.Errorf("the image has %d other bytes, error %v", len(got), err)
	}
}

// A store with a chunk that it or its device does not have is refused, and leaves nothing.
func TestFlattenRefuses(t *testing.T) {
	s, _ := without(t)
	imageWith(t, s, "1", chunkOf('a'))
	for _, record := range [][2]uint64{{1, 2}, {0, 1}, {0, 1 << 40}} {
		storeWith(t, s, storeChunk, []string{"2", "1"}, nil)
		bytes := binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(nil, record[0]), record[1])
		f, err := os.OpenFile(s.dir.path(storeOf("2")), os.O_RDWR, 0)
		if err == nil {
			_, err = f.WriteAt(bytes, storeChunk)
			err = errors.Join(err, f.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
		l, err := s.dir.openLayers([]string{"2", "1"})
		if err != nil {
			t.Fatal(err)
		}
		var wrong *snapshot.RecordError
		if err := s.flattenOwn(context.Background(), "2", l); !errors.As(err, &wrong) {
			t.Errorf("record %v: %v", record, err)
		}
		l.close()
		if left := files(t, s.dir.Name()); len(left) != 2 {
			t.Errorf("record %v leaves %q", record, left)
		}
	}
}

// A store without an image, a frozen or invalid one, and a file that is none are refused.
func TestOpenLayersRefuses(t *testing.T) {
	s, _ := without(t)
	imageWith(t, s, "1", chunkOf('a'))
	storeWith(t, s, storeChunk, []string{"2", "1"}, nil)
	if _, err := s.dir.openLayers([]string{"2"}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a store without an image: %v", err)
	}
	if _, err := s.dir.openLayers([]string{"2", "none", "1"}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing parent: %v", err)
	}
	f, err := os.OpenFile(s.dir.path(storeOf("2")), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	freeze(t, f)
	if _, err := s.dir.openLayers([]string{"2", "1"}); !errors.Is(err, unix.EPERM) {
		t.Errorf("a frozen store: %v", err)
	}
	for _, change := range []struct {
		at   int64
		want error
	}{{4, unix.EIO}, {0, snapshot.ErrNew}} {
		if _, err := f.WriteAt(make([]byte, 4), change.at); err != nil {
			t.Fatal(err)
		}
		if _, err := s.dir.openLayers([]string{"2", "1"}); !errors.Is(err, change.want) {
			t.Errorf("zeros at %d: %v", change.at, err)
		}
	}
}

// freeze says in a store that others need it.
func freeze(t *testing.T, store *os.File) {
	t.Helper()
	block := make([]byte, snapshot.HeaderBlock)
	if _, err := store.ReadAt(block, 0); err != nil {
		t.Fatal(err)
	}
	label, err := snapshot.ParseLabel(block)
	if err == nil {
		label.Frozen = true
		err = label.Put(block)
	}
	if err == nil {
		_, err = store.WriteAt(block, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// The tables of layers name the files in their order, and fill what a parent lacks.
func TestLayersTable(t *testing.T) {
	l := layers{{size: 1 << 20}, {size: 1 << 20}, {size: 2 << 20}}
	want := "changed1,,,ro,0 2048 snapshot layer0 layer1 P 128 1 discard_zeroes_cow;" +
		"larger2,,,ro,0 2048 linear /dev/mapper/changed1 0,2048 2048 zero;" +
		"changed2,,,rw,0 4096 snapshot /dev/mapper/larger2 layer2 P 128 1 discard_zeroes_cow"
	if got := l.table(); got != want {
		t.Errorf("the table is\n%s, want\n%s", strings.ReplaceAll(got, ";", "\n"), strings.ReplaceAll(want, ";", "\n"))
	}
	if got := l[:1].table(); got != "" {
		t.Errorf("the table of an image is %s", got)
	}
}

// If the process ends between the steps of making an image of stores, the next one goes on
// with the image, and removes the store.
func TestImageBesideStore(t *testing.T) {
	ctx := context.Background()
	s, o := without(t)
	recorded(t, s, &creation{kind: snapshots.KindActive, key: "a"})
	imageWith(t, s, "9", chunkOf('a'))
	storeWith(t, s, storeChunk, []string{"1", "9"}, map[uint64]byte{0: 'b'})
	imageWith(t, s, "1", chunkOf('b'))
	l, err := s.dir.openLayers([]string{"1", "9"})
	if err != nil || l.stores() != 0 || s.dir.nameOf("1") != fileOf("1") {
		t.Errorf("the layers are %+v, error %v", l, err)
	}
	l.close()
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
}

// A store stays without an image, and goes with its snapshot.
func TestStoreStays(t *testing.T) {
	ctx := context.Background()
	s, o := without(t)
	recorded(t, s, &creation{kind: snapshots.KindActive, key: "a"})
	imageWith(t, s, "9", chunkOf('a'))
	storeWith(t, s, storeChunk, []string{"1", "9"}, nil)
	if err := s.Cleanup(ctx); err != nil {
		t.Fatal(err)
	}
	if left := files(t, o.Root); len(left) != 1 || filepath.Base(left[0]) != "1.cow" {
		t.Errorf("after a cleanup there are %q", left)
	}
	if err := s.erase(ctx, "a"); err != nil {
		t.Fatal(err)
	}
	if left := files(t, o.Root); len(left) != 0 {
		t.Errorf("after the removal there are %q", left)
	}
}

// The store of a new snapshot replaces an image that a failed request has left under its id.
func TestStoreReplacesStaleImage(t *testing.T) {
	s, _ := without(t)
	imageWith(t, s, "1", chunkOf('x'))
	to, err := s.dir.unfinished("store")
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	if err := s.finishFile(to, "1", true); err != nil {
		t.Fatal(err)
	}
	if s.dir.nameOf("1") != storeOf("1") {
		t.Errorf("the files are %q", files(t, s.dir.Name()))
	}
}
