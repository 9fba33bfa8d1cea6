package loop

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/identity"
	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// queueAttributes are the attributes that a device should share with the disk of its
// backing.
var queueAttributes = []string{
	"logical_block_size", "physical_block_size", "minimum_io_size", "optimal_io_size",
	"max_hw_sectors_kb", "chunk_sectors",
	"max_segments", "max_segment_size", "virt_boundary_mask", "dma_alignment",
	"discard_granularity", "discard_max_bytes", "discard_max_hw_bytes", "write_zeroes_max_bytes",
	"rotational", "write_cache", "fua",
}

// attributes maps the names of a queue's attributes to their values.
type attributes map[string]string

// with returns a copy of the attributes with changes.
func (a attributes) with(changes attributes) attributes {
	a = maps.Clone(a)
	maps.Copy(a, changes)
	return a
}

// limit lowers an attribute to a maximum.
func (a attributes) limit(t testing.TB, name, most string) {
	t.Helper()
	if number(t, a[name]) > number(t, most) {
		a[name] = most
	}
}

// readQueue reads the queue attributes of a disk or partition.
func readQueue(t testing.TB, disk string) attributes {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(disk, &st); err != nil {
		t.Fatal(err)
	}
	dir := "/sys/dev/block/" + identity.MajMin(st.Rdev)
	if _, err := os.Stat(dir + "/queue"); err != nil {
		dir += "/.." // the disk of the partition
	}
	queue := attributes{}
	for _, name := range queueAttributes {
		value, err := os.ReadFile(dir + "/queue/" + name)
		if err != nil {
			t.Fatal(err)
		}
		queue[name] = strings.TrimSpace(string(value))
	}
	return queue
}

// limitsCase is a backing, with the differences between its queue and the device's.
type limitsCase struct {
	name   string
	disk   func(t *testing.T) string              // makes the disk
	file   func(t *testing.T, disk string) string // makes the backing, nil for the disk itself
	config Config
	// differ has the attributes that the driver's interface cannot express, each with its
	// reason.
	differ attributes
}

var limitsCases = []limitsCase{
	{
		name: "null_blk",
		disk: func(t *testing.T) string {
			return nullDisk(t, 256, map[string]string{"blocksize": "512", "max_sectors": "250", "discard": "1", "cache_size": "8", "fua": "1"})
		},
	},
	{
		name: "null_blk, 4096-byte sectors, virtual boundary",
		disk: func(t *testing.T) string {
			return nullDisk(t, 256, map[string]string{"blocksize": "4096", "max_sectors": "200", "virt_boundary": "1", "discard": "1"})
		},
	},
	{
		name: "null_blk without discard, cache without FUA",
		disk: func(t *testing.T) string {
			return nullDisk(t, 256, map[string]string{"discard": "0", "cache_size": "8", "fua": "0"})
		},
	},
	{name: "scsi_debug", disk: oddSCSIDisk, differ: oddOptimum},
	{name: "scsi_debug at an offset", disk: oddSCSIDisk, config: Config{Offset: 1536}, differ: oddOptimum},
	{
		name:   "partition",
		disk:   oddSCSIDisk,
		file:   func(t *testing.T, disk string) string { return partition(t, disk, "100") },
		differ: oddOptimum,
	},
	{
		name:   "dm-linear",
		disk:   func(t *testing.T) string { return mappedDisk(t, "0 65536 linear "+oddSCSIDisk(t)+" 48") },
		differ: oddOptimum,
	},
	{
		name: "dm-stripe",
		disk: func(t *testing.T) string { return newStripes(t) },
		// The minimum and the optimal size are 24 and 48 sectors, which are not powers of
		// two. Of 3 × 4096 and 3 × 8192 the powers of two remain.
		differ: attributes{"minimum_io_size": "4096", "optimal_io_size": "8192"},
	},
	{
		name:   "dm-stripe at an offset within a stripe",
		disk:   newStripes,
		config: Config{Offset: 4096},
		differ: attributes{"minimum_io_size": "4096", "optimal_io_size": "8192", "chunk_sectors": "0"},
	},
	{
		name: "ext4",
		disk: oddSCSIDisk,
		file: func(t *testing.T, disk string) string { return newFileOn(t, disk, "ext4") },
		// The file system decides about holes, in units of its blocks, up to 2^32-512
		// bytes. It also decides about the cache.
		differ: fileHoles.with(oddOptimum),
	},
	{
		name: "btrfs",
		disk: func(t *testing.T) string {
			disk := nullDisk(t, 256, map[string]string{"max_sectors": "250"})
			rotational := filepath.Join("/sys/block", filepath.Base(disk), "queue/rotational")
			if err := os.WriteFile(rotational, []byte("1"), 0); err != nil {
				t.Fatal(err)
			}
			return disk
		},
		file:   func(t *testing.T, disk string) string { return newFileOn(t, disk, "btrfs") },
		differ: fileHoles,
	},
}

