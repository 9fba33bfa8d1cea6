package filecopy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// A copy has the same content and the same holes.
func TestCopyData(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	from, err := os.Create(filepath.Join(dir, "from"))
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	const size = 64 << 20
	want := make([]byte, size)
	for _, at := range []int{0, 20 << 20, 40<<20 + 12345} {
		copy(want[at:], bytes.Repeat([]byte{'x'}, 1<<20))
		if _, err := from.WriteAt(want[at:at+1<<20], int64(at)); err != nil {
			t.Fatal(err)
		}
	}
	if err := from.Truncate(size); err != nil {
		t.Fatal(err)
	}
	to, err := os.Create(filepath.Join(dir, "to"))
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	if err := Data(ctx, to, from); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(to); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the copy differs, error %v", err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(to.Fd()), &st); err != nil || st.Blocks*512 > 8<<20 {
		t.Errorf("the copy of 3 MiB takes %d bytes, error %v", st.Blocks*512, err)
	}
	canceled, cancel := context.WithCancel(ctx)
	cancel()
	if err := Data(canceled, to, from); !errors.Is(err, context.Canceled) {
		t.Errorf("a copy that nobody wants: %v", err)
	}
}

// A range of a file that was truncated meanwhile is an error, and the context ends a copy, also
// between file systems, where the kernel does not copy.
func TestCopyBetweenFileSystems(t *testing.T) {
	to, err := os.Create(filepath.Join(t.TempDir(), "to"))
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	fd, err := unix.MemfdCreate("from", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	memory := os.NewFile(uintptr(fd), "from")
	defer memory.Close()
	if err := memory.Truncate(4096); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	if err := copyRange(ctx, to, memory, 0, 4096); err != nil {
		t.Errorf("the whole file: %v", err)
	}
	if err := copyRange(ctx, to, memory, 0, 8192); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("more than the file has: %v", err)
	}
	cancel()
	if err := copyRange(ctx, to, memory, 0, 4096); !errors.Is(err, context.Canceled) {
		t.Errorf("a copy that nobody wants: %v", err)
	}
}

// callingContext calls a function when it is asked for an error, which a copy does before each part.
type callingContext struct {
	context.Context
	call func()
}

func (c *callingContext) Err() error {
	c.call()
	return nil
}

// A copy of a file that becomes shorter meanwhile is an error, also if only a hole was left to copy.
func TestCopyOfShortenedFile(t *testing.T) {
	dir := t.TempDir()
	for _, kept := range []int64{1 << 10, 1 << 20, 2 << 20} {
		from, err := os.Create(filepath.Join(dir, "from"))
		if err != nil {
			t.Fatal(err)
		}
		defer from.Close()
		to, err := os.Create(filepath.Join(dir, "to"))
		if err != nil {
			t.Fatal(err)
		}
		defer to.Close()
		_, err = from.Write(bytes.Repeat([]byte{'x'}, 1<<20))
		if err = errors.Join(err, from.Truncate(4<<20)); err != nil {
			t.Fatal(err)
		}
		ctx := &callingContext{context.Background(), func() {
			if err := from.Truncate(kept); err != nil {
				t.Error(err)
			}
		}}
		if err := Data(ctx, to, from); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%d bytes are left: error %v", kept, err)
		}
	}
}

func TestDoubles(t *testing.T) {
	for _, tt := range []struct {
		extents []Extent
		want    int64
	}{
		{nil, 0},
		{[]Extent{{8, 4}, {0, 4}}, 0},
		{[]Extent{{8, 4}, {0, 4}, {8, 4}, {8, 4}}, 8},
		{[]Extent{{0, 10}, {2, 3}, {4, 10}, {13, 2}}, 10},
	} {
		var d Doubles
		for i, e := range tt.extents {
			if d.Add(e); i%2 == 0 {
				d.Bytes()
			}
		}
		if got := d.Bytes(); got != tt.want {
			t.Errorf("%v: %d, want %d", tt.extents, got, tt.want)
		}
	}
}

// Many files that share the same fragments of a disk take the memory of one of them.
func TestDoublesOfManyFiles(t *testing.T) {
	const files, fragments, length = 16, 20_000, 4096
	var d Doubles
	for range files {
		for i := range int64(fragments) {
			d.Add(Extent{2 * length * (fragments - i), length})
		}
	}
	if got, want := d.Bytes(), int64((files-1)*fragments*length); got != want {
		t.Errorf("%d bytes, want %d", got, want)
	}
	if most := 3 * (2*fragments + unsorted); cap(d.extents) > most {
		t.Errorf("memory for %d extents, want at most %d", cap(d.extents), most)
	}
}
