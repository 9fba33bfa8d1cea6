package target

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/loop/internal/backing"
	"github.com/ublk-loop/ublk-loop/ring"
	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// These are depths of a queue, in which a request is alone or beside another one.
const (
	alone    = 1
	together = 2
)

// errnos are errors of a backing that do not lead to another try.
var errnos = []unix.Errno{
	unix.EIO, unix.ENOSPC, unix.EDQUOT, unix.EROFS, unix.EPERM, unix.EFBIG, unix.EBADF, unix.EINVAL,
	unix.ENODEV, unix.ENXIO, unix.ESTALE, unix.ETIMEDOUT, unix.ENOMEM, unix.ECANCELED, unix.EREMOTEIO, unix.EILSEQ,
}

// memoryFile returns a file in memory.
func memoryFile(t testing.TB, content []byte) *os.File {
	t.Helper()
	fd, err := unix.MemfdCreate("image", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "image")
	t.Cleanup(func() { _ = f.Close() })
	if _, err := f.Write(content); err != nil {
		t.Fatal(err)
	}
	return f
}

func seal(t testing.TB, f *os.File, seals int) {
	t.Helper()
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		t.Fatal(err)
	}
}

// pattern returns n bytes, each different from the one before.
func pattern(n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(i) ^ byte(i>>8)*31 ^ 0x5a
	}
	return p
}

// answers returns the results that operations have to get.
func answers(results ...int32) []int32 { return results }

// failed returns the result of a failed operation.
func failed(errno unix.Errno) int32 { return -int32(errno) }

// linkable reports whether the kernel can carry out a linked commit.
func linkable(t testing.TB) bool {
	t.Helper()
	r, err := ring.New(ring.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	return r.Features()&ring.IORING_FEAT_NO_IOWAIT != 0
}

// wantResult checks the result of a request and its number of operations.
func wantResult(t *testing.T, r ublktest.Reply, result int32, operations int) {
	t.Helper()
	if r.Result != result {
		t.Errorf("result %d, want %d", r.Result, result)
	}
	if len(r.Entries) != operations {
		t.Errorf("%d operations, want %d: %+v", len(r.Entries), operations, r.Entries)
	}
}

func TestHandlerRefusesUnknownOperations(t *testing.T) {
	d := ublktest.NewDisk(t, together, &Target{Backing: &backing.Backing{FD: int(memoryFile(t, nil).Fd())}})
	for _, op := range []ublk.Op{4, 6, 10, 255} {
		wantResult(t, d.Do(ublktest.Request{Op: op, Sectors: 1}), failed(unix.EOPNOTSUPP), 0)
	}
}

// A request does not affect the next request with its tag.
func TestHandlerForgetsTheLastRequest(t *testing.T) {
	content := pattern(4096)
	d := ublktest.NewDisk(t, together, &Target{Backing: &backing.Backing{FD: int(memoryFile(t, content).Fd())}})
	for range 2 * together { // each tag twice
		r := d.Do(ublktest.Request{
			Op: ublk.OpRead, Sectors: 8,
			Answers: answers(512, failed(unix.EAGAIN), 1024, failed(unix.EIO)),
		})
		wantResult(t, r, failed(unix.EIO), 4)
	}
	for range 2 * together {
		r := d.Do(ublktest.Request{Op: ublk.OpRead, Sectors: 8, Answers: answers(failed(unix.EAGAIN))})
		wantResult(t, r, 4096, 2)
		if string(r.Data) != string(content) {
			t.Error("other bytes than the file's")
		}
	}
	for range 2 * together {
		wantResult(t, d.Do(ublktest.Request{Op: ublk.OpFlush, Answers: answers(failed(unix.EIO))}), failed(unix.EIO), 1)
		r := d.Do(ublktest.Request{Op: ublk.OpRead, Sectors: 8})
		wantResult(t, r, 4096, 1)
	}
}
