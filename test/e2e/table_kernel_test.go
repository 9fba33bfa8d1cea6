package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// A device of a table of files can be added, used, listed and removed, by its own name and by
// that of each file. Nothing is left when the server is killed.
func TestKernelAddTable(t *testing.T) {
	b := kernelBed(t, ublktest.EveryKernel)
	first, second := b.image(4<<20), b.image(8<<20)
	table := filepath.Join(t.TempDir(), "table")
	text := fmt.Sprintf("0 8192 linear %s 0\n8192 8192 linear %s 8192\n", first, second)
	if err := os.WriteFile(table, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("GODEBUG", "madvdontneed=1") // as checkServer expects
	add := func() client.Device { return b.add("--table", table) }
	device := add()
	if device.Size != 8<<20 || device.Table != text || len(device.Files) != 2 || device.Files[1].File != second || device.File != "" {
		t.Errorf("device %+v", device)
	}
	b.checkServer(device)
	if out := b.ok("list"); !strings.Contains(out, "table of "+first+", "+second) {
		t.Errorf("list prints %s", out)
	}
	b.throughBoth(device.Device, first, second)
	if list := b.list("--associated", second); len(list) != 1 || list[0].ID != device.ID {
		t.Errorf("devices of the second file: %+v", list)
	}
	b.run("add", first).fails(t, 1, "already in use")
	b.run("list", "--dm-table").fails(t, 1, "tables of a device of tables")
	b.run("resize", device.Device).fails(t, 1, "resize of a device of tables: unsupported operation")
	b.del(second)
	for range 2 {
		device = add()
		server, err := os.FindProcess(device.PID)
		if err != nil {
			t.Fatal(err)
		}
		if err := server.Kill(); err != nil {
			t.Fatal(err)
		}
		waitUntil(t, "the end of the server", func() bool { return len(servers(t)) == 0 })
		b.del(device.Device)
	}
}

// throughBoth writes across the border of two halves, and finds the bytes in both files.
func (b *bed) throughBoth(device, first, second string) {
	b.Helper()
	f, err := os.OpenFile(device, os.O_RDWR, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	data := strings.Repeat("ublk-loop tables", 512)
	if _, err := f.WriteAt([]byte(data), 4<<20-4096); err != nil {
		b.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		b.Fatal(err)
	}
	for file, at := range map[string]int64{first: 4<<20 - 4096, second: 4 << 20} {
		content, err := os.ReadFile(file)
		if err != nil {
			b.Fatal(err)
		}
		if string(content[at:at+4096]) != data[:4096] {
			b.Errorf("%s lacks what was written to the device", file)
		}
	}
}
