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

	"github.com/ublk-loop/ublk-loop/transfer"
	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// inEachMode runs a test with and without zero copy, and with a transfer.
func inEachMode(t *testing.T, ctl *ublk.Control, test func(*testing.T, Config)) {
	t.Helper()
	for _, zeroCopy := range []Switch{SwitchOn, SwitchOff} {
		t.Run("zero copy "+string(zeroCopy), func(t *testing.T) {
			if zeroCopy == SwitchOn {
				needMode(t, ctl, ublk.BufferRegister)
			}
			test(t, Config{ZeroCopy: zeroCopy})
		})
	}
	t.Run("transfer", func(t *testing.T) {
		test(t, Config{Transfer: TransferConfig{Name: transfer.AESXTSPlain64, AllowDiscards: true}})
	})
}

// within fails a test if an operation does not return.
func within(t *testing.T, what string, f func() error) error {
	t.Helper()
	result := make(chan error, 1)
	go func() { result <- f() }()
	return ublktest.Receive(t, 20*time.Second, what, result)
}

func TestKernelFullFileSystemIsENOSPC(t *testing.T) {
	ctl := ublktest.Kernel(t, ublktest.OldestKernel)
	inEachMode(t, ctl, func(t *testing.T, cfg Config) {
		dir := t.TempDir()
		run(t, "mount", "-t", "tmpfs", "-o", "size=4m", "none", dir)
		t.Cleanup(func() { run(t, "umount", dir) })
		dev := attach(t, ctl, sparseFile(t, dir), cfg)
		f := openFile(t, dev.Path(), os.O_RDWR|unix.O_DIRECT)
		mem := alignedMemory(t, 1<<20)
		var err error
		for off := int64(0); off < 32<<20 && err == nil; off += int64(len(mem)) {
			err = within(t, "write", func() error {
				n, err := f.WriteAt(mem, off)
				if err == nil && n != len(mem) {
					return fmt.Errorf("%d bytes written without an error", n)
				}
				return err
			})
		}
		if !errors.Is(err, unix.ENOSPC) {
			t.Fatalf("error %v, want ENOSPC", err)
		}
	})
}

func TestKernelTruncatedFileIsEIO(t *testing.T) {
	ctl := ublktest.Kernel(t)
	for _, direct := range []Switch{SwitchOn, SwitchOff} {
		t.Run("direct "+string(direct), func(t *testing.T) {
			inEachMode(t, ctl, func(t *testing.T, cfg Config) {
				cfg.DirectIO = direct
				path := sparseFile(t, fileSystem(t, "ext4"))
				dev := attach(t, ctl, path, cfg)
				f := openFile(t, dev.Path(), os.O_RDWR|unix.O_DIRECT)
				mem := alignedMemory(t, 64<<10)
				// The end is inside a sector, so that a read gets a part of a sector.
				if err := os.Truncate(path, 1<<20+700); err != nil {
					t.Fatal(err)
				}
				for _, off := range []int64{1<<20 - 32<<10, 1 << 20, 2 << 20} {
					err := within(t, "read", func() error {
						_, err := f.ReadAt(mem, off)
						return err
					})
					if !errors.Is(err, unix.EIO) {
						t.Errorf("read at %d: error %v, want EIO", off, err)
					}
				}
				if err := within(t, "read", func() error { _, err := f.ReadAt(mem, 0); return err }); err != nil {
					t.Errorf("read of what is left: %v", err)
				}
			})
		})
	}
}

