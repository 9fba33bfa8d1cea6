package loop

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/transfer"
	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// without lists the operations of a disk that carry no data, by the operation on the
// backing file.
var without = map[string]func(*os.File) error{
	"flush":   func(f *os.File) error { return f.Sync() },
	"discard": func(f *os.File) error { return blockIoctl(f, unix.BLKDISCARD, 8<<20, 1<<20) },
	"write-zeroes": func(f *os.File) error {
		return unix.Fallocate(int(f.Fd()), punchHole, 8<<20, 1<<20)
	},
	"write-zeroes in place": func(f *os.File) error { return blockIoctl(f, unix.BLKZEROOUT, 8<<20, 1<<20) },
}

// inEachBufferMode runs a test with a disk in each buffer mode that the kernel offers,
// and with a transfer, which has no write-zeroes. The backing is a moody file.
func inEachBufferMode(t *testing.T, ctl *ublk.Control, test func(t *testing.T, file *moody, disk *os.File, ops []string)) {
	t.Helper()
	all := []string{"flush", "discard", "write-zeroes", "write-zeroes in place"}
	for _, m := range []mode{
		{zeroCopy: ublk.BufferCopy},
		{zeroCopy: ublk.BufferRegister},
		{zeroCopy: ublk.BufferAutoRegister},
		{zeroCopy: ublk.BufferAutoRegister, fallback: true},
	} {
		m.direct, m.sector, m.queues = SwitchOff, 512, 1
		t.Run(m.String(), func(t *testing.T) {
			file, path := mountMoody(t)
			test(t, file, attachMode(t, ctl, path, m).disk, all)
		})
	}
	t.Run("transfer", func(t *testing.T) {
		file, path := mountMoody(t)
		dev := attach(t, ctl, path, Config{
			DirectIO: SwitchOff, Transfer: TransferConfig{Name: transfer.AESXTSPlain64, AllowDiscards: true},
		})
		test(t, file, openFile(t, dev.Path(), os.O_RDWR|unix.O_DIRECT), all[:2])
	})
}

// An error of a flush, discard or write-zeroes reaches the caller, both for the first
// request and for a later one. The next request succeeds.
func TestKernelErrorsWithoutData(t *testing.T) {
	warmUpFUSE(t)
	ctl := ublktest.Kernel(t, ublktest.EveryKernel)
	inEachBufferMode(t, ctl, func(t *testing.T, file *moody, disk *os.File, ops []string) {
		for _, op := range ops {
			for _, errno := range []syscall.Errno{unix.EIO, unix.ENOSPC, unix.ETIMEDOUT} {
				t.Run(fmt.Sprintf("%s, %v", op, errno), func(t *testing.T) {
					for i, want := range []syscall.Errno{errno, 0, errno, errno, 0} {
						file.answerNext(want)
						err := within(t, op, func() error { return without[op](disk) })
						if want == 0 && err != nil || want != 0 && !errors.Is(err, want) {
							t.Errorf("number %d: error %v, want %v", i, err, want)
						}
						if passed, left := file.answered(); passed != 1 || left != 0 {
							t.Errorf("number %d: the file was asked %d times, want once", i, passed)
						}
					}
				})
			}
		}
	})
}

// On a file without ZERO_RANGE, a write-zeroes in place first punches a hole and then
// allocates its space. An error of either operation reaches the caller.
func TestKernelErrorsOfLaterSteps(t *testing.T) {
	warmUpFUSE(t)
	ctl := ublktest.Kernel(t)
	inEachBufferMode(t, ctl, func(t *testing.T, file *moody, disk *os.File, ops []string) {
		if len(ops) < len(without) {
			return // a transfer has no write-zeroes
		}
		const no = unix.EOPNOTSUPP
		for _, tt := range []struct {
			answers []syscall.Errno
			want    error
		}{
			{[]syscall.Errno{no, 0, 0}, nil},
			{[]syscall.Errno{no, unix.EIO}, unix.EIO},
			{[]syscall.Errno{no, 0, unix.ENOSPC}, unix.ENOSPC},
			{[]syscall.Errno{no, 0, unix.EIO}, unix.EIO},
		} {
			file.answerNext(tt.answers...)
			err := within(t, "write-zeroes", func() error { return without["write-zeroes in place"](disk) })
			if !errors.Is(err, tt.want) {
				t.Errorf("%v: error %v, want %v", tt.answers, err, tt.want)
			}
			if passed, left := file.answered(); passed != len(tt.answers) || left != 0 {
				t.Errorf("%v: the file was asked %d times, want %d", tt.answers, passed, len(tt.answers))
			}
		}
	})
}

// If the block layer splits a discard, it fails when one of the parts fails.
func TestKernelErrorOfOneDiscardOfMany(t *testing.T) {
	warmUpFUSE(t)
	ctl := ublktest.Kernel(t)
	inEachBufferMode(t, ctl, func(t *testing.T, file *moody, disk *os.File, _ []string) {
		most := filepath.Join("/sys/block", filepath.Base(disk.Name()), "queue/discard_max_bytes")
		if err := os.WriteFile(most, []byte("262144"), 0); err != nil {
			t.Fatal(err)
		}
		for failing := range 4 {
			answers := make([]syscall.Errno, 4)
			answers[failing] = unix.EIO
			file.answerNext(answers...)
			err := within(t, "discard", func() error { return without["discard"](disk) })
			if !errors.Is(err, unix.EIO) {
				t.Errorf("number %d of 4 fails: error %v, want EIO", failing, err)
			}
			if passed, _ := file.answered(); passed <= failing {
				t.Errorf("number %d of 4 fails: the file was asked %d times", failing, passed)
			}
		}
	})
}

// On a full file system a write-zeroes in place fails, because there is no space to
// allocate. Operations that free space succeed.
func TestKernelFullFileSystemHasNoSpaceForZeroes(t *testing.T) {
	ctl := ublktest.Kernel(t)
	for _, zeroCopy := range []Switch{SwitchOn, SwitchOff} {
		t.Run("zero copy "+string(zeroCopy), func(t *testing.T) {
			if zeroCopy == SwitchOn && !offers(t, ctl, ublk.BufferRegister) {
				t.Skip("this kernel has no zero copy")
			}
			dir := t.TempDir()
			run(t, "mount", "-t", "tmpfs", "-o", "size=4m", "none", dir)
			t.Cleanup(func() { run(t, "umount", dir) })
			dev := attach(t, ctl, sparseFile(t, dir), Config{ZeroCopy: zeroCopy})
			f := openFile(t, dev.Path(), os.O_RDWR|unix.O_DIRECT)
			err := os.WriteFile(filepath.Join(dir, "rest"), make([]byte, 8<<20), 0o600)
			if !errors.Is(err, unix.ENOSPC) {
				t.Fatalf("fill the file system: error %v, want ENOSPC", err)
			}
			err = within(t, "write-zeroes", func() error { return without["write-zeroes in place"](f) })
			if !errors.Is(err, unix.ENOSPC) {
				t.Errorf("write-zeroes in place: error %v, want ENOSPC", err)
			}
			for _, op := range []string{"discard", "write-zeroes", "flush"} {
				if err := within(t, op, func() error { return without[op](f) }); err != nil {
					t.Errorf("%s: %v", op, err)
				}
			}
		})
	}
}
