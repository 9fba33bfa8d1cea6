package ring

import (
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// The kernel gets every argument of an operation. It carries out the operation, or refuses it if
// an argument is invalid.
func TestPrep(t *testing.T) {
	r := newRing(t, Options{})
	f := scratchFile(t)
	file, buf := FD(int(f.Fd())), offHeap(t, 4096)
	if err := r.RegisterBuffers([][]byte{nil, buf}); err != nil {
		t.Fatal(err)
	}
	vectors := []unix.Iovec{{Base: &buf[2048]}, {Base: &buf[0]}}
	for i := range vectors {
		vectors[i].SetLen(256)
	}
	var pinner runtime.Pinner // the kernel reads the vectors
	defer pinner.Unpin()
	pinner.Pin(&vectors[0])
	for _, tt := range []struct {
		name string
		prep func(*SQE)
		want int32
	}{
		{"read", func(s *SQE) { s.PrepReadFixed(file, Address(buf)+512, 1024, 4096, 1) }, 1024},
		{"read into no buffer", func(s *SQE) { s.PrepReadFixed(file, Address(buf), 512, 0, 0) }, -int32(unix.EFAULT)},
		{"read behind the end", func(s *SQE) { s.PrepReadFixed(file, Address(buf), 4096, 8192, 1) }, 0},
		{"synchronous write", func(s *SQE) { s.PrepWriteFixed(file, Address(buf), 512, 512, 1, unix.RWF_DSYNC) }, 512},
		{"write with an unknown flag", func(s *SQE) { s.PrepWriteFixed(file, Address(buf), 512, 0, 1, 1<<31) }, -int32(unix.EOPNOTSUPP)},
		{"read into other memory", func(s *SQE) { s.PrepRead(file, Address(buf)+2048, 512, 4096) }, 512},
		{"read into none", func(s *SQE) { s.PrepRead(file, 0, 512, 0) }, -int32(unix.EFAULT)},
		{"write of other memory", func(s *SQE) { s.PrepWrite(file, Address(buf)+2048, 512, 0) }, 512},
		{"write of two pieces", func(s *SQE) { s.PrepWritev(file, vectors, 0) }, 512},
		{"fdatasync", func(s *SQE) { s.PrepFsync(file, IORING_FSYNC_DATASYNC) }, 0},
		{"sync with an unknown flag", func(s *SQE) { s.PrepFsync(file, 1<<31) }, -int32(unix.EINVAL)},
		{"longer file", func(s *SQE) { s.PrepFallocate(file, 0, 8192, 512) }, 0},
		{"allocation of nothing", func(s *SQE) { s.PrepFallocate(file, 0, 8192, 0) }, -int32(unix.EINVAL)},
		{"unknown allocation", func(s *SQE) { s.PrepFallocate(file, 1<<30, 0, 512) }, -int32(unix.EOPNOTSUPP)},
		{"no file", func(s *SQE) { s.PrepFsync(File{}, 0) }, -int32(unix.EBADF)},
		{"nothing to cancel", func(s *SQE) { s.PrepCancel(1234) }, -int32(unix.ENOENT)},
	} {
		tt.prep(r.GetSQE())
		if got := do(t, r, 1)[0]; got != tt.want {
			t.Errorf("%s: result %d, want %d", tt.name, got, tt.want)
		}
	}
	if info, err := f.Stat(); err != nil || info.Size() != 8704 {
		t.Errorf("the file has %d bytes, error %v, want 8704", info.Size(), err)
	}
	if buf[511] != 0 || buf[512] != 'y' || buf[1535] != 'y' || buf[1536] != 0 {
		t.Error("the read went elsewhere")
	}
}

// GetSQE clears both halves of a wide entry.
func TestWideSQEIsZeroed(t *testing.T) {
	r := newRing(t, Options{Entries: 1, SQE128: true})
	for range 3 {
		sqe := r.GetSQE()
		payload := (*[80]byte)(sqe.Payload128())
		for i, b := range payload {
			if b != 0 {
				t.Fatalf("byte %d of a payload is %#x", i, b)
			}
			payload[i] = 0xff
		}
		sqe.PrepNop()
		sqe.Addr3, sqe.Pad2 = 0, 0
		if got := do(t, r, 1)[0]; got != 0 {
			t.Fatalf("result %d", got)
		}
	}
}

// UpdateFile ends the pinning of its argument. Otherwise Go ends the program when it collects
// garbage.
func TestUpdateFileUnpins(t *testing.T) {
	r := newRing(t, Options{})
	if err := r.RegisterFiles([]int32{-1}); err != nil {
		t.Fatal(err)
	}
	for range 2 { // Go keeps the first pinner for the next use
		if err := r.UpdateFile(0, -1); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 { // Go runs finalizers one after the other, in no known order
		collected := make(chan struct{})
		runtime.SetFinalizer(&[64]byte{}, func(*[64]byte) { close(collected) })
		runtime.GC()
		<-collected
	}
}

func TestUpdateFileOfASlot(t *testing.T) {
	r := newRing(t, Options{})
	f := scratchFile(t)
	if err := r.RegisterFiles([]int32{-1, -1, -1}); err != nil {
		t.Fatal(err)
	}
	for slot := range uint32(3) {
		if err := r.UpdateFile(slot, int32(f.Fd())); err != nil {
			t.Fatal(err)
		}
		for other := range uint32(3) {
			sqe := r.GetSQE()
			sqe.PrepFsync(FixedFile(other), 0)
			want := int32(0)
			if other != slot {
				want = -int32(unix.EBADF)
			}
			if got := do(t, r, 1)[0]; got != want {
				t.Errorf("slot %d with a file in slot %d: result %d, want %d", other, slot, got, want)
			}
		}
		if err := r.UpdateFile(slot, -1); err != nil {
			t.Fatal(err)
		}
	}
}
