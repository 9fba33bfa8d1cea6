package stack

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/loop/internal/backing"
	"github.com/ublk-loop/ublk-loop/transfer/snapshot"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// A server locks its memory. The pages of arenas go all the same, and views
// of them stay valid.
func TestFreeLockedArenas(t *testing.T) {
	var a arenas
	mem, err := a.add(2 * 4096)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Mlock(mem); err != nil {
		t.Fatal(err)
	}
	mem[4096] = 1
	if err := a.free(); err != nil || mem[4096] != 0 {
		t.Errorf("the byte is %d, error %v", mem[4096], err)
	}
	if err := unix.Munmap(mem); err != nil {
		t.Fatal(err)
	}
}

// The indexes of all stores of a device have a bound, also if another process makes them.
func TestIndexesAreBounded(t *testing.T) {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		t.Fatal(err)
	}
	sectors := info.Totalram * uint64(info.Unit) / 4 / 4 * (4096 / 512) // an index for all chunks takes a quarter of the memory
	if sectors > 15<<40/512 {
		ublktest.MachineLacks(t, "so little memory that a file can be large enough")
	}
	dir := snapshotDir(t)
	if err := os.Truncate(filepath.Join(dir, "A"), int64(sectors*512)); err != nil {
		t.Fatal(err)
	}
	layout, err := snapshot.NewLayout(4096)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"B", "C", "D"} {
		store, err := os.OpenFile(filepath.Join(dir, name), os.O_RDWR, 0)
		if err == nil {
			err = errors.Join(snapshot.Format(store, layout), store.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	// The last store is the one that the device writes to.
	chain := func(names ...string) (text string) {
		origin, mode := "$A", "ro"
		for i, name := range names {
			if i == len(names)-1 {
				mode = "rw"
			}
			text += fmt.Sprintf("s%d,,,%s,0 %d snapshot %s %s P 8;", i, mode, sectors, origin, name)
			origin = fmt.Sprintf("/dev/mapper/s%d", i)
		}
		return strings.TrimSuffix(text, ";")
	}
	for _, c := range []struct {
		stores []string
		want   error
	}{{[]string{"$B", "$D"}, nil}, {[]string{"$B", "$C", "$D"}, unix.ENOMEM}} {
		s, err := open(t, dir, chain(c.stores...), &Options{DirectIO: backing.SwitchOff, Described: true})
		if !errors.Is(err, c.want) {
			t.Errorf("stores %s: error %v, want %v", c.stores, err, c.want)
		}
		if err == nil {
			if err := tryReload(t, s, dir, chain("$B", "$C", "$D")); !errors.Is(err, unix.ENOMEM) {
				t.Errorf("a reload that puts a store between two: error %v, want %v", err, unix.ENOMEM)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}
