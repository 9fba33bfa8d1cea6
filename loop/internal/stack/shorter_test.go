package stack

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// A device can be shorter than its origin, and its store can have changes behind its end. A merge
// writes them to the base, too, and nothing behind the end of the base.
func TestMergeOfShorterDevice(t *testing.T) {
	dir := snapshotDir(t)
	if err := os.Truncate(filepath.Join(dir, "B"), 4<<20); err != nil {
		t.Fatal(err)
	}
	const sectors = 509
	if err := os.Truncate(filepath.Join(dir, "A"), sectors*512); err != nil {
		t.Fatal(err)
	}
	var model []byte
	serve(t, dir, "0 509 snapshot $A $B P 8", Options{}, func(b *bed) {
		model = b.whole()
		for at := uint64(100); at < sectors; at += 3 {
			data := bytes.Repeat([]byte{byte(at)}, 512)
			b.must(ublktest.Request{Op: ublk.OpWrite, StartSector: at, Sectors: 1, Data: data})
			copy(model[at*512:], data)
		}
	})
	serve(t, dir, "0 203 snapshot $A $B P 8", Options{}, func(b *bed) { b.merge(&gate{}) })
	base, err := os.ReadFile(filepath.Join(dir, "A"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(base, model) {
		t.Errorf("the base of %d bytes has other data", len(base))
	}
}
