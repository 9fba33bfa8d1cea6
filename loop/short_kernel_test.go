package loop

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// moody is a file that answers reads and writes as a test demands: with an error first,
// or with a part of the request.
type moody struct {
	fs.Inode
	mu    sync.Mutex
	data  []byte
	part  int           // maximum number of bytes in an answer, 0 for no maximum
	errno syscall.Errno // the answer is this error ...
	times int           // ... this number of times
	gate  chan struct{} // operations without data announce themselves here, and wait
	// next are the results of the next operations without data, 0 for success. passed
	// counts these operations.
	next   []syscall.Errno
	passed int
}

var (
	_ fs.NodeOpener    = (*moody)(nil)
	_ fs.NodeReader    = (*moody)(nil)
	_ fs.NodeWriter    = (*moody)(nil)
	_ fs.NodeGetattrer = (*moody)(nil)
	_ fs.NodeFsyncer   = (*moody)(nil)
	_ fs.NodeAllocater = (*moody)(nil)
)

// Open makes every read and write reach the file, because the page cache would complete
// partial answers.
func (m *moody) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	return nil, fuse.FOPEN_DIRECT_IO, 0
}

func (m *moody) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	out.Mode, out.Size, out.Blksize = unix.S_IFREG|0o600, uint64(len(m.data)), 4096
	return 0
}

// answer returns the number of bytes to transfer, or an error.
func (m *moody) answer(n int) (int, syscall.Errno) {
	if m.times > 0 {
		m.times--
		return 0, m.errno
	}
	if m.part > 0 {
		n = min(n, m.part)
	}
	return n, 0
}

func (m *moody) Read(_ context.Context, _ fs.FileHandle, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, errno := m.answer(len(dest))
	end := min(int(off)+n, len(m.data))
	return fuse.ReadResultData(m.data[min(int(off), end):end]), errno
}

func (m *moody) Write(_ context.Context, _ fs.FileHandle, data []byte, off int64) (uint32, syscall.Errno) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, errno := m.answer(len(data))
	return uint32(copy(m.data[off:], data[:n])), errno
}

// Fsync and Allocate wait while the gate is closed.
func (m *moody) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno { return m.pass() }

func (m *moody) Allocate(context.Context, fs.FileHandle, uint64, uint64, uint32) syscall.Errno {
	return m.pass()
}

func (m *moody) pass() syscall.Errno {
	m.mu.Lock()
	gate := m.gate
	m.mu.Unlock()
	if gate != nil {
		gate <- struct{}{} // has begun
		<-gate             // may end
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.passed++
	if len(m.next) == 0 {
		return 0
	}
	errno := m.next[0]
	m.next = m.next[1:]
	return errno
}

// answerNext sets the results of the next operations without data, and resets their
// counter.
func (m *moody) answerNext(errnos ...syscall.Errno) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.next, m.passed = errnos, 0
}

// answered returns the number of operations without data, and the number of results that
// are left.
func (m *moody) answered() (passed, left int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.passed, len(m.next)
}

// setGate closes the gate, or opens it if gate is nil.
func (m *moody) setGate(gate chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.gate = gate
}

// content returns the content of the file.
func (m *moody) content() []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	return bytes.Clone(m.data)
}

// set changes bytes of the file.
func (m *moody) set(off int, data []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	copy(m.data[off:], data)
}

// behave sets how the file answers.
func (m *moody) behave(part int, errno syscall.Errno, times int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.part, m.errno, m.times = part, errno, times
}

// mountMoody mounts a file system with one moody file, and returns its path.
func mountMoody(t *testing.T) (*moody, string) {
	t.Helper()
	if _, err := os.Stat("/dev/fuse"); err != nil {
		run(t, "modprobe", "fuse")
	}
	file, dir := &moody{data: make([]byte, 32<<20)}, t.TempDir()
	root := &fs.Inode{}
	server, err := fs.Mount(dir, root, &fs.Options{
		MountOptions: fuse.MountOptions{DirectMount: true, MaxWrite: 128 << 10},
		OnAdd: func(ctx context.Context) {
			root.AddChild("file", root.NewPersistentInode(ctx, file, fs.StableAttr{Mode: unix.S_IFREG}), true)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Unmount(); err != nil {
			t.Error(err)
		}
	})
	return file, filepath.Join(dir, "file")
}

// Partial results add up to the whole request. A temporary error leads to another try.
// Any other error becomes the caller's errno, never a byte count that is too small.
func TestKernelShortResultsAndErrors(t *testing.T) {
	ublktest.Require(t, ublktest.EveryKernel)
	warmUpFUSE(t)
	ctl := ublktest.Kernel(t, ublktest.EveryKernel)
	inEachMode(t, ctl, func(t *testing.T, cfg Config) {
		file, path := mountMoody(t)
		cfg.DirectIO = SwitchOff
		dev := attach(t, ctl, path, cfg)
		disk := openFile(t, dev.Path(), os.O_RDWR|unix.O_DIRECT)
		mem := alignedMemory(t, 64<<10)
		for _, tt := range []struct {
			name  string
			part  int
			errno syscall.Errno
			times int
			want  error
		}{
			{"whole", 0, 0, 0, nil},
			{"in parts of a page", 4096, 0, 0, nil},
			{"in parts of 1000 bytes", 1000, 0, 0, nil},
			{"EINTR thrice", 0, unix.EINTR, 3, nil},
			{"EAGAIN once", 0, unix.EAGAIN, 1, nil},
			{"EIO", 0, unix.EIO, 1, unix.EIO},
			{"ENOSPC", 0, unix.ENOSPC, 1, unix.ENOSPC},
			{"ETIMEDOUT", 0, unix.ETIMEDOUT, 1, unix.ETIMEDOUT},
		} {
			t.Run(tt.name, func(t *testing.T) {
				want := random(make([]byte, len(mem)))
				copy(mem, want)
				file.behave(tt.part, tt.errno, tt.times)
				err := within(t, "write", func() error { _, err := disk.WriteAt(mem, 1<<20); return err })
				checkMoody(t, "write", err, tt.want, transferred(t, cfg, file.content(), 1<<20, len(mem), decrypt), want)
				if tt.part > 0 {
					// io_uring itself continues a short read, but at its start, because
					// FUSE does not advance the position (fs/fuse/file.c,
					// fuse_direct_read_iter, Linux 7.3).
					return
				}
				file.set(2<<20, want)
				file.set(2<<20, transferred(t, cfg, file.content(), 2<<20, len(mem), encrypt))
				clear(mem)
				file.behave(tt.part, tt.errno, tt.times)
				err = within(t, "read", func() error { _, err := disk.ReadAt(mem, 2<<20); return err })
				checkMoody(t, "read", err, tt.want, mem, want)
			})
		}
	})
}

// warmUpFUSE makes the library open the pipes that it then keeps.
func warmUpFUSE(t *testing.T) {
	t.Helper()
	_, path := mountMoody(t)
	if _, err := os.ReadFile(path); err != nil {
		t.Fatal(err)
	}
}

func checkMoody(t *testing.T, what string, err, wantErr error, got, want []byte) {
	t.Helper()
	if !errors.Is(err, wantErr) {
		t.Fatalf("%s: error %v, want %v", what, err, wantErr)
	}
	if wantErr == nil && string(got) != string(want) {
		t.Fatalf("%s: other bytes", what)
	}
}
