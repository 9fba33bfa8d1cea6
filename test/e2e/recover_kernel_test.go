package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// killServer kills the server of a device. It waits for the end of the process, and until
// init has reaped it, because the pid stays in use until then.
func (b *bed) killServer(s client.Device) {
	b.Helper()
	pidfd, err := unix.PidfdOpen(s.PID, 0)
	if err != nil {
		b.Fatal(err)
	}
	if err := unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0); err != nil {
		b.Fatal(err)
	}
	b.waitForEnd(pidfd)
	waitUntil(b, "init waits for the server", func() bool { return errors.Is(unix.Kill(s.PID, 0), unix.ESRCH) })
}

// recover recovers a device and returns its new status.
func (b *bed) recover(s client.Device) client.Device {
	b.Helper()
	out := b.ok("recover", s.Device)
	now := b.list(s.Device)[0]
	if want := fmt.Sprintf("%s: recovered, served by process %d\n", s.Device, now.PID); out != want {
		b.Errorf("recover prints %q, want %q", out, want)
	}
	if now.State != "live" || now.PID == s.PID {
		b.Errorf("after recovery: %+v", now)
	}
	return now
}

// waits checks that a device waits for a server.
func (b *bed) waits(s client.Device) {
	b.Helper()
	list := b.list(s.Device)
	if list[0].State != "quiesced" || list[0].PID != 0 || list[0].OnCrash != s.OnCrash {
		b.Errorf("a device whose server was killed: %+v", list[0])
	}
}

// whatever calls a function for both recovery policies and both buffer modes.
func (b *bed) whatever(t *testing.T, call func(b *bed, onCrash string, flags ...string)) {
	for row, onCrash := range []string{"requeue", "reissue"} {
		for _, zeroCopy := range ublktest.Sample(t, row, "auto", "off") {
			t.Run(onCrash+", zero copy "+zeroCopy, func(t *testing.T) {
				call(b.in(t), onCrash, "--on-crash", onCrash, "--zero-copy", zeroCopy)
			})
		}
	}
}

// Servers are killed at random moments while writers verify their data. With reissue no
// request fails. With requeue some requests fail. In both cases no write is lost, and no
// old write overwrites a newer one.
func TestKernelRecoverUnderLoad(t *testing.T) {
	b := kernelBed(t, ublktest.EveryKernel, ublktest.Soak)
	b.whatever(t, func(b *bed, onCrash string, flags ...string) {
		s := b.add(append(flags, b.image(loadBytes))...)
		l := startLoad(b, s.Device)
		var slowest, noticed time.Duration
		n := ublktest.Kills(b, ublktest.Fewer(b, 4, 3), 15)
		ublktest.UntilHit(b, "kill under load", n, n, 4*n, func(i int) (hit bool) {
			l.goesOn(b)
			time.Sleep(rand.N(200 * time.Millisecond))
			failed := l.failed.Load()
			b.killServer(s)
			b.waits(s)
			if i%2 == 0 { // otherwise the recovery waits for the driver
				noticed = max(noticed, b.awaitsServer(s))
			}
			start := time.Now()
			s = b.recover(s)
			slowest = max(slowest, time.Since(start))
			l.goesOn(b)
			// With reissue only the writers' progress shows a hit.
			return onCrash == "reissue" || l.failed.Load() > failed
		})
		failed := l.end(b)
		// A recovery is the work of two processes beside all writers, so that its time
		// depends on the machine. The wait for the driver, which is a part of it, does
		// not.
		b.Logf("%d writes, %d requests failed, slowest recovery %v; the driver has noticed within %v", l.wrote.Load(), failed, slowest, noticed)
		if noticed > noticeLimit {
			b.Errorf("the driver has noticed a server's end after %v", noticed)
		}
		if onCrash == "reissue" && failed > 0 {
			b.Errorf("%d requests failed", failed)
		}
		b.del(s.Device)
	})
}

