package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/uapi"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// noticeLimit bounds the time in which the driver notices the end of a server. The driver
// takes milliseconds, or before Linux 6.16 the block layer's 30 seconds if every tag of a
// queue had a request. noticeLimit is between the two.
const noticeLimit = 15 * time.Second

// awaitsServer waits until the driver has noticed the end of a device's server, which
// causes no event. It returns the time that this took.
func (b *bed) awaitsServer(s client.Device) time.Duration {
	b.Helper()
	start := time.Now()
	waitUntil(b, "the driver has noticed the server's end", func() bool {
		info, err := b.ctl.Info(s.ID)
		if err != nil {
			b.Fatal(err)
		}
		return info.State != ublk.StateLive
	})
	return time.Since(start)
}

// suspend stops a server and the process that serves its requests. A thread that is running when
// the signal is sent stops a moment later, and may still answer a request. Therefore suspend
// waits for each thread.
func (b *bed) suspend(s client.Device) {
	b.Helper()
	for _, pid := range b.processes(s) {
		b.suspendProcess(pid)
	}
}

func (b *bed) suspendProcess(pid int) {
	b.Helper()
	if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
		b.Fatal(err)
	}
	waitUntil(b, "all threads have stopped", func() bool {
		tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
		return err == nil && len(tasks) > 0 && !slices.ContainsFunc(tasks, func(path string) bool {
			stat, err := os.ReadFile(path)
			_, state, _ := strings.Cut(string(stat), ") ")
			return err == nil && !strings.HasPrefix(state, "T")
		})
	})
}

// If a server has a request for every tag, the driver notices its end as soon as that of
// any other server, and the next server answers the requests.
func TestKernelRecoverWithAllTagsInUse(t *testing.T) {
	b := kernelBed(t, ublktest.EveryKernel)
	offered, err := b.ctl.Features()
	if err != nil {
		t.Fatal(err)
	}
	const depth = 4
	s := b.add("--on-crash=reissue", "--queues=1", "--depth=4", b.image(4<<20))
	// The open may read, and would delay the other opens.
	f, err := os.OpenFile(s.Device, os.O_RDONLY|unix.O_DIRECT, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for range 3 {
		b.suspend(s)
		answers := make(chan error, depth)
		for i := range int64(depth) {
			page := alignedPage(t)
			go func() { // received below
				_, err := f.ReadAt(page, i*8192)
				answers <- err
			}()
		}
		waitUntil(t, "a request for every tag", func() bool { reads, _ := b.underWay(s); return reads == depth })
		b.killServer(s)
		took := b.awaitsServer(s)
		t.Logf("noticed after %v", took)
		if offered.Has(uapi.UBLK_F_QUIESCE) && took > noticeLimit {
			t.Errorf("the driver notices the server's end after %v", took)
		}
		s = b.recover(s)
		for range depth {
			if err := <-answers; err != nil {
				t.Errorf("a read that waited: %v", err)
			}
		}
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	b.del(s.Device)
}
