package loop

import (
	"fmt"
	"math/bits"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// limitTables are tables whose limits are compared with those of the kernel's device. The disks
// are those of limitDisks.
var limitTables = []string{
	"0 8192 linear $0 0",
	"0 8192 linear $1 8",
	"0 8192 linear $2 0",
	"0 8192 linear $2 7",
	"0 8192 linear $3 0",
	"0 8192 linear $4 0",
	"0 4096 linear $0 8\n4096 4096 linear $1 0",
	"0 4096 linear $0 3\n4096 4096 linear $2 5",
	"0 4096 linear $0 0\n4096 4096 linear $3 0",
	"0 4096 linear $0 0\n4096 8 zero\n4104 4096 linear $1 0",
	"0 4096 zero",
	"0 4096 error",
	"0 4096 error $1 0",
	"0 4096 zero\n4096 4096 error $2 0",
	"0 8192 striped 2 8 $0 0 $0 8192",
	"0 8192 striped 2 128 $0 0 $1 0",
	"0 9216 striped 3 384 $0 0 $1 0 $4 0",
	"0 8192 striped 4 256 $0 0 $1 0 $2 0 $3 0",
	"0 8192 striped 2 512 $2 0 $2 16384\n8192 4096 linear $1 0",
	"0 9000 striped 3 1000 $0 0 $1 0 $0 16384\n9000 8 linear $0 8",
	"0 3000 striped 3 1000 $0 0 $4 0 $0 16384\n3000 8 linear $0 8",
	"0 1024 striped 1 128 $1 0",
	"0 4096 crypt aes-xts-plain64 " + hexKey + " 0 $0 8",
	"0 4096 crypt aes-xts-plain64 " + hexKey + " 0 $0 8 2 allow_discards sector_size:4096\n4096 4096 linear $0 8192",
	"0 4096 crypt aes-xts-plain64 " + hexKey + " 0 $1 8 1 allow_discards\n4096 8 zero",
	"0 4096 crypt aes-xts-plain64 " + hexKey + " 0 $2 0 1 allow_discards",
	"0 4096 verity 1 $0 $1 " + someTree,
	"0 4096 verity 1 $1 $0 " + someTree,
	"0 4096 verity 1 $2 $0 1024 1024 2048 4 sha256 " + hexKey[:64] + " -",
}

// someTree are arguments of verity for data of 2 MiB. No block is read for the limits of a device.
var someTree = "4096 4096 512 4 sha256 " + hexKey[:64] + " -"

// limitDisks makes disks with different limits.
func limitDisks(t *testing.T) []string {
	return []string{
		nullDisk(t, 32, map[string]string{"blocksize": "512"}),
		nullDisk(t, 32, map[string]string{"blocksize": "4096", "max_sectors": "256"}),
		oddSCSIDisk(t),
		nullDisk(t, 32, map[string]string{"blocksize": "512", "discard": "0"}),
		nullDisk(t, 32, map[string]string{"blocksize": "1024", "max_sectors": "1000"}),
	}
}

// A device of tables has the limits that the kernel computes for the same table, apart from
// those that ublk cannot express (docs/limits.md).
func TestKernelTableLimits(t *testing.T) {
	ctl := ublktest.Kernel(t, ublktest.OldestKernel)
	run(t, "modprobe", "-a", "dm_zero", "dm_crypt")
	disks := limitDisks(t)
	smallDiscards := hasSmallDiscards(t)
	for row, text := range limitTables {
		text = withDisks(text, disks...)
		var want attributes
		t.Run("kernel, "+text, func(t *testing.T) { want = readQueue(t, mappedDisk(t, text)) })
		for _, zeroCopy := range ublktest.Sample(t, row, SwitchAuto, SwitchOff) {
			t.Run(fmt.Sprintf("zero copy %s, %s", zeroCopy, text), func(t *testing.T) {
				dev := attachTable(t, ctl, text, Config{ZeroCopy: zeroCopy})
				want, got := expressible(t, want, dev), readQueue(t, dev.Path())
				for _, name := range queueAttributes {
					if smallDiscards && strings.Contains(text, "striped") && strings.HasPrefix(name, "discard_max_") {
						continue
					}
					if smallDiscards && strings.Contains(text, " verity ") && name == "minimum_io_size" {
						continue // dm-verity of Linux 6 sets it to the size of a data block (docs/limits.md)
					}
					if got[name] != want[name] {
						t.Errorf("%s: %s, want %s", name, got[name], want[name])
					}
				}
			})
		}
	}
}

// hasSmallDiscards reports whether the kernel is one of those whose striped target has only the
// largest discard of one stripe (docs/limits.md).
func hasSmallDiscards(t *testing.T) bool {
	t.Helper()
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		t.Fatal(err)
	}
	return strings.HasPrefix(unix.ByteSliceToString(name.Release[:]), "6.")
}

// expressible returns the limits of a kernel's device as a ublk device can have them.
func expressible(t *testing.T, dm attributes, dev *Device) attributes {
	t.Helper()
	want := dm.with(nil)
	zeroCopy := dev.dev.Mode().ZeroCopy()
	if zeroCopy {
		want.limit(t, "max_hw_sectors_kb", "32768")
	} else {
		want.limit(t, "max_hw_sectors_kb", "256")
	}
	for _, name := range []string{"minimum_io_size", "optimal_io_size"} {
		// The driver has powers of two.
		n := number(t, want[name])
		if n = n & -n; n < number(t, want["physical_block_size"]) {
			n = 0
		}
		if want[name] = fmt.Sprint(n); n == 0 && name == "minimum_io_size" {
			want[name] = want["physical_block_size"]
		}
	}
	if bits.Len64(number(t, want["chunk_sectors"])) <= 7 {
		want["chunk_sectors"] = "0" // the server divides requests at smaller chunks
	}
	for _, name := range []string{"discard_max_bytes", "discard_max_hw_bytes", "write_zeroes_max_bytes"} {
		want.limit(t, name, fmt.Sprint(1<<32-number(t, want["logical_block_size"])))
	}
	if !zeroCopy {
		want = want.with(attributes{"max_segments": "65535", "max_segment_size": "4294967295", "virt_boundary_mask": "0", "dma_alignment": "3"})
	}
	return want
}
