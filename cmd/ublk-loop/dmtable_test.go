package main

import (
	"testing"

	"github.com/ublk-loop/ublk-loop/client"
)

func TestDMTable(t *testing.T) {
	disk := client.Device{
		ID: 3, Device: "/dev/ublkb3", Size: 1 << 20, Offset: 4096,
		File: "/dev/sda", FileDevice: "8:0", FileIsDisk: true, Transfer: client.Transfer{Name: "none"},
	}
	crypt := disk
	crypt.Transfer = client.Transfer{Name: "aes-xts-plain64", KeyBytes: 64, SectorSize: 512}
	large := crypt
	large.Transfer = client.Transfer{
		Name: "aes-xts-plain64", KeyBytes: 32, SectorSize: 4096, IVOffset: 8, IVLargeSectors: true, AllowDiscards: true,
		LUKS: 2, UUID: "a-b",
	}
	file := crypt
	file.File, file.FileDevice, file.FileIsDisk = "/srv/a b", "254:1", false
	quoted, hostile := file, crypt
	quoted.File = `/srv/a\ 0 8:16`
	hostile.Transfer.UUID = "x 0 8:16 0 0"
	for _, tt := range []struct {
		d    client.Device
		want string
	}{
		{disk, "0 2048 linear 8:0 8"},
		{crypt, "0 2048 crypt aes-xts-plain64 :64:user:ublk-loop:3 0 8:0 8"},
		{large, "0 2048 crypt aes-xts-plain64 :32:user:ublk-loop:a-b 8 8:0 8 3 allow_discards sector_size:4096 iv_large_sectors"},
		{file, `0 2048 crypt aes-xts-plain64 :64:user:ublk-loop:3 0 /srv/a\ b 8`},
		{quoted, `0 2048 crypt aes-xts-plain64 :64:user:ublk-loop:3 0 /srv/a\\\ 0\ 8:16 8`},
		{hostile, "0 2048 crypt aes-xts-plain64 :64:user:ublk-loop:3 0 8:0 8"},
	} {
		b := newBench()
		b.drv.devices = []client.Device{tt.d}
		b.check(t, []string{"list", "--dm-table"}, 0, tt.want+"\n", "")
	}
	b := newBench()
	second := crypt
	second.ID = 4
	b.drv.devices = []client.Device{disk, second}
	b.check(t, []string{"list", "--dm-table"}, 0,
		"ublkb3: 0 2048 linear 8:0 8\nublkb4: 0 2048 crypt aes-xts-plain64 :64:user:ublk-loop:4 0 8:0 8\n", "")
	b.drv.devices[1].Transfer.Name = "xor"
	b.check(t, []string{"list", "--dm-table", "4"}, 1, "",
		"ublk-loop: error: list /dev/ublkb3: device mapper has no xor: unsupported operation\nhint: list the other devices by name\n")
	b.drv.devices[1] = disk
	b.drv.devices[1].ID, b.drv.devices[1].Offset = 4, 4096+100
	b.check(t, []string{"list", "--dm-table", "4"}, 1, "",
		"ublk-loop: error: list /dev/ublkb3: it starts at byte 4196, and device mapper counts in sectors of 512: unsupported operation\n")
	b.check(t, []string{"list", "--dm-table", "--json"}, 2, "",
		"ublk-loop: error: --json and --dm-table are mutually exclusive\nhint: see ublk-loop list --help\n")
}

// The tables of a device of tables are one line in the concise format, with the numbers of
// disks and the paths of files.
func TestDMTableOfTables(t *testing.T) {
	files := []client.DeviceFile{{File: "/srv/a", Device: "254:1"}, {File: "/dev/sda", Device: "8:0", IsDisk: true}, {File: "/srv/a b", Device: "254:1"}}
	for text, want := range map[string]string{
		"0 8 linear x 0\n8 16 striped 2 8 /dev/disk 0 link 8\n":                  "ublkb3,,,rw,0 8 linear /srv/a 0,8 16 striped 2 8 8:0 0 link 8\n",
		"0 8 error x 0\n8 8 zero\n16 8 linear /dev/disk 0\n24 8 linear link 0\n": "ublkb3,,,rw,0 8 error /srv/a 0,8 8 zero ,16 8 linear 8:0 0,24 8 linear link 0\n",
		"low,,,,0 8 linear x 0,8 8 linear /dev/disk 0;top,u,7,ro,0 16 crypt aes-xts-plain64 :64:user:k 0 /dev/mapper/low 0,16 8 linear link 8": "" +
			"low,,,rw,0 8 linear /srv/a 0,8 8 linear 8:0 0;top,u,7,ro,0 16 crypt aes-xts-plain64 :64:user:k 0 /dev/mapper/low 0,16 8 linear link 8\n",
	} {
		b := newBench()
		b.drv.devices = []client.Device{{ID: 3, Device: "/dev/ublkb3", Table: text, Files: files}}
		b.check(t, []string{"list", "--dm-table"}, 0, want, "")
	}
	b := newBench()
	b.drv.devices = []client.Device{{ID: 3, Device: "/dev/ublkb3", Table: "low,,,,0 8 linear x 0;top,,,rw,0 8 linear /dev/mapper/low 0", ReadOnly: true, Files: files[:1]}}
	b.check(t, []string{"list", "--dm-table"}, 0, "low,,,rw,0 8 linear /srv/a 0;top,,,ro,0 8 linear /dev/mapper/low 0\n", "")
	b = newBench()
	b.drv.devices = []client.Device{{ID: 3, Device: "/dev/ublkb3", Table: "0 8 linear x 0", Files: files}}
	b.check(t, []string{"list", "--dm-table"}, 1, "", "ublk-loop: error: list /dev/ublkb3: 3 files for 1 device of its table: invalid argument\n")
}
