package basemark

import (
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// base returns a file, and the directory of locks.
func base(t *testing.T) (*os.File, string) {
	t.Helper()
	dir := t.TempDir()
	f, err := os.Create(filepath.Join(dir, "base"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f, filepath.Join(dir, "locks")
}

func has(t *testing.T, f *os.File, want ...UUID) {
	t.Helper()
	if got, err := List(f); err != nil || !slices.Equal(got, want) {
		t.Fatalf("%d stores, error %v, want %d", len(got), err, len(want))
	}
}

func newUUID() (u UUID) {
	_, _ = rand.Read(u[:]) // never fails
	return u
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestRecord(t *testing.T) {
	f, dir := base(t)
	a, b := newUUID(), newUUID()
	has(t, f)
	must(t, Remove(dir, f, a))
	must(t, Add(dir, f, a))
	has(t, f, a)
	must(t, Add(dir, f, a))
	must(t, Add(dir, f, b))
	has(t, f, a, b)
	must(t, Remove(dir, f, a))
	has(t, f, b)
	must(t, Remove(dir, f, b))
	has(t, f)
	if _, err := unix.Fgetxattr(int(f.Fd()), attribute, nil); !errors.Is(err, unix.ENODATA) {
		t.Errorf("the attribute is left: %v", err)
	}
	must(t, Add(dir, f, a))
	must(t, Clear(dir, f))
	has(t, f)
	must(t, Clear(dir, f))
}

// A base of more stores than the record has room for stays one until Clear.
func TestMoreStoresThanFit(t *testing.T) {
	f, dir := base(t)
	var all []UUID
	for range maxStores + 5 {
		all = append(all, newUUID())
		must(t, Add(dir, f, all[len(all)-1]))
	}
	has(t, f, append(slices.Clone(all[:maxStores]), Others)...)
	for _, u := range all {
		must(t, Remove(dir, f, u))
	}
	has(t, f, Others)
	must(t, Remove(dir, f, Others))
	has(t, f, Others)
	must(t, Clear(dir, f))
	has(t, f)
}

// No change is lost if many processes record stores at the same time.
func TestConcurrentChanges(t *testing.T) {
	f, dir := base(t)
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if err := Add(dir, f, newUUID()); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if got, err := List(f); err != nil || len(got) != 20 {
		t.Errorf("%d stores, error %v", len(got), err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory of locks is left: %v", err)
	}
}

func TestDamaged(t *testing.T) {
	f, dir := base(t)
	for _, value := range [][]byte{make([]byte, 15), make([]byte, 17), make([]byte, 16*(maxStores+2))} {
		must(t, unix.Fsetxattr(int(f.Fd()), attribute, value, 0))
		if _, err := List(f); !errors.Is(err, ErrDamaged) {
			t.Errorf("%d bytes: %v", len(value), err)
		}
		if err := Add(dir, f, newUUID()); !errors.Is(err, ErrDamaged) {
			t.Errorf("%d bytes: %v", len(value), err)
		}
		must(t, Clear(dir, f))
	}
}

// An object that cannot have attributes has no stores. Like a disk, a FIFO cannot, even where the
// file system can be written.
func TestUnsupported(t *testing.T) {
	_, dir := base(t)
	path := filepath.Join(t.TempDir(), "fifo")
	must(t, unix.Mkfifo(path, 0o600))
	fifo, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	defer fifo.Close()
	has(t, fifo)
	if err := Add(dir, fifo, newUUID()); !errors.Is(err, ErrUnsupported) || errors.Is(err, unix.EROFS) {
		t.Errorf("error %v", err)
	}
	must(t, Clear(dir, fifo))
}
