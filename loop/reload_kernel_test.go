package loop

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/identity"
	"github.com/ublk-loop/ublk-loop/loop/internal/filelock"
	"github.com/ublk-loop/ublk-loop/loop/internal/statefile"
	"github.com/ublk-loop/ublk-loop/transfer/snapshot"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// layered is a device whose layers are merged.
type layered struct {
	*testing.T
	dev   *Device
	dir   string
	chain []string // base and stores, the uppermost last
	cover string   // of the last line, which encrypts what is above the layers, with the placeholder $0 for them
	made  int
}

const layeredSize = 8 << 20

// text returns the tables of the chain.
func (l *layered) text() string {
	var tables []string
	origin := l.chain[0]
	for i, store := range l.chain[1:] {
		mode := "ro"
		if i == len(l.chain)-2 {
			mode = "rw"
		}
		tables = append(tables, fmt.Sprintf("t%d,,,%s,0 %d snapshot %s %s P 16", i, mode, layeredSize/512, origin, store))
		origin = fmt.Sprint("/dev/mapper/t", i)
	}
	if l.cover != "" {
		tables = append(tables, "cover,,,rw,"+withDisks(l.cover, origin))
	}
	return strings.Join(tables, ";")
}

func (l *layered) newPath() string {
	l.made++
	return filepath.Join(l.dir, fmt.Sprint("store", l.made))
}

// fork puts a store on top.
func (l *layered) fork() {
	l.Helper()
	path := l.newPath()
	store := newStore(l.T, path, 8192, 2*layeredSize)
	if _, err := l.dev.Fork(store); err != nil {
		l.Fatal(err)
	}
	_ = store.Close()
	l.chain = append(l.chain, path)
}

// open opens a file of the chain. The caller closes it.
func (l *layered) open(path string, flags int) *os.File {
	l.Helper()
	f, err := os.OpenFile(path, flags, 0)
	if err != nil {
		l.Fatal(err)
	}
	return f
}

// reload gives the device the tables of the chain.
func (l *layered) reload() error { return l.reloadAs(l.text()) }

// reloadAs gives the device tables with the files of the chain.
func (l *layered) reloadAs(text string) error {
	var files []*os.File
	for i, path := range l.chain {
		if slices.Contains(l.chain[:i], path) {
			continue // the tables have it twice
		}
		f, err := OpenTableDevice(path)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		files = append(files, f)
	}
	return l.dev.Reload(text, files)
}

// chunks calls a function with the chunks of a store.
func (l *layered) chunks(path string, each func(chunk uint64, data []byte) error) {
	l.Helper()
	f := l.open(path, os.O_RDONLY)
	defer func() { _ = f.Close() }()
	layout, err := snapshot.NewLayout(8192)
	if err != nil {
		l.Fatal(err)
	}
	index := snapshot.NewIndex(make([]uint32, layeredSize/8192))
	if _, err := snapshot.Load(f, layout, 2*layeredSize, index); err != nil {
		l.Fatal(err)
	}
	data := make([]byte, 8192)
	for chunk := range index.Len() {
		slot := index.Lookup(chunk)
		if !slot.Replaced() {
			continue
		}
		if _, err := f.ReadAt(data, layout.Offset(slot.Chunk())); err != nil && !errors.Is(err, io.EOF) {
			l.Fatal(err)
		}
		if err := each(chunk, data); err != nil {
			l.Fatal(err)
		}
	}
}

// mergeBase writes the lowest store to the base, which the device reads meanwhile.
func (l *layered) mergeBase() (unused []string) {
	l.Helper()
	base := l.open(l.chain[0], os.O_RDWR)
	defer func() { _ = base.Close() }()
	l.chunks(l.chain[1], func(chunk uint64, data []byte) error {
		_, err := base.WriteAt(data, int64(chunk)*8192)
		return err
	})
	unused = []string{l.chain[1]}
	l.chain = append(l.chain[:1:1], l.chain[2:]...)
	return unused
}

// mergeStores makes a store of the two lowest ones.
func (l *layered) mergeStores() (unused []string) {
	l.Helper()
	path := l.newPath()
	f := newStore(l.T, path, 8192, 2*layeredSize)
	_ = f.Close()
	f = l.open(path, os.O_RDWR)
	defer func() { _ = f.Close() }()
	layout, err := snapshot.NewLayout(8192)
	if err != nil {
		l.Fatal(err)
	}
	b, err := snapshot.NewBuilder(f, layout, 2*layeredSize, &snapshot.Label{UUID: snapshot.NewUUID(), Frozen: true})
	if err != nil {
		l.Fatal(err)
	}
	upper := map[uint64]bool{}
	l.chunks(l.chain[2], func(chunk uint64, data []byte) error {
		upper[chunk] = true
		return b.Add(chunk, data)
	})
	l.chunks(l.chain[1], func(chunk uint64, data []byte) error {
		if upper[chunk] {
			return nil
		}
		return b.Add(chunk, data)
	})
	if err := b.Finish(); err != nil {
		l.Fatal(err)
	}
	unused = l.chain[1:3]
	l.chain = append([]string{l.chain[0], path}, l.chain[3:]...)
	return unused
}

