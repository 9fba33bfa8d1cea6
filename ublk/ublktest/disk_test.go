package ublktest_test

import (
	"bytes"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// A handler in memory serves the requests of a test.
func TestDiskCarriesRequests(t *testing.T) {
	memory := make([]byte, 64<<10)
	d := ublktest.NewDisk(t, 2, ublk.HandlerFunc(func(req *ublk.Request) {
		at := memory[req.Offset():][:req.Bytes()]
		switch req.Op {
		case ublk.OpRead:
			copy(req.Data(), at)
		case ublk.OpWrite:
			copy(at, req.Data())
		default:
			req.Complete(unix.ENOSPC)
			return
		}
		req.Complete(nil)
	}))
	data := bytes.Repeat([]byte("data"), 1024)
	if r := d.Do(ublktest.Request{Op: ublk.OpWrite, StartSector: 3, Sectors: 8, Data: data}); r.Result != 4096 {
		t.Errorf("write: result %d, want 4096", r.Result)
	}
	if r := d.Do(ublktest.Request{Op: ublk.OpRead, StartSector: 3, Sectors: 8}); r.Result != 4096 || !bytes.Equal(r.Data, data) {
		t.Errorf("read: result %d, want 4096 and the bytes that were written", r.Result)
	}
	if r := d.Do(ublktest.Request{Op: ublk.OpFlush}); r.Result != -int32(unix.ENOSPC) {
		t.Errorf("flush: result %d, want ENOSPC", r.Result)
	}
}
