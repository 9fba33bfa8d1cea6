package backing

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/loop/internal/basemark"
)

// A file whose contents stores need is opened for writing only to merge the one store.
func TestBackingNeeded(t *testing.T) {
	path := newFile(t, "file", 1<<20)
	first, err := openFor(t, path, Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	one, other := basemark.UUID{1}, basemark.UUID{2}
	add := func(u basemark.UUID) {
		t.Helper()
		if err := basemark.Add(locksOf(path)+".turn", first.File, u); err != nil {
			t.Fatal(err)
		}
	}
	add(one)
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	opens := func(o Options, wanted bool, text string) {
		t.Helper()
		b, err := Open(openPath(t, path), &o)
		if err == nil {
			_ = b.Close()
		}
		if wanted != (err == nil) {
			t.Fatalf("error %v", err)
		}
		if !wanted {
			wantHint(t, err, unix.EPERM, path+": base of "+text+": ", "{read_only}; cow thaw")
		}
	}
	locks := locksOf(path)
	opens(Options{LockDir: locks}, false, "a store")
	opens(Options{LockDir: locks, Shared: true}, false, "a store")
	opens(Options{LockDir: locks, Store: &other}, false, "a store")
	opens(Options{LockDir: locks, Store: &one}, true, "")
	opens(Options{LockDir: locks, ReadOnly: true}, true, "")
	first, err = openFor(t, path, Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	add(other)
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	opens(Options{LockDir: locks, Store: &one}, false, "2 stores")
}
