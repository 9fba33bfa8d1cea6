package stack

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/loop/internal/backing"
	"github.com/ublk-loop/ublk-loop/loop/internal/basemark"
	"github.com/ublk-loop/ublk-loop/loop/internal/cow"
	"github.com/ublk-loop/ublk-loop/transfer/snapshot"
	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// labelled makes a store with a label in a file that exists.
func labelled(t *testing.T, path string, label snapshot.Label) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	l, err := snapshot.NewLayout(4096)
	if err == nil {
		err = snapshot.FormatLabelled(f, l, &label)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// needs checks which stores need a file.
func needs(t *testing.T, path string, want ...snapshot.UUID) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got, err := basemark.List(f)
	if err != nil || !slices.EqualFunc(got, want, func(a basemark.UUID, b snapshot.UUID) bool { return a == b }) {
		t.Errorf("%s: needed by %v, error %v, want %v", filepath.Base(path), got, err, want)
	}
}

func refused(t *testing.T, dir, text string, o Options, want string) {
	t.Helper()
	o.DirectIO, o.Shared = backing.SwitchOff, true
	s, err := open(t, dir, text, &o)
	if err == nil {
		_ = s.Close()
	}
	if want == "" && err != nil || want != "" && (!errors.Is(err, unix.EPERM) || !strings.Contains(err.Error(), want)) {
		t.Errorf("%s: error %v, want %q", text, err, want)
	}
}

// A store with a label is recorded in all files below it, which are then only read.
func TestStoreMarksItsBase(t *testing.T) {
	dir := snapshotDir(t)
	top, low := snapshot.NewUUID(), snapshot.NewUUID()
	labelled(t, filepath.Join(dir, "B"), snapshot.Label{UUID: low})
	labelled(t, filepath.Join(dir, "C"), snapshot.Label{UUID: top})
	serve(t, dir, "0 512 snapshot $A $B P 8", Options{}, func(b *bed) { b.must(ublktest.Request{Op: ublk.OpWrite, Sectors: 8, Data: data(ublk.OpWrite)}) })
	needs(t, filepath.Join(dir, "A"), low)
	refused(t, dir, "0 512 linear $A 0", Options{}, "base of a store")
	refused(t, dir, "0 512 linear $A 0", Options{ReadOnly: true}, "")
	chain := "low,,,ro,0 512 snapshot $A $B P 8;top,,,,0 512 snapshot /dev/mapper/low $C P 8"
	serve(t, dir, chain, Options{ReadOnly: true}, func(*bed) {})
	needs(t, filepath.Join(dir, "A"), low)
	serve(t, dir, chain, Options{}, func(*bed) {})
	needs(t, filepath.Join(dir, "A"), low, top)
	needs(t, filepath.Join(dir, "B"), top)
	needs(t, filepath.Join(dir, "C"))
	refused(t, dir, "0 512 snapshot $A $B P 8", Options{}, "base of a store")
	refused(t, dir, chain, Options{}, "")
}

// A frozen store is only read, also if its file has lost the attribute.
func TestFrozenStore(t *testing.T) {
	dir := snapshotDir(t)
	labelled(t, filepath.Join(dir, "B"), snapshot.Label{UUID: snapshot.NewUUID(), Frozen: true})
	refused(t, dir, "0 512 snapshot $A $B P 8", Options{}, "store "+filepath.Join(dir, "B")+": frozen, because other stores need it")
	refused(t, dir, "0 512 snapshot $A $B P 8", Options{ReadOnly: true}, "")
	refused(t, dir, "low,,,ro,0 512 snapshot $A $B P 8;top,,,,0 512 snapshot /dev/mapper/low $C P 8", Options{}, "")
}

// Freeze makes a store one that is only read, by label and attribute, and keeps its contents.
func TestFreeze(t *testing.T) {
	for _, withLabel := range []bool{true, false} {
		dir := snapshotDir(t)
		path := filepath.Join(dir, "B")
		label := snapshot.Label{UUID: snapshot.NewUUID(), OriginPath: "/srv/base.img"}
		if withLabel {
			labelled(t, path, label)
		}
		serve(t, dir, "0 512 snapshot $A $B P 8", Options{}, func(b *bed) { b.must(ublktest.Request{Op: ublk.OpWrite, Sectors: 8, Data: data(ublk.OpWrite)}) })
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		by := snapshot.Label{UUID: snapshot.NewUUID(), Parent: snapshot.NewUUID()}
		if err := cow.Freeze(filepath.Join(dir, "locks"), f, &by); err != nil {
			t.Fatal(err)
		}
		needs(t, path, by.UUID)
		h, got, err := snapshot.ReadLabelled(f)
		if err != nil || !h.Valid || !got.Frozen || !withLabel && got.UUID != by.Parent || withLabel && (got.UUID != label.UUID || got.OriginPath != label.OriginPath) {
			t.Errorf("header %+v, label %+v, error %v", h, got, err)
		}
		refused(t, dir, "0 512 snapshot $A $B P 8", Options{}, "base of a store")
		if err := basemark.Clear(filepath.Join(dir, "locks"), f); err != nil {
			t.Fatal(err)
		}
		refused(t, dir, "0 512 snapshot $A $B P 8", Options{}, "frozen")
		serve(t, dir, "0 512 snapshot $A $B P 8", Options{ReadOnly: true}, func(b *bed) {
			if got := b.must(ublktest.Request{Op: ublk.OpRead, Sectors: 8}); !slices.Equal(got, data(ublk.OpWrite)) {
				t.Error("the contents have changed")
			}
		})
		if err := cow.Freeze(dir, openReadOnly(t, filepath.Join(dir, "A")), nil); !errors.Is(err, snapshot.ErrNoStore) {
			t.Errorf("an image: %v", err)
		}
	}
}

func openReadOnly(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// A store that becomes invalid keeps its label.
func TestInvalidStoreKeepsLabel(t *testing.T) {
	dir := snapshotDir(t)
	path := filepath.Join(dir, "B")
	if err := os.Truncate(path, 6*4096); err != nil {
		t.Fatal(err)
	}
	label := snapshot.Label{UUID: snapshot.NewUUID(), OriginPath: "/srv/base.img"}
	labelled(t, path, label)
	serve(t, dir, "0 512 snapshot $A $B P 8", Options{}, func(b *bed) { b.fill("P") })
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if h, got, err := snapshot.ReadLabelled(f); err != nil || h.Valid || got == nil || *got != label {
		t.Errorf("header %+v, label %+v, error %v", h, got, err)
	}
}
