package stack

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/ublk-loop/ublk-loop/loop/internal/backing"
	"github.com/ublk-loop/ublk-loop/transfer"
	"github.com/ublk-loop/ublk-loop/transfer/snapshot"
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

// A plain device can be shorter than its file. A store above the file has the whole last chunk of the device.
func TestGrowOfShorterDevice(t *testing.T) {
	for _, tt := range []struct {
		text    string
		sectors uint64
		file    int64  // size
		want    uint64 // bytes of the chunk
	}{
		{"0 509 linear $A 0", 509, 512 * 512, 4096},
		{"0 509 linear $A 0", 509, 512*512 - 100, 7 * 512},
		{"0 509 linear $A 0", 509, 509 * 512, 5 * 512},
		{"0 509 linear $A 0", 505, 509 * 512, 5 * 512},
		{"0 500 crypt aes-xts-plain64 :32:user:none 0 $A 8", 500, 512 * 512, 4096},
	} {
		dir := snapshotDir(t)
		if err := os.Truncate(filepath.Join(dir, "A"), tt.file); err != nil {
			t.Fatal(err)
		}
		grow(t, dir, tt.text, tt.sectors, func(g *Growth) {
			if _, got, _ := g.store.Chunk(63); got != tt.want {
				t.Errorf("%s, a file of %d bytes: the last chunk has %d bytes, want %d", tt.text, tt.file, got, tt.want)
			}
		})
	}
}

// grow makes a growth of a plain stack with a store in B.
func grow(t *testing.T, dir, text string, sectors uint64, use func(*Growth)) {
	t.Helper()
	var keys *transfer.Secret
	if strings.Contains(text, "crypt") {
		var err error
		if keys, err = transfer.ReadSecret(strings.NewReader("0123456789abcdefghijklmnopqrstuv"), 32); err != nil {
			t.Fatal(err)
		}
		defer keys.Close()
	}
	s, err := open(t, dir, text, &Options{DirectIO: backing.SwitchOff, Keys: keys})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "B")
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	layout, err := snapshot.NewLayout(4096)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(snapshot.Format(file, layout), file.Close()); err != nil {
		t.Fatal(err)
	}
	object, err := backing.OpenPath(path)
	if err != nil {
		t.Fatal(err)
	}
	g, err := s.Grow(object, sectors, &Options{LockDir: filepath.Join(dir, "locks"), DirectIO: backing.SwitchOff})
	if err != nil {
		t.Fatal(err)
	}
	use(g)
	if err := errors.Join(g.Close(), s.Close(), object.Close()); err != nil {
		t.Error(err)
	}
}

// A device can get a store while another goroutine drops the cached pages of its file.
func TestGrowWhileTheCacheIsDropped(t *testing.T) {
	grow(t, snapshotDir(t), "0 512 linear $A 0", 512, func(g *Growth) {
		s := g.stack
		s.Backings[0].Direct = true
		var dropped sync.WaitGroup
		dropped.Go(s.DropCache(func() bool { return false }))
		g.Apply()
		if err := g.Freeze(); err != nil {
			t.Error(err)
		}
		dropped.Wait()
	})
}