func TestKernelFailingDiskIsEIO(t *testing.T) {
	ctl := ublktest.Kernel(t)
	inEachMode(t, ctl, func(t *testing.T, cfg Config) {
		// The first MiB works, the second fails, and the rest works.
		below := nullDisk(t, 64, nil)
		disk := mappedDisk(t, fmt.Sprintf("0 2048 linear %s 0\n2048 2048 error\n4096 4096 linear %s 4096", below, below))
		dev := attach(t, ctl, disk, cfg)
		f := openFile(t, dev.Path(), os.O_RDWR|unix.O_DIRECT)
		mem := alignedMemory(t, 64<<10)
		for _, tt := range []struct {
			off  int64
			fail bool
		}{{0, false}, {1 << 20, true}, {1<<20 - 32<<10, true}, {2 << 20, false}, {2<<20 - 4096, true}} {
			for what, op := range map[string]func([]byte, int64) (int, error){"read": f.ReadAt, "write": f.WriteAt} {
				err := within(t, what, func() error { _, err := op(mem, tt.off); return err })
				if tt.fail != errors.Is(err, unix.EIO) || !tt.fail && err != nil {
					t.Errorf("%s at %d: error %v, failing disk: %v", what, tt.off, err, tt.fail)
				}
			}
		}
	})
}

// When a disk is removed under load, every request ends with an error.
func TestKernelPulledOutDisk(t *testing.T) {
	ctl := ublktest.Kernel(t)
	inEachMode(t, ctl, func(t *testing.T, cfg Config) {
		disk := scsiDebugDisk(t, "lbpu=1")
		dev := attach(t, ctl, disk, cfg)
		f := openFile(t, dev.Path(), os.O_RDWR|unix.O_DIRECT)
		mem := alignedMemory(t, 4096)
		ended := make(chan error, 1)
		started := make(chan struct{})
		go func() {
			var err error
			for i := int64(0); err == nil; i++ {
				_, err = f.WriteAt(mem, i%1024*4096)
				if i == 100 {
					close(started)
				}
			}
			ended <- err
		}()
		<-started
		if err := os.WriteFile(filepath.Join("/sys/block", filepath.Base(disk), "device/delete"), []byte("1"), 0); err != nil {
			t.Fatal(err)
		}
		t.Logf("writes end with: %v", ublktest.Receive(t, 30*time.Second, "the end of the writes", ended))
	})
}

// dm-flakey fails all requests for a time, and then works again. Each operation of the
// device must do the same.
func TestKernelFlakyDiskRecovers(t *testing.T) {
	ctl := ublktest.Kernel(t)
	run(t, "modprobe", "dm-flakey")
	inEachMode(t, ctl, func(t *testing.T, cfg Config) {
		below := nullDisk(t, 64, map[string]string{"cache_size": "8"}) // accepts flushes
		table := "0 131072 flakey " + below + " 0 "
		disk := mappedDisk(t, table+"3600 0")
		name := strings.TrimSpace(run(t, "dmsetup", "info", "-c", "--noheadings", "-o", "name"))
		dev := attach(t, ctl, disk, cfg)
		f := openFile(t, dev.Path(), os.O_RDWR|unix.O_DIRECT)
		mem := alignedMemory(t, 8192)
		ops := map[string]func() error{
			"write":   func() error { _, err := f.WriteAt(mem, 0); return err },
			"read":    func() error { _, err := f.ReadAt(mem, 0); return err },
			"flush":   f.Sync,
			"discard": func() error { return blockIoctl(f, unix.BLKDISCARD, 0, 1<<20) },
		}
		for _, step := range []struct {
			interval string
			want     error
		}{{"3600 0", nil}, {"0 3600", unix.EIO}, {"3600 0", nil}} {
			run(t, "dmsetup", "suspend", "--noudevsync", "--nolockfs", name)
			run(t, "dmsetup", "load", name, "--table", table+step.interval)
			run(t, "dmsetup", "resume", "--noudevsync", name)
			for what, op := range ops {
				if err := within(t, what, op); !errors.Is(err, step.want) {
					t.Errorf("interval %s: %s: error %v, want %v", step.interval, what, err, step.want)
				}
			}
		}
		// A refusal would not be an error for the caller of a discard (blk_ioctl_discard
		// in block/ioctl.c).
		if s := dev.dev.Stats().Ops[ublk.OpDiscard]; s.Requests != 3 || s.Errors != 1 {
			t.Errorf("%d of %d discards failed, want 1 of 3", s.Errors, s.Requests)
		}
	})
}
