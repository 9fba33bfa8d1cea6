package loop

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// onThreads is a target that records its queues' threads.
type onThreads struct {
	ublk.Target
	mu   *sync.Mutex
	tids map[int]bool
}

func (o onThreads) NewHandler(q *ublk.Queue) (ublk.Handler, error) {
	o.mu.Lock()
	o.tids[unix.Gettid()] = true
	o.mu.Unlock()
	return o.Target.NewHandler(q)
}

func recordThreads(target ublk.Target) onThreads {
	return onThreads{target, &sync.Mutex{}, map[int]bool{}}
}

// have reports whether all these threads are recorded.
func (o onThreads) have(tids map[int]bool) bool {
	for tid := range tids {
		if !o.tids[tid] {
			return false
		}
	}
	return true
}

// A device that shares its queues' threads with other devices behaves like a device with
// threads of its own.
func TestKernelConformanceOnSharedThreads(t *testing.T) {
	ctl := ublktest.Kernel(t)
	path := sparseFile(t, fileSystem(t, "ext4"))
	for _, m := range modes(512) {
		t.Run(m.String(), func(t *testing.T) {
			needMode(t, ctl, m.zeroCopy)
			m.threads = ublk.NewThreads(0, func(err error) { t.Error(err) })
			neighbours := recordThreads(neighbour{m.zeroCopy.ZeroCopy(), alignedMemory(t, 4096)})
			for range 10 {
				startNeighbour(t, ctl, m, neighbours)
			}
			var own onThreads
			s := attachMode(t, ctl, path, m, func(target ublk.Target) ublk.Target {
				own = recordThreads(target)
				return own
			})
			for n := 0; !neighbours.have(own.tids); n++ {
				if n == 10 {
					t.Fatal("no neighbour comes to the device's threads")
				}
				startNeighbour(t, ctl, m, neighbours)
			}
			for _, name := range slices.Sorted(maps.Keys(conformance)) {
				t.Run(name, func(t *testing.T) {
					s.t = t
					conformance[name](s)
				})
			}
		})
	}
}

// neighbour is a target that uses all slots of its ring's buffer table, so that another
// device's buffers would not fit if they were put there.
type neighbour struct {
	zeroCopy bool
	page     []byte
}

func (n neighbour) NewHandler(q *ublk.Queue) (ublk.Handler, error) {
	slots := 0
	if n.zeroCopy {
		slots = 2 * q.Depth()
	}
	for i := range slots {
		if err := q.Ring().UpdateBuffers(q.BufferSlot(i), [][]byte{n.page}); err != nil {
			return nil, err
		}
	}
	return answerer{}, nil
}

// answerer completes every request at once, in every mode.
type answerer struct{}

func (answerer) Handle(req *ublk.Request)  { req.Complete(nil) }
func (answerer) Done(*ublk.Request, int32) {}

// startNeighbour starts a device whose queues can share threads with those of attachMode.
func startNeighbour(t *testing.T, ctl *ublk.Control, m mode, target ublk.Target) {
	t.Helper()
	dev, err := ctl.Add(ublk.Options{Mode: m.zeroCopy, Queues: m.queues, NoPartScan: true, Threads: m.threads})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := dev.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := dev.SetParams(ublk.Params{Size: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	if err := dev.Start(target); err != nil {
		t.Fatal(err)
	}
}

// Each device on shared threads has its own file, and its removal leaves no reference to
// the file. Therefore an unlinked file then frees its space.
func TestKernelSharedThreadsKeepFilesApart(t *testing.T) {
	ctl := ublktest.Kernel(t)
	s := NewServer(ctl, ServerOptions{})
	defer func() {
		if err := s.Shutdown(); err != nil {
			t.Error(err)
		}
	}()
	dir := fileSystem(t, "ext4")
	shared := sparseFile(t, dir)
	for range 8 {
		addReadOnly(t, s, shared)
	}
	full := filepath.Join(dir, "full")
	if err := os.WriteFile(full, bytes.Repeat([]byte{0xff}, 8<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	used := usedBlocks(t, dir)
	for range 4 {
		addReadOnly(t, s, full)
	}
	for _, d := range s.all() {
		isFull := d.dev.Status().File == full
		if holds := firstByte(t, d.dev.Path()) == 0xff; holds != isFull {
			t.Errorf("%s is of the full file: %v, has its bytes: %v", d.dev.Path(), isFull, holds)
		}
		if !isFull {
			continue
		}
		if err := s.Remove(d.dev.ID(), DetachOptions{Force: true}); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(full); err != nil {
		t.Fatal(err)
	}
	if now := usedBlocks(t, dir); now > used-(8<<20)/4096 {
		t.Errorf("%d blocks of the file system are in use, %d before a file of 2048 went", now, used)
	}
}

func firstByte(t *testing.T, path string) byte {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	var b [1]byte
	if _, err := f.Read(b[:]); err != nil {
		t.Fatal(err)
	}
	return b[0]
}

func addReadOnly(t *testing.T, s *Server, path string) {
	t.Helper()
	file := openPath(t, path)
	defer func() { _ = file.Close() }()
	if _, err := s.Add(file, Config{ReadOnly: true, DirectIO: SwitchOn, Depth: 4}); err != nil {
		t.Fatal(err)
	}
}

// usedBlocks returns the number of used blocks of 4096 bytes in a tmpfs.
func usedBlocks(t *testing.T, dir string) int {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	return int(st.Blocks - st.Bfree)
}
