package ring_test

import (
	"fmt"
	"log"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ring"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// One submit passes a write and an fsync that waits for the write.
func Example() {
	r, err := ring.New(ring.Options{Entries: 2})
	if err != nil {
		log.Fatal(err)
	}
	defer r.Close()
	buf, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		log.Fatal(err) // an operation needs memory that Go does not move
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

// The example prints what it should on each kernel.
func TestKernelExample(t *testing.T) {
	ublktest.Kernel(t, ublktest.OldestKernel)
	if got, want := ublktest.Printed(t, Example), "1 result 4096\n2 result 0\nhello <nil>\n"; got != want {
		t.Errorf("the example prints %q, want %q", got, want)
	}
}
