package e2e

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
)

// The process that serves the requests goes on when it can have no more descriptors, whatever number is left:
// the command fails, and the other devices do not notice.
func TestKernelServeApartFull(t *testing.T) {
	b := kernelBed(t)
	m := b.serve("--on-crash=reissue")
	if !b.isApart(m.pid()) {
		return
	}
	base := b.image(8 << 20)
	other, s := b.add(b.image(1<<20)), b.add(base, "--cow", filepath.Join(filepath.Dir(base), "store"))
	b.writeBlock(s, 3, 100)
	pid := m.apart()
	key, _ := b.keyFile(64)
	for _, command := range [][]string{
		{"add", b.image(1 << 20)}, {"add", "--transfer=aes-xts-plain64", "--key-file", key, b.image(1 << 20)}, {"merge", s.Device},
	} {
		fails := 0
		for r := (result{status: 1}); r.status != 0; fails++ {
			b.limitFiles(pid, b.openFiles(pid, "")+fails)
			if r = b.run(command...); pid != m.apart() {
				t.Fatalf("%q: another process serves: %s", command, r.err)
			}
			if fails > 30 {
				t.Fatalf("%q fails with %d more descriptors: %s", command, fails, r.err)
			}
		}
		b.works(other)
		if fails < 2 {
			t.Errorf("%q has succeeded at once", command)
		}
		b.limitFiles(pid, 1000)
	}
	b.hasBlock(s, 3, 100)
}

// limitFiles limits the number of descriptors of a process.
func (b *bed) limitFiles(pid, n int) {
	b.Helper()
	limit := unix.Rlimit{Cur: uint64(n), Max: 1 << 20}
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &limit, nil); err != nil {
		b.Fatal(err)
	}
}

// The process of all devices never gets a file whose file system may not answer a close.
func TestKernelServeApartForkRemote(t *testing.T) {
	b := kernelBed(t)
	m := b.serve("--on-crash=reissue")
	if !b.isApart(m.pid()) {
		return
	}
	base := b.image(8 << 20)
	s := b.add(base, "--cow", filepath.Join(filepath.Dir(base), "store"))
	remote := b.userFile().path
	c := client.New(client.DefaultSocket)
	if _, err := c.Fork(context.Background(), &s, client.NewStore{Path: remote}); !errors.Is(err, unix.EOPNOTSUPP) {
		t.Errorf("fork: %v, want EOPNOTSUPP", err)
	}
	table := strings.ReplaceAll(b.list(s.Device)[0].Table, base, remote)
	var files []*os.File
	for _, path := range []string{remote, filepath.Join(filepath.Dir(base), "store")} {
		fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		file := os.NewFile(uintptr(fd), path)
		defer func() { _ = file.Close() }()
		files = append(files, file)
	}
	if _, err := c.Reload(context.Background(), &s, table, files); !errors.Is(err, unix.EOPNOTSUPP) {
		t.Errorf("reload: %v, want EOPNOTSUPP", err)
	}
	for _, pid := range m.processes() {
		if n := b.openFiles(pid, remote); n != 0 {
			t.Errorf("process %d has it open %d times", pid, n)
		}
	}
	b.writeBlock(s, 3, 100)
	b.hasBlock(s, 3, 100)
}