// isFree fails the test if a device still has a file, and removes the file.
func (l *layered) isFree(path string) {
	l.Helper()
	f, err := OpenTableDevice(path)
	if err != nil {
		l.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	object, err := identity.Of(f)
	if err != nil {
		l.Fatal(err)
	}
	if held, err := filelock.IsHeld(statefile.LockDir, object); err != nil || held {
		l.Errorf("%s: the lock is held: %v, error %v", path, held, err)
	}
	if err := os.Remove(path); err != nil {
		l.Error(err)
	}
}

// newLayered makes a device with a base and stores.
func newLayered(t *testing.T, base []byte, cfg Config, attach func(text string, cfg Config) *Device) *layered {
	t.Helper()
	l := &layered{T: t, dir: t.TempDir()}
	l.chain = []string{filepath.Join(l.dir, "base"), l.newPath()}
	if err := os.WriteFile(l.chain[0], base, 0o600); err != nil {
		t.Fatal(err)
	}
	newStore(t, l.chain[1], 8192, 2*layeredSize)
	l.dev = attach(l.text(), cfg)
	return l
}

// Layers below a device are merged while it is written to, more often than it can fork without that.
// No write is lost, and the device keeps none of the files that it does not use.
func TestKernelReload(t *testing.T) {
	ctl := ublktest.Kernel(t, ublktest.OldestKernel)
	for _, cfg := range ublktest.Sample(t, 0, Config{}, Config{ZeroCopy: SwitchOff}, Config{OnCrash: CrashReissue}) {
		t.Run(fmt.Sprintf("zero copy %s on crash %s", cfg.ZeroCopy, cfg.OnCrash), func(t *testing.T) {
			model := random(make([]byte, layeredSize))
			l := newLayered(t, model, cfg, func(text string, cfg Config) *Device { return attachTable(t, ctl, text, cfg) })
			descriptors := openDescriptors(t)
			var stop atomic.Bool
			wait := sync.OnceFunc(blockWriters(t, l.dev.Path(), model, &stop))
			defer func() {
				stop.Store(true)
				wait()
			}()
			for i := range 36 { // more than the stack has room for
				used := usedSectors(t, l.dev)
				waitUntil(t, "some exceptions", func() bool { return usedSectors(t, l.dev) > used })
				l.fork()
				l.fork()
				merge := l.mergeBase
				if i%2 == 1 {
					merge = l.mergeStores
				}
				unused := merge()
				if err := l.reload(); err != nil {
					t.Fatal(err)
				}
				for len(l.chain) > 4 {
					unused = append(unused, l.mergeBase()...)
				}
				if err := l.reload(); err != nil {
					t.Fatal(err)
				}
				for _, path := range unused {
					l.isFree(path)
				}
				if got := len(l.dev.Status().Files); got != len(l.chain) {
					t.Fatalf("the status has %d files, the chain %d", got, len(l.chain))
				}
			}
			stop.Store(true)
			wait()
			sameDisk(t, l.dev.Path(), model)
			if now := openDescriptors(t); now > descriptors+3*len(l.chain) {
				t.Errorf("%d descriptors, %d before", now, descriptors)
			}
			saved, err := readState(l.dev.ID())
			if err != nil || saved.Config.Table != l.dev.Status().Table || len(saved.Files) != len(l.chain) {
				t.Errorf("the state is %+v, error %v", saved, err)
			}
		})
	}
}

// openDescriptors returns the number of descriptors of the process.
func openDescriptors(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// A device does not take tables that show something else, or whose files it cannot have. It goes on
// with its tables, and keeps nothing of the others.
func TestKernelReloadRefused(t *testing.T) {
	ctl := ublktest.Kernel(t, ublktest.OldestKernel)
	model := random(make([]byte, layeredSize))
	l := newLayered(t, model, Config{}, func(text string, cfg Config) *Device { return attachTable(t, ctl, text, cfg) })
	l.fork()
	l.fork()
	other, damaged := l.newPath(), l.newPath()
	newStore(t, other, 8192, 2*layeredSize)
	if err := os.WriteFile(damaged, make([]byte, 64<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	chain, text := l.chain, l.dev.Status().Table
	link := l.newPath()
	if err := os.Link(chain[1], link); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		what  string
		chain []string
		want  error
	}{
		{"another store on top", []string{chain[0], chain[1], other}, unix.EINVAL},
		{"a file that is no store", []string{chain[0], damaged, chain[3]}, snapshot.ErrNew},
		{"a store twice", []string{chain[0], chain[1], chain[1], chain[3]}, unix.EINVAL},
		{"a store under two names", []string{chain[0], chain[1], link, chain[3]}, errors.ErrUnsupported},
		{"the written store below", []string{chain[3], chain[1], chain[3]}, unix.EINVAL},
		{"a short base", []string{damaged, chain[1], chain[3]}, unix.EINVAL},
	} {
		for range 3 {
			l.chain = tt.chain
			if err := l.reload(); !errors.Is(err, tt.want) {
				t.Errorf("%s: error %v, want %v", tt.what, err, tt.want)
			}
		}
	}
	l.chain = chain
	for _, tt := range []struct{ what, old, changed string }{
		{"overflows", " P 16", " PO 16"}, {"has other chunks", " P 16", " P 32"}, {"is read-only", ",,,rw,", ",,,ro,"},
	} {
		at := strings.LastIndex(l.text(), tt.old)
		if err := l.reloadAs(l.text()[:at] + tt.changed + l.text()[at+len(tt.old):]); !errors.Is(err, unix.EINVAL) {
			t.Errorf("the upper store %s: error %v", tt.what, err)
		}
	}
	if got := l.dev.Status().Table; got != text {
		t.Errorf("the tables are %s, were %s", got, text)
	}
	l.isFree(other)
	l.isFree(damaged)
	sameDisk(t, l.dev.Path(), model)
	if err := l.reload(); err != nil {
		t.Error(err)
	}
	sameDisk(t, l.dev.Path(), model)
}
