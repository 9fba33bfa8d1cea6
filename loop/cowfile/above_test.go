package cowfile

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ublk-loop/ublk-loop/loop/internal/cow"
	"github.com/ublk-loop/ublk-loop/transfer/snapshot"
)

// storeAbove makes a store with changes above another one, which is frozen. withParent is false for
// a label that does not say that the origin is a store.
func storeAbove(t *testing.T, base, below, top string, withParent bool) {
	t.Helper()
	made, err := CreateAbove(top, fmt.Sprintf("0 2048 snapshot %s %s P 8", base, below))
	if err != nil {
		t.Fatal(err)
	}
	defer made.Close()
	if made.Directory != nil {
		if err := made.Link(); err != nil {
			t.Fatal(err)
		}
	}
	_, label, err := snapshot.ReadLabelled(made.File)
	if err != nil || label.Parent.IsZero() || label.OriginPath != below {
		t.Fatalf("label %+v, error %v", label, err)
	}
	if !withParent {
		label.Parent = snapshot.UUID{}
		if err := snapshot.FormatLabelled(made.File, layoutOf(t, 4096), label); err != nil {
			t.Fatal(err)
		}
	}
	fillStore(t, made.File, content(t, base), 5, 2)
	lower, err := os.OpenFile(below, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer lower.Close()
	if err := cow.Freeze(lockDir, lower, label); err != nil {
		t.Fatal(err)
	}
	if info, err := Inspect(below); err != nil || withParent && info.Label.UUID != label.Parent {
		t.Errorf("the store below is %+v, error %v, want UUID %s", info, err, label.Parent)
	}
}

// A store above another store is neither merged into that store, nor into the image below it, nor
// attached above the image. All errors name the store below.
func TestStoreAboveStore(t *testing.T) {
	for _, withParent := range []bool{true, false} {
		dir := directory(t)
		base, below, top := newBase(t, dir, 1<<20), filepath.Join(dir, "below"), filepath.Join(dir, "top")
		create(t, CreateOptions{Path: below, Origin: base, ChunkSize: 4096, Size: 1 << 20}) // as large as the device
		change(t, below, base, 5, 1)
		storeAbove(t, base, below, top, withParent)
		before := [][]byte{content(t, base), content(t, below), content(t, top)}
		tries := map[string]func() error{
			"merge":            func() error { return mergeInto(top, "") },
			"merge into below": func() error { return mergeInto(top, below) },
			"merge of below":   func() error { return mergeInto(below, "") },
			"merge into base":  func() error { return mergeInto(top, base) },
			"table":            func() error { _, err := Table(TableOptions{Origin: base, Path: top}); return err },
		}
		for what, try := range tries {
			if err := try(); err == nil || !strings.Contains(err.Error(), below) {
				t.Errorf("%s: error %v, want one that names %s", what, err, below)
			}
		}
		for i, path := range []string{base, below, top} {
			if !bytes.Equal(content(t, path), before[i]) {
				t.Errorf("%s has changed", path)
			}
		}
	}
}

func mergeInto(path, base string) error {
	_, err := Merge(context.Background(), MergeOptions{Path: path, Base: base})
	return err
}

// A table cannot have every path. Nothing is left of a store whose path it cannot have.
func TestStoreAboveOddPath(t *testing.T) {
	dir := directory(t)
	base, below := newBase(t, dir, 1<<20), filepath.Join(dir, "below")
	create(t, CreateOptions{Path: below, Origin: base, ChunkSize: 4096})
	for _, name := range []string{"a b", "a#b", "a\nb"} {
		path := filepath.Join(dir, name)
		_, err := CreateAbove(path, fmt.Sprintf("0 2048 snapshot %s %s P 8", base, below))
		if !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "white space") {
			t.Errorf("%q: error %v", name, err)
		}
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%q: it is there: %v", name, err)
		}
	}
}
