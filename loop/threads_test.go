package loop

import (
	"testing"

	"github.com/ublk-loop/ublk-loop/loop/internal/backing"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// Devices share threads if their files are on the same disk. Those whose threads copy share
// only with each other.
func TestThreadsOfDevices(t *testing.T) {
	shared := newThreads(nil, servesNone)
	file := func(disk uint64) *backing.Backing { return &backing.Backing{Dev: disk, Direct: true} }
	for what, tt := range map[string]struct {
		one, other *backing.Backing
		mode       ublk.BufferMode
		shares     bool
	}{
		"files on one disk":          {file(1), file(1), ublk.BufferAutoRegister, true},
		"with pages by command":      {file(1), file(1), ublk.BufferRegister, true},
		"a disk and a file on it":    {file(1), &backing.Backing{Dev: 5, Rdev: 1, IsDisk: true, Direct: true}, ublk.BufferAutoRegister, true},
		"files on two disks":         {file(1), file(2), ublk.BufferAutoRegister, false},
		"buffered":                   {&backing.Backing{Dev: 1}, &backing.Backing{Dev: 1}, ublk.BufferAutoRegister, true},
		"a buffered and another one": {&backing.Backing{Dev: 1}, file(1), ublk.BufferAutoRegister, false},
		"in copy mode":               {file(1), file(1), ublk.BufferCopy, true},
		"in copy mode, on two disks": {file(1), file(2), ublk.BufferCopy, false},
	} {
		one, other := shared.of(tt.mode.String(), tt.one), shared.of(tt.mode.String(), tt.other)
		if (one == other) != tt.shares {
			t.Errorf("%s: they share threads: %v", what, one == other)
		}
	}
	if shared.of(ublk.BufferCopy.String(), file(1)) == shared.of(ublk.BufferAutoRegister.String(), file(1)) {
		t.Error("a device in copy mode shares threads with one that does not copy")
	}
	mode := ublk.BufferAutoRegister.String()
	both := shared.of(mode, file(1), file(2))
	if both != shared.of(mode, file(2), file(1), file(2)) {
		t.Error("devices of tables on the same two disks share no threads")
	}
	if both == shared.of(mode, file(1)) || shared.of(mode, file(1), file(1)) != shared.of(mode, file(1)) {
		t.Error("a device shares threads with one that is on another disk too, or not with one on its disk only")
	}
	if both == shared.of(mode, file(1), &backing.Backing{Dev: 2}) {
		t.Error("a device shares threads with one of which only a part is buffered")
	}
	if (*threads)(nil).of(ublk.BufferAutoRegister.String(), file(1)) != nil {
		t.Error("a server of one device has shared threads")
	}
}
