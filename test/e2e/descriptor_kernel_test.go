package e2e

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
)

// attachFD attaches the file of an open descriptor.
func (b *bed) attachFD(f *os.File, args ...string) result {
	b.Helper()
	cmd := b.command(append([]string{"add", "--json", "--fd", "3"}, args...)...)
	cmd.ExtraFiles = []*os.File{f}
	return b.runCommand(cmd)
}

// A file without a name becomes a device, and the device writes to it, with and without
// serve.
func TestKernelAddDescriptor(t *testing.T) {
	b := kernelBed(t)
	dir := t.TempDir()
	deleted := filepath.Join(dir, "deleted")
	files := map[string]*os.File{"/memfd:image (deleted)": b.memfd(1 << 20), deleted + " (deleted)": b.deletedFile(deleted, 1<<20)}
	for _, serve := range []bool{false, true} {
		if serve {
			b.serve()
		}
		for name, f := range files {
			r := b.attachFD(f)
			r.succeeds(t)
			var s client.Device
			b.decode(r.out, &s)
			if s.File != name || s.OnCrash != "fail" || s.Size != 1<<20 {
				t.Errorf("serve %v: it is %+v, want a device of %s", serve, s, name)
			}
			b.writeSector(s.Device, 4096)
			got := make([]byte, 512)
			if _, err := f.ReadAt(got, 4096); err != nil || bytes.Equal(got, make([]byte, 512)) {
				t.Errorf("serve %v, %s: the file has %q…, error %v", serve, name, got[:8], err)
			}
			if _, err := f.WriteAt(make([]byte, 512), 4096); err != nil {
				t.Fatal(err)
			}
			b.del(s.Device)
		}
	}
	// A descriptor may be open for less than the device needs.
	path := b.image(1 << 20)
	readOnly := b.open(path, os.O_RDONLY)
	b.attachFD(readOnly).fails(t, 1, "descriptor 3", "only open for reading", "hint: --read-only")
	b.attachFD(b.open(path, os.O_WRONLY), "-r").fails(t, 1, "descriptor 3", "only open for writing")
	b.attachFD(b.open("/dev/null", os.O_RDWR)).fails(t, 1, "descriptor 3", "a character device")
	b.run("add", "--fd", "99").fails(t, 1, "descriptor 99", "bad file descriptor")
	r := b.attachFD(readOnly, "--read-only")
	r.succeeds(t)
	var s client.Device
	if b.decode(r.out, &s); s.File != path || s.OnCrash != "reissue" && s.OnCrash != "fail" {
		t.Errorf("a file with a name is %+v", s)
	}
	b.del(s.Device)
}

// memfd returns a file in memory.
func (b *bed) memfd(size int64) *os.File {
	b.Helper()
	fd, err := unix.MemfdCreate("image", unix.MFD_CLOEXEC)
	if err != nil {
		b.Fatal(err)
	}
	return b.sized(os.NewFile(uintptr(fd), "image"), size)
}

// deletedFile returns a file whose name is gone.
func (b *bed) deletedFile(path string, size int64) *os.File {
	b.Helper()
	f := b.sized(b.open(path, os.O_RDWR|os.O_CREATE), size)
	if err := os.Remove(path); err != nil {
		b.Fatal(err)
	}
	return f
}

func (b *bed) sized(f *os.File, size int64) *os.File {
	b.Helper()
	b.Cleanup(func() { _ = f.Close() })
	if err := f.Truncate(size); err != nil {
		b.Fatal(err)
	}
	return f
}

// open opens a file until the test ends.
func (b *bed) open(path string, flags int) *os.File {
	b.Helper()
	f, err := os.OpenFile(path, flags, 0o600)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = f.Close() })
	return f
}