// oddOptimum is what the driver can express of an optimal size of 3 × 65536, which is not
// a power of two.
var oddOptimum = attributes{"optimal_io_size": "65536"}

// fileHoles has the attributes that follow from a file's holes and cache.
var fileHoles = attributes{
	"discard_granularity": "4096", "discard_max_bytes": "4294966784", "discard_max_hw_bytes": "4294966784",
	"write_zeroes_max_bytes": "4294966784", "write_cache": "write back", "fua": "1",
}

// oddSCSIDisk has 4096-byte physical blocks, an optimal size of 384 sectors, and discards
// in units of 48 sectors.
func oddSCSIDisk(t *testing.T) string {
	return scsiDebugDisk(t, "physblk_exp=3", "opt_blks=384", "opt_xferlen_exp=7",
		"lbpu=1", "lbpws=1", "unmap_granularity=48", "unmap_alignment=5", "unmap_max_blocks=65536")
}

// newStripes stripes two halves of a disk in chunks of 24 sectors.
func newStripes(t *testing.T) string {
	disk := nullDisk(t, 256, map[string]string{"blocksize": "512", "discard": "1"})
	return mappedDisk(t, fmt.Sprintf("0 96000 striped 2 24 %s 0 %s 65536", disk, disk))
}

func newFileOn(t testing.TB, disk, kind string) string {
	t.Helper()
	if kind != "ext4" {
		run(t, "modprobe", kind)
	}
	force := map[string]string{"ext4": "-F", "xfs": "-f", "btrfs": "-f"}[kind]
	run(t, "mkfs."+kind, "-q", force, disk)
	path := filepath.Join(mount(t, kind, disk), "file")
	if err := os.WriteFile(path, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// A device has the queue limits of its backing's disk, except for the differences in the
// table above and the rules of expected.
func TestKernelLimits(t *testing.T) {
	ublktest.Require(t, ublktest.EveryKernel)
	for row, c := range limitsCases {
		for i, zeroCopy := range []Switch{SwitchAuto, SwitchOff} {
			for _, direct := range ublktest.Sample(t, row+i, SwitchAuto, SwitchOff) {
				t.Run(fmt.Sprintf("%s, zero copy %s, direct %s", c.name, zeroCopy, direct), func(t *testing.T) {
					ctl := ublktest.Kernel(t)
					disk := c.disk(t)
					path := disk
					if c.file != nil {
						path = c.file(t, disk)
					}
					cfg := c.config
					cfg.ZeroCopy, cfg.DirectIO = zeroCopy, direct
					c.check(t, ctl, disk, path, cfg)
				})
			}
		}
	}
}

// check attaches a backing and compares the two queues.
func (c *limitsCase) check(t *testing.T, ctl *ublk.Control, disk, path string, cfg Config) {
	t.Helper()
	file := openPath(t, path)
	dev, err := Attach(ctl, file, cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := dev.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}()
	want := c.expected(t, readQueue(t, disk), dev)
	got := readQueue(t, dev.Path())
	for _, name := range queueAttributes {
		if got[name] != want[name] {
			t.Errorf("%s: %s, want %s", name, got[name], want[name])
		}
	}
}

// expected returns the attributes that a device's queue must have, given the disk's.
func (c *limitsCase) expected(t testing.TB, disk attributes, dev *Device) attributes {
	t.Helper()
	want := disk.with(c.differ)
	mode := dev.dev.Mode()
	limit := "32768" // the driver's maximum for a request, in KiB
	if !mode.ZeroCopy() {
		limit = "256"
	}
	want.limit(t, "max_hw_sectors_kb", limit)
	for _, name := range []string{"discard_max_bytes", "discard_max_hw_bytes", "write_zeroes_max_bytes"} {
		// Sizes have 32 bits, and are whole sectors.
		want.limit(t, name, fmt.Sprint(1<<32-number(t, want["logical_block_size"])))
	}
	switch {
	case !mode.ZeroCopy() || !dev.b.Direct:
		// The form of a request's pages does not matter: the driver's defaults apply.
		want = want.with(attributes{"max_segments": "65535", "max_segment_size": "4294967295", "virt_boundary_mask": "0", "dma_alignment": "3"})
	case want["virt_boundary_mask"] != "0":
		want["max_segment_size"] = "4294967295"
	}
	if !dev.b.Direct {
		// The page cache is volatile, whatever the disk is.
		want["write_cache"], want["fua"] = "write back", "1"
	}
	return want
}

func number(t testing.TB, text string) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