// A mounted file system does not notice a recovery: fio verifies its data, and fsck finds
// no error.
func TestKernelRecoverMounted(t *testing.T) {
	b := kernelBed(t, ublktest.EveryKernel, ublktest.Soak)
	for row, zeroCopy := range []string{"auto", "off"} {
		for _, changes := range ublktest.Sample(t, row, "", ", changes in a store") {
			t.Run("zero copy "+zeroCopy+changes, func(t *testing.T) {
				flags := []string{"--zero-copy", zeroCopy}
				if changes != "" {
					flags = append(flags, "--cow", filepath.Join(t.TempDir(), "store")+",chunk=16K")
				}
				b.in(t).recoverMounted(flags...)
			})
		}
	}
}

func (b *bed) recoverMounted(flags ...string) {
	b.Helper()
	s := b.add(append(flags, "--on-crash", "reissue", b.image(64<<20))...)
	b.tool("mkfs.ext4", "-q", "-F", s.Device)
	dir := b.TempDir()
	b.tool("mount", s.Device, dir)
	defer func() { _ = unix.Unmount(dir, unix.MNT_DETACH) }()
	n := ublktest.Kills(b, ublktest.Fewer(b, 4, 2), 15)
	hits := 0
	for runs := 0; hits < n; runs++ {
		if runs > n {
			b.Fatalf("%d kills came while fio ran, %d times; want %d", hits, runs, n)
		}
		var in int
		s, in = b.killWhile(b.verify(dir+"/file"), s, n-hits)
		hits += in
	}
	b.Logf("%d kills while fio ran", hits)
	if err := unix.Unmount(dir, 0); err != nil {
		b.Error(err)
	}
	b.tool("e2fsck", "-fn", s.Device)
	b.del(s.Device)
	if s.File != "" {
		b.tool("e2fsck", "-fn", s.File)
	}
}

// killWhile kills the server of a device and recovers the device, most times or until a program
// ends. It returns when the program has ended without an error, with the device's status and the
// number of kills that came before the end.
func (b *bed) killWhile(ended <-chan error, s client.Device, most int) (client.Device, int) {
	b.Helper()
	for hits := 0; ; hits++ {
		var moment <-chan time.Time
		if hits < most {
			moment = time.After(rand.N(200 * time.Millisecond))
		}
		select {
		case err := <-ended:
			if err != nil {
				b.Fatal(err)
			}
			return s, hits
		case <-moment:
		}
		b.killServer(s)
		select {
		case err := <-ended:
			if err != nil {
				b.Fatal(err)
			}
			return b.recover(s), hits
		default: // the program's next I/O waits for the recovery
		}
		s = b.recover(s)
	}
}

