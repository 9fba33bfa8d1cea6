package loop

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// randomFile makes a file of random bytes, and returns them.
func randomFile(t *testing.T, dir string, size int) (path string, content []byte) {
	t.Helper()
	content = fill(make([]byte, size), sourceOf(1))
	path = filepath.Join(dir, "random")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path, content
}

// A read-only device may begin within a sector of its file. It copies, and does no direct
// I/O.
func TestKernelUnalignedOffset(t *testing.T) {
	ctl := ublktest.Kernel(t, ublktest.EveryKernel)
	path, content := randomFile(t, fileSystem(t, "ext4"), 1<<20+100)
	for name, tt := range map[string]struct {
		cfg  Config
		want []byte
	}{
		"a byte":             {Config{Offset: 1, SizeLimit: 1 << 20}, content[1:][:1<<20]},
		"an odd offset":      {Config{Offset: 100}, content[100:]},
		"whole sectors":      {Config{Offset: 333, WholeSectors: true}, content[333:][:1<<20-512]},
		"within 4096":        {Config{Offset: 512, SectorSize: 4096, WholeSectors: true}, content[512:][:1<<20-4096]},
		"buffered, as asked": {Config{Offset: 100, DirectIO: SwitchOff, ZeroCopy: SwitchOff}, content[100:]},
	} {
		t.Run(name, func(t *testing.T) {
			tt.cfg.ReadOnly = true
			d, err := Attach(ctl, openPath(t, path), tt.cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := d.Close(); err != nil {
					t.Error(err)
				}
			}()
			s := d.Status()
			if s.BufferMode != ublk.BufferCopy.String() || s.CopyReason != CopyOffset || s.DirectIO || !s.ReadOnly {
				t.Errorf("it is %+v", s)
			}
			got, err := os.ReadFile(d.Path())
			if err != nil || !bytes.Equal(got, tt.want) {
				t.Errorf("it has %d bytes, want %d, equal: %v, error %v", len(got), len(tt.want), bytes.Equal(got, tt.want), err)
			}
		})
	}
	for name, tt := range map[string]struct {
		cfg  Config
		hint string
	}{
		"a writer":           {Config{Offset: 100}, "{read_only}"},
		"direct I/O":         {Config{Offset: 100, ReadOnly: true, DirectIO: SwitchOn}, "{direct_io=auto}"},
		"direct I/O of 512":  {Config{Offset: 512, SectorSize: 4096, WholeSectors: true, ReadOnly: true, DirectIO: SwitchOn}, "{direct_io=auto}"},
		"zero copy":          {Config{Offset: 100, ReadOnly: true, ZeroCopy: SwitchOn}, "{zero_copy}"},
		"an incomplete end":  {Config{Offset: 101, ReadOnly: true}, "{sizelimit=1048064}"},
		"beyond the sectors": {Config{Offset: 1<<20 + 99, ReadOnly: true, WholeSectors: true}, "truncate --size"},
	} {
		_, err := Attach(ctl, openPath(t, path), tt.cfg)
		if !errors.Is(err, unix.EINVAL) {
			t.Errorf("%s: error %v", name, err)
		}
		wantHint(t, err, unix.EINVAL, "", tt.hint)
	}
}

// attached makes a device that ends with the test.
func attached(t *testing.T, ctl *ublk.Control, path string, cfg Config) *Device {
	t.Helper()
	d, err := Attach(ctl, openPath(t, path), cfg)
	if err != nil {
		t.Fatalf("%+v: %v", cfg, err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// Two devices have two parts of a file, and each has its own bytes. A part that overlaps is
// refused.
func TestKernelPartsOfAFile(t *testing.T) {
	ctl := ublktest.Kernel(t)
	path := sparseFile(t, mountTmpfs(t))
	const half = 1 << 20
	first := attached(t, ctl, path, Config{SizeLimit: half})
	second := attached(t, ctl, path, Config{Offset: half})
	for i, d := range []*Device{first, second} {
		f := openFile(t, d.Path(), os.O_WRONLY|unix.O_DIRECT)
		sector := alignedMemory(t, 4096)
		copy(sector, bytes.Repeat([]byte{byte(i + 1)}, 4096))
		if _, err := f.WriteAt(sector, 0); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	content, err := os.ReadFile(path)
	if err != nil || content[0] != 1 || content[half] != 2 || content[half-1] != 0 {
		t.Errorf("the file has %d, %d, %d, error %v", content[0], content[half-1], content[half], err)
	}
	for _, cfg := range []Config{{}, {SizeLimit: half}, {Offset: half - 512, SizeLimit: 512}, {Offset: half}, {ReadOnly: true}, {ReadOnly: true, Offset: half + 1, WholeSectors: true}} {
		if d, err := Attach(ctl, openPath(t, path), cfg); !errors.Is(err, unix.EBUSY) {
			t.Errorf("%+v beside the others: error %v", cfg, err)
			if err == nil {
				_ = d.Close()
			}
		}
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	attached(t, ctl, path, Config{Offset: 512, SizeLimit: half - 512})
}

// A device that is resized beyond its limit has the part that it grows into, unless another
// device has it.
func TestKernelGrownPart(t *testing.T) {
	ctl := ublktest.Kernel(t, ublktest.EveryKernel)
	path := sparseFile(t, mountTmpfs(t))
	const quarter = 1 << 18
	first := attached(t, ctl, path, Config{SizeLimit: quarter})
	err := Resize(ctl, first.ID(), ResizeOptions{Size: 2 * quarter})
	if errors.Is(err, ublk.ErrNotSupported) {
		return // without the command no device grows
	}
	if err != nil {
		t.Fatal(err)
	}
	if d, err := Attach(ctl, openPath(t, path), Config{Offset: quarter, SizeLimit: 512}); !errors.Is(err, unix.EBUSY) {
		t.Errorf("what a device has grown into: error %v", err)
		if err == nil {
			_ = d.Close()
		}
	}
	attached(t, ctl, path, Config{Offset: 2 * quarter, SizeLimit: 512})
	for size, want := range map[uint64]error{2*quarter + 512: unix.EBUSY, 2 * quarter: nil, quarter: nil} {
		if err := Resize(ctl, first.ID(), ResizeOptions{Size: size}); !errors.Is(err, want) {
			t.Errorf("to %d bytes, with a device behind %d: error %v, want %v", size, 2*quarter, err, want)
		}
	}
}
