package ublk_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// divider reads each sector of a request from a file of its own, all at once, with a part
// number for each. The first error is the request's.
type divider struct {
	fds     []int
	files   []ublk.File
	left    []int   // by tag: parts without a result
	errno   []int32 // by tag
	results atomic.Uint64
}

func (d *divider) NewHandler(q *ublk.Queue) (ublk.Handler, error) {
	for _, fd := range d.fds {
		file, err := q.RegisterFile(fd)
		if err != nil {
			return nil, err
		}
		d.files = append(d.files, file)
	}
	d.left, d.errno = make([]int, q.Depth()), make([]int32, q.Depth())
	return d, nil
}

func (d *divider) Handle(req *ublk.Request) {
	n := int(req.Sectors)
	d.left[req.Tag()], d.errno[req.Tag()] = n, 0
	for part := n - 1; part >= 0; part-- {
		addr, index := req.Buffer(uint32(part) * 512)
		req.PartSQE(part).PrepReadFixed(d.files[part].File, addr, 512, 0, index)
	}
}

func (d *divider) Done(req *ublk.Request, _ int32) { req.Complete(unix.EXFULL) }

func (d *divider) PartDone(req *ublk.Request, part int, result int32) {
	d.results.Or(1 << part)
	if result != 512 && d.errno[req.Tag()] == 0 {
		d.errno[req.Tag()] = result
	}
	if d.left[req.Tag()]--; d.left[req.Tag()] == 0 {
		req.CompleteErrno(d.errno[req.Tag()])
	}
}

// sectorFiles returns open files of one sector each, with the number of the file in each byte.
func sectorFiles(t *testing.T, n int) (fds []int) {
	t.Helper()
	for i := range n {
		path := filepath.Join(t.TempDir(), "sector")
		if err := os.WriteFile(path, bytes.Repeat([]byte{byte(i)}, 512), 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = f.Close() })
		fds = append(fds, int(f.Fd()))
	}
	return fds
}

// A request can have as many parts in flight as the options say, on as many files. The
// handler gets the result of each with its number.
func TestParts(t *testing.T) {
	const parts, depth = 12, 4
	d := &divider{fds: sectorFiles(t, parts)}
	disk := ublktest.NewDiskWith(t, ublk.Options{Depth: depth, Files: parts, ExtraParts: depth * (parts - 1)}, d)
	var waits []func() ublktest.Reply
	for range depth {
		waits = append(waits, disk.Begin(ublktest.Request{Op: ublk.OpRead, Sectors: parts}))
	}
	for _, wait := range waits {
		r := wait()
		if r.Result != parts*512 || len(r.Entries) != parts {
			t.Fatalf("result %d of %d entries", r.Result, len(r.Entries))
		}
		for i, b := range r.Data {
			if b != byte(i/512) {
				t.Fatalf("byte %d is %d", i, b)
			}
		}
	}
	if got := d.results.Load(); got != 1<<parts-1 {
		t.Errorf("results of the parts %#x", got)
	}
	r := disk.Do(ublktest.Request{Op: ublk.OpRead, Sectors: 3, Answers: []int32{512, -int32(unix.ENOSPC), -int32(unix.EIO)}})
	if r.Result != -int32(unix.ENOSPC) {
		t.Errorf("result %d, want that of the second part", r.Result)
	}
}

// A queue registers as many files as its options say: one more is an error.
func TestFilesOfOptions(t *testing.T) {
	d := &divider{fds: sectorFiles(t, 3)}
	var taken ublk.Target = targetFunc(func(q *ublk.Queue) (ublk.Handler, error) {
		h, err := d.NewHandler(q)
		if err != nil {
			return nil, err
		}
		if _, err := q.RegisterFile(d.fds[0]); !errors.Is(err, unix.ENFILE) {
			t.Errorf("a fourth file of three: %v", err)
		}
		return h, nil
	})
	ublktest.NewDiskWith(t, ublk.Options{Depth: 1, Files: 3, ExtraParts: 2}, taken)
}

func TestPartsAndFilesAreLimited(t *testing.T) {
	ctl := ublk.NewControl(&ublktest.Fake{})
	for _, opts := range []ublk.Options{{ExtraParts: -1}, {ExtraParts: 1025}, {Files: -1}, {Files: 1025}} {
		if _, err := ctl.Add(opts); !errors.Is(err, unix.EINVAL) {
			t.Errorf("%+v: %v", opts, err)
		}
		recovered := ublk.RecoverOptions{Files: opts.Files, ExtraParts: opts.ExtraParts}
		if _, err := ctl.Recover(0, recovered); !errors.Is(err, unix.EINVAL) {
			t.Errorf("recover with %+v: %v", recovered, err)
		}
	}
}