// verify starts fio, which writes a file and verifies it. The channel receives fio's
// error.
func (b *bed) verify(path string) <-chan error {
	b.Helper()
	var out bytes.Buffer
	fio := exec.Command("fio", "--name=v", "--filename="+path, "--size=16M", "--rw=randwrite", "--bs=4k", "--ioengine=io_uring",
		"--iodepth=32", "--direct=1", "--fsync=64", "--verify=crc32c", "--do_verify=1", "--verify_fatal=1", "--exitall_on_error=1")
	fio.Stdout, fio.Stderr = &out, &out
	if err := fio.Start(); err != nil {
		b.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { // the caller receives the result
		err := fio.Wait()
		if err != nil {
			err = fmt.Errorf("fio: %w\n%s", err, &out)
		}
		ended <- err
	}()
	return ended
}

// Without arguments, recover recovers all waiting devices. The new server is confined
// like the first one, and ends in the same way.
func TestKernelRecoverAll(t *testing.T) {
	b := kernelBed(t, ublktest.EveryKernel)
	before := things(t)
	if out := b.ok("recover"); out != "" {
		t.Errorf("with nothing to recover it prints %q", out)
	}
	var devices []client.Device
	for _, flags := range [][]string{{"--on-crash=requeue"}, {"--on-crash=fail"}, {"--on-crash=reissue", "--read-only"}, {"--on-crash=reissue"}} {
		devices = append(devices, b.add(append(flags, b.image(4<<20))...))
	}
	for _, s := range devices[:3] {
		b.killServer(s)
	}
	cmd := b.command("recover")
	cmd.Env = append(os.Environ(), "SECRET=x", "GODEBUG=madvdontneed=1")
	r := b.runCommand(cmd)
	r.succeeds(t)
	if strings.Count(r.out, "recovered") != 2 || strings.Count(r.out, "\n") != 2 {
		t.Errorf("recover prints %q", r.out)
	}
	for i, want := range []struct{ state, onCrash string }{{"live", "requeue"}, {"dead", "fail"}, {"live", "reissue"}, {"live", "reissue"}} {
		was, is := devices[i], b.list(devices[i].Device)[0]
		if is.State != want.state || is.OnCrash != want.onCrash || (is.PID == was.PID) != (i == 3) {
			t.Errorf("device %d is %+v", i, is)
		}
		if is.PID == was.PID || is.State == "dead" {
			continue
		}
		b.checkServer(is)
		info, err := b.ctl.Info(is.ID)
		if err != nil || int(info.ServerPID) != is.PID {
			t.Errorf("device %d: the driver has process %d, list %d, error %v", i, info.ServerPID, is.PID, err)
		}
		was.PID = is.PID // all other fields are unchanged
		if !reflect.DeepEqual(was, is) {
			t.Errorf("device %d was %+v\nis %+v", i, was, is)
		}
	}
	live := b.list(devices[0].Device)[0]
	pidfd, err := unix.PidfdOpen(live.PID, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.PidfdSendSignal(pidfd, unix.SIGTERM, nil, 0); err != nil {
		t.Fatal(err)
	}
	b.waitForEnd(pidfd)
	b.del("--all")
	b.nothingSince(before)
}

// recover refuses a device that it cannot or need not recover, and does not change it.
func TestKernelRecoverRefused(t *testing.T) {
	b := kernelBed(t, ublktest.Waits)
	s := b.add("--on-crash=reissue", "--offset", "1M", b.image(4<<20))
	r := b.run("recover", s.Device)
	r.fails(t, 1, s.Device, "is served", strconv.Itoa(s.PID))
	if now := b.list(s.Device)[0]; !reflect.DeepEqual(now, s) {
		t.Errorf("a device that is served has become %+v", now)
	}
	b.killServer(s)
	moved := s.File + ".moved"
	if err := os.Rename(s.File, moved); err != nil {
		t.Fatal(err)
	}
	b.run("recover", s.Device).fails(t, 1, s.Device, s.File, "no such file")
	data, err := os.ReadFile(moved)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.File, data, 0o600); err != nil {
		t.Fatal(err)
	}
	b.run("recover", s.Device).fails(t, 1, s.Device, s.File, "another file")
	b.waits(s)
	if err := os.Rename(moved, s.File); err != nil {
		t.Fatal(err)
	}
	b.truncate(s.File, 4<<20-512)
	b.run("recover").fails(t, 1, s.Device, s.File, "too few")
	b.waits(s)
	b.truncate(s.File, 4<<20)
	unlock := b.lockAll()
	b.run("recover", s.Device).fails(t, 1, s.Device, "in use", "hint: end the program that uses it")
	b.waits(s)
	unlock()
	s = b.recover(s)
	b.del(s.Device)
	b.run("recover", s.Device).fails(t, 1, s.Device, "no such device")
}

// lockAll takes the locks of all files and disks that devices have had, as a server would.
func (b *bed) lockAll() (unlock func()) {
	b.Helper()
	paths, err := filepath.Glob("/run/ublk-loop/locks/file-*")
	if err != nil || len(paths) == 0 {
		b.Fatalf("lock files: %q, error %v", paths, err)
	}
	var files []*os.File
	for _, path := range paths {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err == nil {
			files = append(files, f)
			err = unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK})
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	return func() {
		for _, f := range files {
			_ = f.Close()
		}
	}
}

// recover distinguishes a device that was added without --on-crash, and a device without
// a state file.
func TestKernelRecoverNotRecoverable(t *testing.T) {
	b := kernelBed(t)
	s := b.add(b.image(1 << 20))
	if s.OnCrash != "fail" {
		t.Errorf("by default: %+v", s)
	}
	b.run("recover", s.Device).fails(t, 1, s.Device, "is served")
	b.killServer(s)
	b.run("recover", s.Device).fails(t, 1, s.Device, "not recoverable", "hint: del")
	b.del(s.Device)
	b.run("add", "--on-crash=reissue", "--shared", s.File).fails(t, 1, s.File, "shared", "hint: --on-crash")
	s = b.add("--on-crash=requeue", s.File)
	b.killServer(s)
	if err := os.Remove("/run/ublk-loop/" + fmtID(s) + ".json"); err != nil {
		t.Fatal(err)
	}
	b.run("recover").fails(t, 1, s.Device, "not recoverable", "hint: del")
	b.del(s.Device)
}

// A write of the killed server may still be running on the disk below when the driver has
// noticed the server's end. The next server does not start before that write has ended.
func TestKernelRecoverWaitsForWrites(t *testing.T) {
	b := kernelBed(t, ublktest.ScratchDisk, ublktest.EveryKernel)
	for _, backing := range ublktest.Sample(b, 0, "disk", "file") {
		t.Run(backing, func(t *testing.T) {
			b := b.in(t)
			if backing == "disk" {
				b.recoverWaits(func(held string) string { return held })
			} else {
				b.recoverWaits(b.fileOnHeld)
			}
		})
	}
}

// fileOnHeld makes a file on a disk whose writes will be delayed.
func (b *bed) fileOnHeld(held string) string {
	b.Helper()
	// The kernel does not write to the file system later by itself.
	b.tool("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", held)
	dir := b.TempDir()
	b.tool("mount", held, dir)
	b.Cleanup(func() { b.tool("umount", dir) })
	image := filepath.Join(dir, "image")
	b.tool("dd", "if=/dev/zero", "of="+image, "bs=1M", "count=8") // with all its blocks
	b.tool("sync", "-f", dir)
	return image
}

// locks returns the files that have locks of files and disks.
func (b *bed) locks() []string {
	b.Helper()
	paths, err := filepath.Glob("/run/ublk-loop/locks/*")
	if err != nil {
		b.Fatal(err)
	}
	return paths
}

// isLocked reports whether somebody has a lock in a file of locks.
func (b *bed) isLocked(path string) bool {
	b.Helper()
	l := unix.Flock_t{Type: unix.F_WRLCK}
	if err := unix.FcntlFlock(b.reader(path).Fd(), unix.F_OFD_GETLK, &l); err != nil {
		b.Fatal(err)
	}
	return l.Type != unix.F_UNLCK
}

// recoverWaits has a server killed that writes to what setUp makes of a disk.
func (b *bed) recoverWaits(setUp func(held string) (backing string)) {
	t := b.TB
	disk := b.testDisk()
	b.tool("modprobe", "dm_mod")
	b.tool("dmsetup", "create", "held", "--noudevsync", "--table", "0 131072 linear "+disk+" 0")
	b.Cleanup(func() { b.tool("dmsetup", "remove", "--retry", "--noudevsync", "held") })
	held := "/dev/" + strings.TrimSpace(b.tool("dmsetup", "info", "-c", "--noheadings", "-o", "blkdevname", "held"))
	s := b.add("--zero-copy=off", "--on-crash=reissue", setUp(held))
	f, err := os.OpenFile(s.Device, os.O_RDWR|unix.O_DIRECT, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	// From here on, writes to the disk take as long as the test wants, and reads do not.
	b.tool("modprobe", "dm_delay")
	mapTo := func(table string) {
		b.tool("dmsetup", "load", "held", "--table", "0 131072 "+table)
		b.tool("dmsetup", "suspend", "--nolockfs", "--noudevsync", "held")
		b.tool("dmsetup", "resume", "--noudevsync", "held")
	}
	mapTo(fmt.Sprintf("delay %s 0 0 %s 0 60000", disk, disk))
	page, wrote := alignedPage(t), make(chan error, 1)
	stamp(page, 1, 1)
	go func() { // until the disk continues; received below
		_, err := f.WriteAt(page, 4096)
		wrote <- err
	}()
	waitUntil(t, "a write of the server is delayed", func() bool {
		status := strings.Fields(b.tool("dmsetup", "status", "held")) // the last three are reads, writes and flushes
		return len(status) == 6 && status[4] != "0"
	})
	b.killServer(s)
	waitUntil(t, "the end for the driver", func() bool { info, err := b.ctl.Info(s.ID); return err == nil && info.State == ublk.StateQuiesced })
	// The ring has the lock still.
	if locks := b.locks(); len(locks) != 1 || !b.isLocked(locks[0]) {
		t.Errorf("locks while a write is under way: %q", locks)
	}
	recovered := make(chan result, 1)
	go func() { recovered <- b.run("recover", s.Device) }() // received below
	select {
	case r := <-recovered:
		t.Errorf("it does not wait: %q, %q", r.out, r.err)
		recovered <- r
	case <-time.After(2 * time.Second):
	}
	mapTo("linear " + disk + " 0")
	r := <-recovered
	r.succeeds(t)
	if err := <-wrote; err != nil {
		t.Errorf("the write that was repeated: %v", err)
	}
	got := alignedPage(t)
	if _, err := f.ReadAt(got, 4096); err != nil || !bytes.Equal(got, page) {
		t.Errorf("read: error %v, or other bytes", err)
	}
	f.Close()
	b.del(s.Device)
}

// underWay returns the numbers of reads and writes that the device's driver has.
func (b *bed) underWay(s client.Device) (reads, writes int) {
	b.Helper()
	text := b.attr(s, "inflight")
	if _, err := fmt.Sscan(text, &reads, &writes); err != nil {
		b.Fatalf("parse %q: %v", text, err)
	}
	return reads, writes
}

// A service that is restarted takes over its own device, and no other.
func TestKernelAddTakesOver(t *testing.T) {
	b := kernelBed(t, ublktest.EveryKernel)
	file, key := b.image(8<<20), []string(nil)
	path, _ := b.keyFile(64)
	for _, encrypted := range []bool{false, true} {
		if encrypted {
			key = []string{"--transfer", "aes-xts-plain64", "--key-file", path}
		}
		add := append([]string{"--id", "7", "--on-crash", "reissue", file}, key...)
		s := b.add(add...)
		data := randomBytes(1 << 20)
		b.store(s.Device, data)
		b.killServer(s)
		// The driver may not have noticed the server's end yet; add waits for that.
		now := b.add(add...)
		if now.PID == s.PID || now.ID != 7 || now.State != "live" {
			t.Errorf("taken over: %+v", now)
		}
		if got := b.head(now.Device)[:len(data)]; !bytes.Equal(got, data) {
			t.Error("other bytes than before")
		}
		b.run(append([]string{"add"}, add...)...).fails(t, 1, file, "already in use")
		b.killServer(now)
		b.waits(now)
		b.run(append([]string{"add", "--read-only"}, add...)...).fails(t, 1, "/dev/ublkb7", "has another file or configuration", "hint: del")
		b.run("add", "--id", "7", "--on-crash", "reissue", b.image(8<<20)).fails(t, 1, "/dev/ublkb7", "has another file or configuration")
		b.waits(now)
		b.foregroundTakesOver(add)
		b.del("7")
	}
}

// foregroundTakesOver starts a service for a waiting device, and kills it.
func (b *bed) foregroundTakesOver(add []string) {
	b.Helper()
	cmd := b.command(append([]string{"add", "--foreground"}, add...)...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	var device string
	if _, err := fmt.Fscanln(out, &device); err != nil || device != "/dev/ublkb7" {
		b.Errorf("it prints %q, error %v", device, err)
	}
	if list := b.list(device); list[0].State != "live" || list[0].PID != cmd.Process.Pid {
		b.Errorf("process %d serves %+v", cmd.Process.Pid, list[0])
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
}
