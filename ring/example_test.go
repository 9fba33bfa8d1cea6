package ring_test

import (
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ring"
)

// A write, and an fsync that waits for it, submitted together.
func Example() {
	r, err := ring.New(ring.Options{Entries: 2})
	if err != nil {
		log.Fatal(err)
	}
	defer r.Close()
	buf, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		log.Fatal(err) // the memory of an operation is memory that Go does not move
	}
	defer func() { _ = unix.Munmap(buf) }()
	copy(buf, "hello")
	if err := r.RegisterBuffers([][]byte{buf}); err != nil {
		log.Fatal(err)
	}
	f, err := os.Create(filepath.Join(os.TempDir(), "ring-example"))
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _, _ = f.Close(), os.Remove(f.Name()) }()
	file := ring.FD(int(f.Fd()))

	write := r.GetSQE()
	write.PrepWriteFixed(file, ring.Address(buf), 4096, 0, 0, 0)
	write.Flags |= ring.IOSQE_IO_LINK
	write.UserData = 1
	sync := r.GetSQE()
	sync.PrepFsync(file, ring.IORING_FSYNC_DATASYNC)
	sync.UserData = 2
	if err := r.SubmitAndWait(2); err != nil {
		log.Fatal(err)
	}
	for i := range r.CQReady() {
		cqe := r.CQE(i)
		fmt.Println(cqe.UserData, "result", cqe.Res)
	}
	r.CQAdvance(2)
	got, err := os.ReadFile(f.Name())
	fmt.Println(string(got[:5]), err)
}

// The example does what it says, where there is io_uring.
func TestExample(t *testing.T) {
	probe, err := ring.New(ring.Options{})
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) {
		t.Skipf("no io_uring here: %v", err)
	}
	if err := errors.Join(err, probe.Close()); err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	stdout := os.Stdout
	os.Stdout = w
	Example()
	os.Stdout = stdout
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(r)
	if want := "1 result 4096\n2 result 0\nhello <nil>\n"; err != nil || string(got) != want {
		t.Errorf("the example prints %q, error %v; want %q", got, err, want)
	}
}
