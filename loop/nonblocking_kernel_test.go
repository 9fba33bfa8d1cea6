package loop

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// A slow flush, discard or write-zeroes on a file does not delay reads of the same queue.
func TestKernelSlowFileHoldsNobodyUp(t *testing.T) {
	ublktest.Require(t)
	warmUpFUSE(t)
	ctl := ublktest.Kernel(t)
	inEachMode(t, ctl, func(t *testing.T, cfg Config) {
		file, path := mountMoody(t)
		cfg.DirectIO, cfg.Queues = SwitchOff, 1
		dev := attach(t, ctl, path, cfg)
		f := openFile(t, dev.Path(), os.O_RDWR|unix.O_DIRECT)
		mem := alignedMemory(t, 4096)
		requests := map[string]func() error{
			"flush":   f.Sync,
			"discard": func() error { return blockIoctl(f, unix.BLKDISCARD, 1<<20, 1<<20) },
			"zeroes":  func() error { return unix.Fallocate(int(f.Fd()), punchHole, 1<<20, 1<<20) },
		}
		if !cfg.Transfer.isNone() {
			delete(requests, "zeroes") // a transfer has no write-zeroes
		}
		for name, request := range requests {
			t.Run(name, func(t *testing.T) {
				gate := make(chan struct{})
				file.setGate(gate)
				defer file.setGate(nil)
				ended := make(chan error, 1)
				go func() { ended <- request() }()
				select {
				case <-gate:
				case err := <-ended:
					t.Fatalf("it ended, with %v, and never came to the file", err)
				}
				err := within(t, "a read beside it", func() error { _, err := f.ReadAt(mem, 0); return err })
				gate <- struct{}{}
				if err := errors.Join(err, <-ended); err != nil {
					t.Fatal(err)
				}
			})
		}
	})
}

// The same is true for a slow write, flush or write-zeroes on a disk.
func TestKernelSlowDiskHoldsNobodyUp(t *testing.T) {
	ctl := ublktest.Kernel(t)
	run(t, "modprobe", "dm-delay")
	const slow = 20 * time.Second // unless it is released
	inEachMode(t, ctl, func(t *testing.T, cfg Config) {
		below := nullDisk(t, 64, map[string]string{"cache_size": "8"})
		disk := mappedDisk(t, fmt.Sprintf("0 131072 delay %s 0 0 %s 0 %d", below, below, slow.Milliseconds()))
		cfg.Queues = 1
		dev := attach(t, ctl, disk, cfg)
		f := openFile(t, dev.Path(), os.O_RDWR|unix.O_DIRECT)
		mem := alignedMemory(t, 4096)
		for name, request := range map[string]func() error{
			"write":  func() error { _, err := f.WriteAt(alignedMemory(t, 4096), 0); return err },
			"flush":  f.Sync,
			"zeroes": func() error { return blockIoctl(f, unix.BLKZEROOUT, 1<<20, 1<<20) },
		} {
			t.Run(name, func(t *testing.T) {
				ended := make(chan error, 1)
				go func() { ended <- request() }()
				waitInFlight(t, dev.Path())
				err := within(t, "a read beside it", func() error { _, err := f.ReadAt(mem, 8<<20); return err })
				if err != nil {
					t.Error(err)
				}
				select {
				case err := <-ended:
					t.Fatalf("the %s has ended before the read beside it, with %v", name, err)
				default:
				}
				releaseDelayed(t)
				if err := <-ended; err != nil {
					t.Fatal(err)
				}
			})
		}
	})
}

// releaseDelayed makes dm-delay pass all delayed requests on at once, as it does when it
// is suspended (delay_presuspend in drivers/md/dm-delay.c).
func releaseDelayed(t *testing.T) {
	t.Helper()
	name := strings.TrimSpace(run(t, "dmsetup", "info", "-c", "--noheadings", "-o", "name"))
	run(t, "dmsetup", "suspend", "--noudevsync", "--nolockfs", name)
	run(t, "dmsetup", "resume", "--noudevsync", name)
}

// waitInFlight waits until a disk's driver has any request.
func waitInFlight(t *testing.T, disk string) {
	t.Helper()
	queues, err := filepath.Glob("/sys/kernel/debug/block/" + filepath.Base(disk) + "/hctx*/busy")
	if err != nil || len(queues) == 0 {
		t.Fatalf("find queues of %s: %d, error %v", disk, len(queues), err)
	}
	waitUntil(t, "a request of "+disk, func() bool {
		for _, path := range queues {
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(string(data), "state=in_flight") {
				return true
			}
		}
		return false
	})
}
