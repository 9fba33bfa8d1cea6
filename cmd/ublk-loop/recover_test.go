package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/internal/daemon"
	"github.com/ublk-loop/ublk-loop/internal/hint"
	"github.com/ublk-loop/ublk-loop/internal/report"
)

// recoverBench has the devices 0 to 4 of one file. Devices 1 and 3 wait for a server.
func recoverBench(t *testing.T) (*bench, string) {
	t.Helper()
	b := newBench()
	path := someFile(t)
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	b.byDevice = map[uint32]*fakeServer{}
	for id, state := range []string{"live", "quiesced", "dead", "quiesced", "live"} {
		device := client.Device{
			ID: uint32(id), Device: "/dev/ublkb" + string(rune('0'+id)), State: state, File: path, FileInode: st.Ino, PID: 100 + id,
		}
		b.drv.devices = append(b.drv.devices, device)
		b.byDevice[device.ID] = &fakeServer{status: device}
	}
	return b, path
}

// recovered returns the devices for which a server was started.
func (b *bench) recovered() []uint32 {
	var ids []uint32
	for _, j := range b.jobs {
		ids = append(ids, deviceOf(j))
	}
	return ids
}

func TestRecover(t *testing.T) {
	const one, three = "/dev/ublkb1: recovered, served by process 101\n", "/dev/ublkb3: recovered, served by process 103\n"
	for _, tt := range []struct {
		args []string
		want []uint32
		out  string
	}{
		{nil, []uint32{1, 3}, one + three}, // all that wait for a server
		{[]string{"3"}, []uint32{3}, three},
		{[]string{"/dev/ublkb3", "/dev/ublkc1"}, []uint32{3, 1}, three + one},
	} {
		b, path := recoverBench(t)
		b.check(t, append([]string{"recover"}, tt.args...), 0, tt.out, "")
		if got := b.recovered(); !slices.Equal(got, tt.want) {
			t.Errorf("recover %q: %v, want %v", tt.args, got, tt.want)
		}
		for _, id := range tt.want {
			if srv := b.byDevice[id]; !srv.stayed || srv.ended {
				t.Errorf("recover %q: server of %d stayed %v, ended %v", tt.args, id, srv.stayed, srv.ended)
			}
		}
		if b.job.Name != path || b.job.Log != nil || !b.drv.closed {
			t.Errorf("recover %q: job for %s, log %v, driver closed %v", tt.args, b.job.Name, b.job.Log, b.drv.closed)
		}
	}
}

// recover reports each device, and continues after an error.
func TestRecoverSomeFail(t *testing.T) {
	b, _ := recoverBench(t)
	b.byDevice[1] = failing(&hint.Error{Err: errors.New("recover /dev/ublkb1: too small"), Hint: "why"})
	b.check(t, []string{"recover"}, 1, "/dev/ublkb3: recovered, served by process 103\n",
		"ublk-loop: error: recover /dev/ublkb1: too small\nhint: why\n")
	if srv := b.byDevice[1]; srv.stayed || !srv.ended {
		t.Errorf("the server that failed stayed %v, ended %v", srv.stayed, srv.ended)
	}
	b, _ = recoverBench(t)
	b.byDevice, b.startErr = nil, unix.EMFILE
	b.check(t, []string{"recover", "1"}, 1, "", "ublk-loop: error: recover /dev/ublkb1: too many open files\n")
}

// An interrupted recover starts no further server, and says what becomes of the one that it has started.
func TestRecoverInterrupted(t *testing.T) {
	b, _ := recoverBench(t)
	ctx, cancel := context.WithCancel(t.Context())
	start := b.start
	b.start = func(ctx context.Context, j *daemon.Job) (daemon.Pending, error) {
		cancel()
		<-ctx.Done()
		return start(ctx, j)
	}
	if err := b.runRecover(ctx, recoverOptions{}); !errors.Is(err, report.ErrInterrupted) || !slices.Equal(b.recovered(), []uint32{1}) || !b.byDevice[1].stayed {
		t.Errorf("error %v, recovered %v", err, b.recovered())
	}
	b, _ = recoverBench(t)
	b.byDevice[1] = failing(report.ErrInterrupted)
	b.check(t, []string{"recover", "1"}, 1, "", "ublk-loop: error: recover /dev/ublkb1: interrupted: the new server goes on by itself\n"+
		"hint: see list for whether it has the device\n")
}

