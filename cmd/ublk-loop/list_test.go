package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
)

const (
	tableHead = "DEVICE        STATE  SIZE  OFFSET  SECTOR  RO   DIRECT-IO  BUFFERS        ON-CRASH  PID   FILE\n"
	tableLive = "/dev/ublkb0   live   64M   1M      4096    yes  on         auto-register  reissue   4711  /srv/disk image\n"
	tableDead = "/dev/ublkb12  dead   1536  0       512     no   off        -              -         -     -\n"
)

func TestList(t *testing.T) {
	b := newBench()
	b.check(t, []string{"list"}, 0, "", "")
	b.check(t, []string{"list", "--json"}, 0, "[]\n", "")
	b.drv.devices = someDevices()
	b.check(t, []string{"list"}, 0, tableHead+tableLive+tableDead, "")
	one := "DEVICE        STATE  SIZE  OFFSET  SECTOR  RO  DIRECT-IO  BUFFERS  ON-CRASH  PID  FILE\n" +
		"/dev/ublkb12  dead   1536  0       512     no  off        -        -         -    -\n"
	b.check(t, []string{"list", "12"}, 0, one, "")
	b.check(t, []string{"list", "/dev/ublkc12"}, 0, one, "")
	b.check(t, []string{"list", "/dev/../dev/ublkb12", "/dev/ublkb0"}, 0, tableHead+tableLive+tableDead, "")
	if !b.drv.closed {
		t.Error("the driver is left open")
	}
}

func TestListErrors(t *testing.T) {
	b := newBench()
	b.drv.devices = someDevices()
	b.check(t, []string{"list", "0", "3"}, 1, "", "ublk-loop: error: list /dev/ublkb3: no such device of ublk-loop\n")
	b.check(t, []string{"list", "/nonexistent/x"}, 1, "", "ublk-loop: error: open /nonexistent/x: no such file or directory\n")
	file := someFile(t)
	b.check(t, []string{"list", "0", file}, 1, "", "ublk-loop: error: list "+file+": it has no device\nhint: ublk-loop list shows all devices with their files\n")
	b.check(t, []string{"list", "--associated", "/nonexistent/x"}, 1, "",
		"ublk-loop: error: open /nonexistent/x: no such file or directory\n")
	b.drv.err = unix.EIO
	b.check(t, []string{"list"}, 1, "", "ublk-loop: error: input/output error\n")
}

// Without a driver, no device exists.
func TestListWithoutDriver(t *testing.T) {
	b := newBench()
	b.check(t, []string{"list"}, 0, "", "")
	empty := b.out.String()
	b.drv = nil
	b.check(t, []string{"list"}, 0, empty, "")
	b.check(t, []string{"list", "--json"}, 0, "[]\n", "")
	b.check(t, []string{"list", "0"}, 1, "", "ublk-loop: error: list /dev/ublkb0: no such device of ublk-loop\n")
	file := someFile(t)
	b.check(t, []string{"list", file}, 1, "", "ublk-loop: error: list "+file+": it has no device\nhint: ublk-loop list shows all devices with their files\n")
}

// list finds a file by its identity, and a removed file by its path.
func TestListAssociated(t *testing.T) {
	b := newBench()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	b.drv.devices = []client.Device{
		{ID: 1, Device: "/dev/ublkb1", State: "live", FileInode: st.Ino, File: "/elsewhere"},
		{ID: 2, Device: "/dev/ublkb2", State: "live", FileInode: st.Ino + 1, File: path},
	}
	for _, tt := range []struct {
		gone bool
		want []uint32
	}{{false, []uint32{1}}, {true, []uint32{2}}} {
		if tt.gone {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}
		for _, args := range [][]string{{"-j", path}, {path}, {path, path}, {path, "-j", path}} {
			b.out.Reset()
			if status := b.run(append([]string{"list", "--json"}, args...)); status != 0 {
				t.Fatalf("%q: exit status %d: %s", args, status, &b.errOut)
			}
			var got []client.Device
			if err := json.Unmarshal(b.out.Bytes(), &got); err != nil {
				t.Fatal(err)
			}
			if ids := (&fakeDriver{devices: got}).ids(); !slices.Equal(ids, tt.want) {
				t.Errorf("%q, removed %v: devices %v, want %v", args, tt.gone, ids, tt.want)
			}
		}
	}
}

