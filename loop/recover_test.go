package loop

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/identity"
	"github.com/ublk-loop/ublk-loop/internal/process"
	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/uapi"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// stateOf returns the state of a device of 4096 bytes that starts at byte 512 of a file.
func stateOf(t *testing.T, path string) *state {
	t.Helper()
	is, err := identity.Of(openPath(t, path))
	if err != nil {
		t.Fatal(err)
	}
	return &state{
		FileBirth: is.Birth, FileDisk: is.Disk,
		Status: &Status{File: path, FileDevice: is.Device, FileInode: is.Inode, Offset: 512, Size: 4096},
	}
}

func TestCheckBacking(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, make([]byte, 4608), 0o600); err != nil {
		t.Fatal(err)
	}
	s := stateOf(t, path)
	if err := s.checkBacking(openPath(t, path), 4096); err != nil {
		t.Errorf("the file itself: %v", err)
	}
	if err := s.checkBacking(openPath(t, path), 4608); !errors.Is(err, unix.EINVAL) {
		t.Errorf("too small by the offset: error %v, want EINVAL", err)
	}
	if err := os.Truncate(path, 100); err != nil {
		t.Fatal(err)
	}
	if err := s.checkBacking(openPath(t, path), 4096); !errors.Is(err, unix.EINVAL) {
		t.Errorf("cut before the offset: error %v, want EINVAL", err)
	}
	if err := os.Truncate(path, 4608); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*state){
		"another inode":       func(s *state) { s.Status.FileInode++ },
		"another file system": func(s *state) { s.Status.FileDevice, s.FileDisk = "0:0", identity.Disk{} },
		"the inode of a file that was removed": func(s *state) {
			if s.FileBirth == 0 {
				t.Log("the file system has no birth times")
			}
			s.FileBirth--
		},
	} {
		s := stateOf(t, path)
		change(s)
		if err := s.checkBacking(openPath(t, path), 4096); !errors.Is(err, unix.ESTALE) {
			t.Errorf("%s: error %v, want ESTALE", name, err)
		}
	}
}

// A device has a server while the process in its state runs and the driver has not
// noticed its end.
func TestCheckEnded(t *testing.T) {
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	start, err := process.StartTime(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	saved := &state{StartTime: start, Status: &Status{PID: cmd.Process.Pid}}
	live, quiesced := &ublk.Info{State: ublk.StateLive}, &ublk.Info{State: ublk.StateQuiesced}
	if err := checkEnded(live, saved); !errors.Is(err, ErrServed) {
		t.Errorf("a server that runs: error %v, want ErrServed", err)
	}
	if err := checkEnded(quiesced, saved); err != nil {
		t.Errorf("the driver knows better: %v", err)
	}
	saved.StartTime++
	if err := checkEnded(live, saved); err != nil {
		t.Errorf("another process with its number: %v", err)
	}
	saved.StartTime--
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := checkEnded(live, saved); err != nil { // a zombie counts as ended
		t.Errorf("a server that was killed: %v", err)
	}
	_ = cmd.Wait()
	if err := checkEnded(live, saved); err != nil {
		t.Errorf("a server that is gone: %v", err)
	}
}

func TestCheckInterrupted(t *testing.T) {
	for _, tt := range []struct {
		recovering bool
		offers     ublk.Features
		refused    bool
	}{
		{false, uapi.UBLK_F_USER_RECOVERY, false},
		{true, uapi.UBLK_F_USER_RECOVERY, true},
		{true, 0, true}, // a driver without GET_FEATURES
		{true, uapi.UBLK_F_USER_RECOVERY | uapi.UBLK_F_QUIESCE, false},
	} {
		ctl := ublk.NewControl(&ublktest.Fake{Offers: tt.offers})
		err := checkInterrupted(ctl, &state{Recovering: tt.recovering})
		if errors.Is(err, ublk.ErrNotRecoverable) != tt.refused || !tt.refused && err != nil {
			t.Errorf("%+v: error %v", tt, err)
		}
	}
}

// Without a state file, the tag names the server of a device that has not started, and
// the driver names it afterwards. After a recovery the tag names an earlier process.
func TestPIDOf(t *testing.T) {
	own := os.Getpid()
	const none = 1 << 30 // exceeds the largest pid
	for _, tt := range []struct {
		state  ublk.State
		driver int32
		tag    uint64
		want   int
	}{
		{ublk.StateDead, -1, uint64(own), own},
		{ublk.StateDead, -1, none, 0},
		{ublk.StateLive, int32(own), none, own},
		{ublk.StateLive, int32(own), 1, own},
		{ublk.StateLive, -1, uint64(own), 0},
		{ublk.StateQuiesced, int32(own), uint64(own), 0}, // both numbers belong to the last server
	} {
		info := &ublk.Info{State: tt.state, ServerPID: tt.driver, Tag: tagMark | tt.tag}
		if got := pidOf(info); got != tt.want {
			t.Errorf("%+v: process %d", tt, got)
		}
	}
}
