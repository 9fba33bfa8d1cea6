package backing

import (
	"testing"

	"golang.org/x/sys/unix"
)

// After a failure, each flush fails until one that was sent later has ended. Requests beside a failure fail too.
func TestFailures(t *testing.T) {
	const eio, full, none = -int32(unix.EIO), -int32(unix.ENOSPC), 0
	var f Failures
	expect := func(what string, got, want int32) {
		t.Helper()
		if got != want {
			t.Errorf("%s: result %d, want %d", what, got, want)
		}
	}
	beside := f.Look()
	f.Add(eio)
	expect("flush beside the failure", f.AfterFlush(beside, 0), eio)
	expect("FUA beside the failure", f.AfterFUA(beside), eio)
	first, second := f.Look(), f.Look()
	expect("first flush after it", f.AfterFlush(first, 0), eio)
	expect("flush beside the first one", f.AfterFlush(second, 0), eio)
	expect("FUA beside the first one", f.AfterFUA(second), none)
	expect("next flush", f.AfterFlush(f.Look(), 0), none)

	f.Add(eio)
	old := f.Look()
	f.Add(full)
	expect("flush between two failures", f.AfterFlush(old, 0), eio)
	expect("flush that fails itself", f.AfterFlush(f.Look(), eio), eio)
	expect("flush after that", f.AfterFlush(f.Look(), 0), none)

	beside = f.Look()
	expect("flush that fails alone", f.AfterFlush(f.Look(), full), full)
	expect("flush beside it", f.AfterFlush(beside, 0), full)
	expect("FUA beside it", f.AfterFUA(beside), full)
	expect("flush after it", f.AfterFlush(f.Look(), 0), none)

	f.Add(eio)
	old = f.Look()
	f.Add(full)
	expect("flush that began before the second failure", f.AfterFlush(old, 0), eio)
	expect("flush after the second failure", f.AfterFlush(f.Look(), 0), full)
}

// A write with FUA that includes no flush, or has failed before it, has not taken the error of other data.
func TestFailuresOfFUA(t *testing.T) {
	const eio, full, quota = -int32(unix.EIO), -int32(unix.ENOSPC), -int32(unix.EDQUOT)
	for _, tt := range []struct {
		isDisk, direct bool
		errno, want    int32
	}{
		{false, false, eio, eio},
		{false, false, full, full},
		{false, false, quota, quota},
		{false, true, eio, eio},
		{false, true, full, 0},
		{false, true, quota, 0},
		{true, false, eio, eio},
		{true, false, full, full},
		{true, true, eio, 0},
	} {
		var f Failures
		f.AddFUA(&Backing{IsDisk: tt.isDisk, Direct: tt.direct}, tt.errno)
		if got := f.AfterFlush(f.Look(), 0); got != tt.want {
			t.Errorf("%+v: the next flush has the result %d", tt, got)
		}
	}
}
