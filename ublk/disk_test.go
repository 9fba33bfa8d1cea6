package ublk

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// device has every method that a Disk can use, and records the calls.
type device struct {
	data  []byte
	calls []string
	err   error
}

func (d *device) note(format string, args ...any) error {
	d.calls = append(d.calls, fmt.Sprintf(format, args...))
	return d.err
}

func (d *device) ReadAt(p []byte, off int64) (int, error) { return copy(p, d.data[off:]), d.err }

func (d *device) WriteAt(p []byte, off int64) (int, error) {
	return copy(d.data[off:], p), d.note("write %d at %d", len(p), off)
}

func (d *device) Sync() error                    { return d.note("sync") }
func (d *device) Discard(off, n int64) error     { return d.note("discard %d at %d", n, off) }
func (d *device) WriteZeroes(off, n int64) error { return d.note("zero %d at %d", n, off) }

// readerOnly hides all but ReadAt.
type readerOnly struct{ io.ReaderAt }

// The methods of the ReaderAt decide what the device can do.
func TestDiskDescribe(t *testing.T) {
	for _, tt := range []struct {
		name string
		over io.ReaderAt
		was  Params
		want Params
	}{
		{"all", &device{}, Params{}, Params{VolatileCache: true, Discard: DiscardParams{MaxBytes: 1 << 31}, MaxWriteZeroesBytes: 1 << 31}},
		{"a reader", strings.NewReader(""), Params{}, Params{ReadOnly: true}},
		{"all, read-only", &device{}, Params{ReadOnly: true}, Params{ReadOnly: true, VolatileCache: true}},
		{
			"limits", &device{},
			Params{Discard: DiscardParams{MaxBytes: 512}, MaxWriteZeroesBytes: 1024},
			Params{VolatileCache: true, Discard: DiscardParams{MaxBytes: 512}, MaxWriteZeroesBytes: 1024},
		},
	} {
		p := tt.was
		NewDisk(tt.over).Describe(&p)
		if p != tt.want {
			t.Errorf("%s: %+v, want %+v", tt.name, p, tt.want)
		}
	}
}

// Each operation calls its method. An operation without a method is refused.
func TestDiskDoes(t *testing.T) {
	bad := unix.ENOSPC
	for _, tt := range []struct {
		op    Op
		flags Flags
		fails error
		want  []string
	}{
		{OpWrite, 0, nil, []string{"write 8 at 16"}},
		{OpWrite, FlagFUA, nil, []string{"write 8 at 16", "sync"}},
		{OpWrite, FlagFUA, bad, []string{"write 8 at 16"}},
		{OpFlush, 0, nil, []string{"sync"}},
		{OpFlush, 0, bad, []string{"sync"}},
		{OpDiscard, 0, nil, []string{"discard 8 at 16"}},
		{OpWriteZeroes, 0, bad, []string{"zero 8 at 16"}},
		{OpWriteZeroes, FlagFUA, nil, []string{"zero 8 at 16", "sync"}},
	} {
		over := &device{data: make([]byte, 32), err: tt.fails}
		data := bytes.Repeat([]byte{1}, 8)
		if err := NewDisk(over).do(tt.op, tt.flags, data, 16, 8); !errors.Is(err, tt.fails) {
			t.Errorf("%v: error %v, want %v", tt.op, err, tt.fails)
		}
		if !slices.Equal(over.calls, tt.want) {
			t.Errorf("%v: calls %q, want %q", tt.op, over.calls, tt.want)
		}
		if wrote := over.data[16] == 1; wrote != (tt.op == OpWrite) {
			t.Errorf("%v: wrote: %v", tt.op, wrote)
		}
		if tt.flags == FlagFUA && tt.op != OpWrite {
			continue
		}
		if err := NewDisk(readerOnly{over}).do(tt.op, tt.flags, data, 16, 8); !errors.Is(err, unix.EOPNOTSUPP) {
			t.Errorf("%v without a method: error %v, want EOPNOTSUPP", tt.op, err)
		}
	}
}

// lastByte returns io.EOF with its last byte.
type lastByte struct{ n int }

func (l lastByte) ReadAt(p []byte, _ int64) (int, error) { return min(l.n, len(p)), io.EOF }

// A short read fails, because the missing bytes would read as other data.
func TestDiskReads(t *testing.T) {
	over := &device{data: []byte("0123456789")}
	got := make([]byte, 4)
	if err := NewDisk(over).do(OpRead, 0, got, 2, 4); err != nil || string(got) != "2345" {
		t.Errorf("read %q, error %v", got, err)
	}
	if err := NewDisk(lastByte{4}).do(OpRead, 0, got, 0, 4); err != nil {
		t.Errorf("whole, with io.EOF: error %v", err)
	}
	for _, over := range []io.ReaderAt{lastByte{3}, lastByte{0}, &device{data: []byte("012")}} {
		if err := NewDisk(over).do(OpRead, 0, got, 0, 4); err == nil || Result(err) != -int32(unix.EIO) {
			t.Errorf("a short read: error %v, want one that is EIO", err)
		}
	}

	if err := NewDisk(&device{data: []byte("012"), err: unix.ETIMEDOUT}).do(OpRead, 0, got, 0, 4); !errors.Is(err, unix.ETIMEDOUT) {
		t.Errorf("error %v, want ETIMEDOUT", err)
	}
}

// gate is a ReaderAt that waits.
type gate chan struct{}

func (g gate) ReadAt(p []byte, _ int64) (int, error) {
	<-g
	return len(p), nil
}

// A read that waits does not delay others.
func TestDiskRequestsHaveGoroutines(t *testing.T) {
	g := make(gate)
	q := serveNull(t, 4, NewDisk(g))
	settled(t, q, func(s Stats) bool { return s.InService == 4 })
	close(g)
	settled(t, q, func(s Stats) bool { return s.Ops[OpRead].Requests > 100 && s.Ops[OpRead].Errors == 0 })
}

// Inline gives no request to another goroutine.
func TestDiskInline(t *testing.T) {
	d := NewDisk(strings.NewReader(strings.Repeat("x", nullRequestBytes)))
	d.Inline = true
	q := serveNull(t, 4, d)
	settled(t, q, func(s Stats) bool { return s.Ops[OpRead].Requests > 1000 && s.Ops[OpRead].Errors == 0 })
	if err := q.thread.do(func() error {
		if q.async != nil {
			t.Error("a request was given to another goroutine")
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}