func TestListJSON(t *testing.T) {
	b := newBench()
	b.drv.devices = someDevices()[:1]
	b.check(t, []string{"list", "--json"}, 0, listedJSON, "")
}

const listedJSON = `[
  {
    "id": 0,
    "device": "/dev/ublkb0",
    "maj:min": "259:0",
    "diskseq": 0,
    "state": "live",
    "pid": 4711,
    "file": "/srv/disk image",
    "file_maj:min": "8:1",
    "file_inode": 1,
    "file_is_disk": false,
    "size": 67108864,
    "offset": 1048576,
    "sizelimit": 67108864,
    "read_only": true,
    "direct_io": true,
    "buffer_mode": "auto-register",
    "copy_reason": "",
    "partscan": true,
    "ref": "",
    "autoclear": false,
    "on_crash": "reissue",
    "queues": 2,
    "depth": 128,
    "transfer": {
      "name": "aes-xts-plain64",
      "key_bytes": 64,
      "sector_size": 4096,
      "iv_offset": 8,
      "iv_large_sectors": true,
      "allow_discards": true,
      "luks": 0,
      "luks_uuid": "",
      "luks_offset": 0
    },
    "limits": {
      "logical_block_size": 4096,
      "physical_block_size": 4096,
      "minimum_io_size": 0,
      "optimal_io_size": 0,
      "max_hw_sectors_bytes": 1048576,
      "chunk_bytes": 0,
      "virt_boundary_mask": 0,
      "dma_alignment": 0,
      "max_segments": 0,
      "max_segment_size": 0,
      "discard_granularity": 0,
      "discard_alignment": 0,
      "discard_max_bytes": 0,
      "write_zeroes_max_bytes": 0,
      "rotational": false,
      "write_cache": false,
      "fua": true
    }
  }
]
`

// list asks the process of a device, or else serve, for the use of stores. It asks serve once, and then only the processes of devices
// that serve does not have. It warns when a store is nearly full or has failed.
func TestListStores(t *testing.T) {
	listStores(t, client.DefaultSocket)
	listStores(t, "/other.sock", "--socket", "/other.sock")
}

// listStores runs list with some arguments, for serve at a socket.
func listStores(t *testing.T, serve string, args ...string) {
	t.Helper()
	b := newBench()
	snapshot := func(id uint32) client.Device {
		return client.Device{ID: id, Device: fmt.Sprint("/dev/ublkb", id), State: "live", PID: 4, Table: "0 8 snapshot /base /store P 8"}
	}
	b.drv.devices = []client.Device{snapshot(0), snapshot(1), snapshot(2), {ID: 3, Device: "/dev/ublkb3", State: "live", PID: 4, Table: "0 8 zero"}, snapshot(4)}
	b.drv.devices[0].Verity = "V"
	of := func(id uint32, used uint64, state string) client.DeviceStats {
		return client.DeviceStats{ID: id, Stores: []client.StoreStats{{File: "/store", Allocated: used, Size: 1000, Metadata: 16, State: state}}}
	}
	var asked []string
	b.stats = func(_ context.Context, socket string) (client.Stats, error) {
		asked = append(asked, socket)
		switch socket {
		case client.DeviceSocket(0):
			return client.Stats{Devices: []client.DeviceStats{of(0, 799, "")}}, nil
		case serve:
			return client.Stats{Devices: []client.DeviceStats{of(0, 1, ""), of(1, 800, ""), of(2, 1000, "Invalid")}}, nil
		}
		return client.Stats{}, client.ErrNoServer
	}
	if status := b.run(append([]string{"list"}, args...)); status != 0 {
		t.Fatalf("exit status %d: %s", status, &b.errOut)
	}
	warnings := "ublk-loop: warning: /dev/ublkb1: store /store: 80 % used\nublk-loop: warning: /dev/ublkb2: store /store: Invalid\n"
	if b.errOut.String() != warnings {
		t.Errorf("warnings %q", b.errOut.String())
	}
	for _, state := range []string{"live (V, 79 % used)", "live (80 % used)", "live (Invalid)"} {
		if !strings.Contains(b.out.String(), state) {
			t.Errorf("the table lacks %s:\n%s", state, &b.out)
		}
	}
	want := []string{client.DeviceSocket(0), client.DeviceSocket(1), serve, client.DeviceSocket(4)}
	if !slices.Equal(asked, want) {
		t.Errorf("asked %q, want %q", asked, want)
	}
}
