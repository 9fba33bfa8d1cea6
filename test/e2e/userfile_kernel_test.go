package e2e

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// userFileVariable names a directory. If it is set, this program serves a file system in
// user space that is mounted there, and runs no tests.
const userFileVariable = "UBLK_LOOP_TEST_FILE_SYSTEM"

// TestMain runs the tests, or what userFileVariable or fromImageVariable asks for.
func TestMain(m *testing.M) {
	if wrapper := os.Getenv(fromImageVariable); wrapper != "" {
		panic(runFromImage(wrapper, os.Args[1:]))
	}
	if dir := os.Getenv(userFileVariable); dir != "" {
		if err := serveUserFile(dir); err != nil {
			panic(err)
		}
		return
	}
	if len(os.Args) > 2 && os.Args[1] == replacedRole {
		panic(stopAndExecute(os.Args))
	}
	os.Exit(m.Run())
}

// userFile is a file of a file system in user space, in the memory of its process.
type userFile struct {
	fs.Inode
	mu   sync.Mutex // protects the fields below
	data []byte
	gate chan struct{} // a flush waits for it unless it is nil; close(2) sends a flush
	// asked is told, unless it is nil, of each question about the file's attributes, which waits for the gate.
	asked func()
}

var (
	_ fs.NodeGetattrer = (*userFile)(nil)
	_ fs.NodeOpener    = (*userFile)(nil)
	_ fs.NodeReader    = (*userFile)(nil)
	_ fs.NodeWriter    = (*userFile)(nil)
	_ fs.NodeFlusher   = (*userFile)(nil)
)

// Getattr implements fs.NodeGetattrer.
func (u *userFile) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	if u.asked != nil {
		u.asked()
		u.wait()
	}
	out.Mode, out.Size = unix.S_IFREG|0o600, uint64(len(u.data))
	return 0
}

// Open implements fs.NodeOpener.
func (u *userFile) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	return nil, fuse.FOPEN_DIRECT_IO, 0
}

// Read implements fs.NodeReader.
func (u *userFile) Read(_ context.Context, _ fs.FileHandle, into []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return fuse.ReadResultData(into[:copy(into, u.data[min(int(off), len(u.data)):])]), 0
}

// Write implements fs.NodeWriter.
func (u *userFile) Write(_ context.Context, _ fs.FileHandle, data []byte, off int64) (uint32, syscall.Errno) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return uint32(copy(u.data[off:], data)), 0
}

// Flush implements fs.NodeFlusher.
func (u *userFile) Flush(context.Context, fs.FileHandle) syscall.Errno {
	u.wait()
	return 0
}

// wait waits for the gate.
func (u *userFile) wait() {
	u.mu.Lock()
	gate := u.gate
	u.mu.Unlock()
	if gate != nil {
		<-gate
	}
}

// shut closes the gate again, or only opens it.
func (u *userFile) shut(again bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.gate != nil {
		close(u.gate)
		u.gate = nil
	}
	if again {
		u.gate = make(chan struct{})
	}
}

// serveUserFile serves a file of 1 MiB until the directory is unmounted. From SIGUSR1 to
// SIGUSR2 it does not answer a flush, nor a question about the file "mute", of which it tells. Another file has the same inode number, and other contents.
func serveUserFile(dir string) error {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGUSR1, unix.SIGUSR2)
	file, twin, root := &userFile{data: make([]byte, 1<<20)}, &userFile{data: bytes.Repeat([]byte("twin"), 1<<18)}, &fs.Inode{}
	mute := &userFile{asked: func() { _, _ = os.Stdout.WriteString("done\n") }}
	keep := time.Hour // the kernel asks once for a name
	server, err := fs.Mount(dir, root, &fs.Options{
		EntryTimeout: &keep,
		MountOptions: fuse.MountOptions{DirectMount: true},
		OnAdd: func(ctx context.Context) {
			root.AddChild("file", root.NewPersistentInode(ctx, file, fs.StableAttr{Mode: unix.S_IFREG, Ino: 7, Gen: 1}), true)
			root.AddChild("mute", root.NewPersistentInode(ctx, mute, fs.StableAttr{Mode: unix.S_IFREG}), true)
			root.AddChild("twin", root.NewPersistentInode(ctx, twin, fs.StableAttr{Mode: unix.S_IFREG, Ino: 7, Gen: 2}), true)
		},
	})
	if err != nil {
		return err
	}
	go func() { // until the process ends
		for s := range signals {
			for _, f := range []*userFile{file, mute} {
				f.shut(s == unix.SIGUSR1)
			}
			_, _ = os.Stdout.WriteString("done\n")
		}
	}()
	_, _ = os.Stdout.WriteString("done\n")
	server.Wait()
	return nil
}

// fileProcess is the process of a file system in user space.
type fileProcess struct {
	b    *bed
	cmd  *exec.Cmd
	said *os.File
	path string // of its file
}

// userFile mounts a file system in user space until the end of the test.
func (b *bed) userFile() *fileProcess {
	b.Helper()
	if _, err := os.Stat("/dev/fuse"); err != nil {
		b.tool("modprobe", "fuse")
	}
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	said, out, err := os.Pipe()
	if err != nil {
		b.Fatal(err)
	}
	dir := b.TempDir()
	p := &fileProcess{b: b, cmd: withEnv(exec.Command(self), userFileVariable+"="+dir), said: said, path: filepath.Join(dir, "file")}
	p.cmd.Stdout, p.cmd.Stderr = out, os.Stderr
	err = p.cmd.Start()
	if err := errors.Join(err, out.Close()); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		b.tool("umount", "--lazy", dir)
		if err := p.cmd.Wait(); err != nil {
			b.Errorf("the file system: %v", err)
		}
		_ = said.Close()
	})
	p.done()
	return p
}

// done waits until the process has done what it was told to.
func (p *fileProcess) done() {
	p.b.Helper()
	if _, err := p.said.Read(make([]byte, len("done\n"))); err != nil {
		p.b.Fatalf("the file system: %v", err)
	}
}

// signal sends a signal to the process.
func (p *fileProcess) signal(s syscall.Signal) {
	p.b.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.b.Fatal(err)
	}
	if s == unix.SIGUSR1 || s == unix.SIGUSR2 {
		p.done()
	}
}
