package loop

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// serveEnv names the file that a copy of this test program must serve. serveTableEnv has the
// text of tables instead.
const (
	serveEnv      = "UBLK_LOOP_TEST_SERVE"
	serveTableEnv = "UBLK_LOOP_TEST_SERVE_TABLE"
)

func TestMain(m *testing.M) {
	path, text := os.Getenv(serveEnv), os.Getenv(serveTableEnv)
	attach := func(ctl *ublk.Control) (*Device, error) { return tryTable(ctl, text, Config{}) }
	switch {
	case path != "":
		attach = func(ctl *ublk.Control) (*Device, error) { return attachPath(ctl, path) }
	case text == "":
		os.Exit(m.Run())
	}
	if err := serveUntilStopped(attach); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func attachPath(ctl *ublk.Control, path string) (*Device, error) {
	file, err := OpenPath(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return Attach(ctl, file, Config{})
}

// serveUntilStopped is the server that tests start and kill.
func serveUntilStopped(attach func(*ublk.Control) (*Device, error)) error {
	ctl, err := ublk.OpenControl()
	if err != nil {
		return err
	}
	dev, err := attach(ctl)
	if err != nil {
		return err
	}
	fmt.Println("device", dev.ID())
	if os.Getenv(mergeEnv) != "" {
		return errors.Join(mergeAndSay(dev), dev.Close())
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, unix.SIGTERM)
	select {
	case <-stop:
	case <-dev.Done():
	}
	return dev.Close()
}

// startServer serves a file in another process.
func startServer(t *testing.T, path string) (*exec.Cmd, uint32) {
	t.Helper()
	return startServerWith(t, serveEnv+"="+path)
}

// startServerWith starts a server with an environment variable.
func startServerWith(t *testing.T, variable string) (*exec.Cmd, uint32) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), variable)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		number, ok := strings.CutPrefix(lines.Text(), "device ")
		if !ok {
			continue
		}
		id, err := strconv.ParseUint(number, 10, 32)
		if err != nil {
			t.Fatal(err)
		}
		return cmd, uint32(id)
	}
	t.Fatal("the server made no device")
	return nil, 0
}

// record fills mem with the record for block i in round n of a crash test.
func record(mem []byte, i, n uint64) []byte {
	for off := 0; off < len(mem); off += 16 {
		binary.LittleEndian.PutUint64(mem[off:], i)
		binary.LittleEndian.PutUint64(mem[off+8:], n)
	}
	return mem
}

// writeRecords writes records to successive blocks, each followed by a flush or with FUA,
// until the device fails. It returns how many were durable. It calls begun when least of
// them are durable.
func writeRecords(path string, mem []byte, round, least uint64, begun func()) (uint64, error) {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_DIRECT, 0)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for i := uint64(0); ; i++ {
		if i == least {
			begun()
		}
		record(mem, i, round)
		if i%2 == 0 {
			_, err = unix.Pwritev2(int(f.Fd()), [][]byte{mem}, int64(i%4096)*4096, unix.RWF_DSYNC)
		} else if _, err = f.WriteAt(mem, int64(i%4096)*4096); err == nil {
			err = f.Sync()
		}
		if err != nil {
			return i, err
		}
	}
}

// Data that was flushed, or written with FUA, before the server was killed is in the
// file. The device is then dead, and can be removed.
func TestCrashKeepsWhatWasSynced(t *testing.T) {
	ctl := ublktest.Kernel(t, ublktest.EveryKernel)
	path := sparseFile(t, fileSystem(t, "ext4"))
	for round := range uint64(8) {
		cmd, id := startServer(t, path)
		durable := killWhileWriting(t, cmd, id, round)
		checkRecords(t, path, durable, round)
		removeDead(t, ctl, id)
	}
}

// killWhileWriting writes records to a device until its server is killed. It returns how many
// were durable.
func killWhileWriting(t *testing.T, cmd *exec.Cmd, id uint32, round uint64) uint64 {
	t.Helper()
	const least = 4 // two of each kind
	var timer *time.Timer
	durable, err := writeRecords(ublk.BlockPath(id), alignedMemory(t, 4096), round, least, func() {
		timer = time.AfterFunc(rand.N(400*time.Millisecond), func() { _ = cmd.Process.Kill() })
	})
	if timer == nil || timer.Stop() || !isGone(err) {
		t.Fatalf("writes end with %v, after %d durable ones, before the server is killed", err, durable)
	}
	_ = cmd.Wait()
	t.Logf("round %d: killed after %d durable writes", round, durable)
	return durable
}

func checkRecords(t *testing.T, path string, durable, round uint64) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got, want := make([]byte, 4096), make([]byte, 4096)
	first := uint64(0)
	if durable > 4095 { // newer records have overwritten the older ones, and the last one may be unfinished
		first = durable - 4095
	}
	for i := first; i < durable; i++ {
		if _, err := f.ReadAt(got, int64(i%4096)*4096); err != nil {
			t.Fatal(err)
		}
		if string(got) != string(record(want, i, round)) {
			t.Fatalf("round %d: durable write %d of %d is not in the file", round, i, durable)
		}
	}
}

// removeDead checks that list shows a device without a server, and removes the device.
func removeDead(t *testing.T, ctl *ublk.Control, id uint32) {
	t.Helper()
	list, err := List(ctl)
	if err != nil {
		t.Fatal(err)
	}
	if len(list) != 1 || list[0].ID != id || list[0].State != "dead" || list[0].PID != 0 {
		t.Fatalf("list: %+v, want device %d, dead, without a server", list, id)
	}
	if err := Detach(ctl, id, DetachOptions{}); err != nil {
		t.Fatal(err)
	}
}

// Detach waits for the server in another process to end, and succeeds if the server has
// already ended.
func TestKernelDetachFromAnotherProcess(t *testing.T) {
	ctl := ublktest.Kernel(t, ublktest.Waits)
	path := sparseFile(t, mountTmpfs(t))
	cmd, id := startServer(t, path)
	f := openFile(t, ublk.BlockPath(id), os.O_RDWR)
	if err := Detach(ctl, id, DetachOptions{}); !errors.Is(err, ErrInUse) {
		t.Fatalf("an open device: error %v, want ErrInUse", err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	for range 2 { // Detach succeeds again when the device is gone
		if err := Detach(ctl, id, DetachOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("removed in %v", time.Since(start))
	if err := cmd.Wait(); err != nil {
		t.Fatalf("the server ended with %v", err)
	}
}

func TestKernelDetachForced(t *testing.T) {
	ctl := ublktest.Kernel(t)
	cmd, id := startServer(t, sparseFile(t, mountTmpfs(t)))
	f := openFile(t, ublk.BlockPath(id), os.O_RDWR)
	if err := Detach(ctl, id, DetachOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("the server ended with %v", err)
	}
	if _, err := f.Read(make([]byte, 4096)); err == nil {
		t.Fatal("a device that was removed can be read")
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestKernelDetachSparesForeignDevices(t *testing.T) {
	ctl := ublktest.Kernel(t)
	dev, err := ctl.Add(ublk.Options{Tag: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = dev.Close() })
	if err := Detach(ctl, dev.Info().ID, DetachOptions{Force: true}); !errors.Is(err, ErrForeign) {
		t.Fatalf("error %v, want ErrForeign", err)
	}
	list, err := List(ctl)
	if err != nil || len(list) != 0 {
		t.Fatalf("list %+v, error %v; want none", list, err)
	}
}