func TestRecoverErrors(t *testing.T) {
	b, path := recoverBench(t)
	b.check(t, []string{"recover", "9"}, 1, "", "ublk-loop: error: recover /dev/ublkb9: no such device of ublk-loop\n")
	b.drv.devices[1].File = "/nonexistent/x"
	b.check(t, []string{"recover", "1"}, 1, "",
		"ublk-loop: error: recover /dev/ublkb1: open /nonexistent/x: no such file or directory\n")
	b.drv.devices[1].File = "" // its state is lost
	b.check(t, []string{"recover", "1"}, 1, "",
		"ublk-loop: error: recover /dev/ublkb1: its file is unknown: not recoverable\nhint: remove it with del\n")
	other := filepath.Join(filepath.Dir(path), "other")
	if err := os.WriteFile(other, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	b.check(t, []string{"recover", other}, 1, "", "ublk-loop: error: recover "+other+": it has no device\nhint: ublk-loop list shows all devices with their files\n")
	if len(b.jobs) > 0 {
		t.Errorf("servers were started for %v", b.recovered())
	}
	b.drv.devices = nil
	b.check(t, []string{"recover"}, 0, "", "")
	b.drv = nil
	b.check(t, []string{"recover"}, 0, "", "")
	b.check(t, []string{"recover", "0"}, 1, "", "ublk-loop: error: recover /dev/ublkb0: no such device of ublk-loop\n")
	b.check(t, []string{"recover", other}, 1, "", "ublk-loop: error: recover "+other+": it has no device\nhint: ublk-loop list shows all devices with their files\n")
}

// recover FILE recovers all devices of the file, and --log-file names the log of their
// servers.
// A device that is not encrypted has no key to be given.
func TestKeyOfPlainDevice(t *testing.T) {
	b := newBench()
	b.drv.devices = []client.Device{{ID: 7, Device: "/dev/ublkb7", State: "quiesced", File: someFile(t), OnCrash: "reissue"}}
	b.check(t, []string{"key", "7"}, 1, "", "ublk-loop: error: give the key to 7: /dev/ublkb7 is not encrypted: invalid argument\n")
}

func TestRecoverFileWithLog(t *testing.T) {
	b, path := recoverBench(t)
	log := filepath.Join(t.TempDir(), "log")
	if status := b.run([]string{"recover", "--log-file", log, path}); status != 0 {
		t.Errorf("exit status %d: %s", status, &b.errOut)
	}
	if got, want := b.recovered(), []uint32{0, 1, 2, 3, 4}; !slices.Equal(got, want) {
		t.Errorf("recovered %v, want %v", got, want)
	}
	if _, err := os.Stat(log); err != nil || b.job.Log == nil {
		t.Errorf("no log: %v", err)
	}
}

// add recovers a device with the same --id that waits for a server.
func TestAddTakesOver(t *testing.T) {
	path := someFile(t)
	for _, tt := range []struct {
		args []string
		want bool
	}{
		{[]string{"--id", "7", "--on-crash", "reissue"}, true},
		{[]string{"--id", "7", "--on-crash", "requeue", "--foreground"}, true},
		{[]string{"--id", "8", "--on-crash", "reissue"}, false},
		{[]string{"--on-crash", "reissue"}, false},
		{[]string{"--id", "7"}, false},
		{[]string{"--id", "7", "--on-crash", "fail"}, false},
	} {
		b := newBench()
		b.drv.waits = map[uint32]bool{7: true}
		b.run(append([]string{"add", path}, tt.args...))
		if got := b.job != nil && b.job.Recover != nil && *b.job.Recover == 7; got != tt.want {
			t.Errorf("%q: taken over: %v", tt.args, got)
		}
	}
	b := newBench()
	b.drv.err = unix.EIO
	b.check(t, []string{"add", path, "--id", "7", "--on-crash", "reissue"}, 1, "", "ublk-loop: error: attach "+path+": input/output error\n")
}
