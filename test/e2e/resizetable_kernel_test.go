package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// A device of tables grows with the file of its last line, and shrinks within that line. Its
// table changes with it. Recovery and upgrades keep the size.
func TestKernelResizeTable(t *testing.T) {
	b := kernelBed(t, ublktest.EveryKernel)
	if !b.canResize() {
		return
	}
	for _, server := range []string{"alone", "serve"} {
		t.Run(server, func(t *testing.T) {
			b := b.in(t)
			if server == "serve" {
				b.serve()
				b.resizeTable(func(client.Device, string) { b.ok("upgrade") })
				return
			}
			b.resizeTable(func(device client.Device, text string) {
				b.killServer(device)
				if _, err := b.addInput(text, "--table", "-", "--on-crash=reissue", "--id", fmtID(device)); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// resizeTable resizes a device. change gives it another server; it gets the text with which the
// device was made.
func (b *bed) resizeTable(change func(device client.Device, text string)) {
	b.Helper()
	const mib = 1 << 20
	first, last := b.image(mib), b.image(mib+4096)
	text := func(length int) string {
		return fmt.Sprintf("0 2048 linear %s 0\n2048 %d linear %s 8\n", first, length, last)
	}
	device := b.addTable(text(2048), "--on-crash=reissue")
	b.truncate(last, 3*mib+4096)
	b.hasSize(device, 2*mib)
	if out := b.ok("resize", device.Device); out != "" {
		b.Errorf("resize prints %q", out)
	}
	b.hasSize(device, 4*mib)
	b.hasTable(device, text(6144))
	data := randomBytes(4 * mib)
	b.store(device.Device, data)
	if b.fileText(last)[4096:] != string(data[mib:]) {
		b.Errorf("%s has other bytes than the end of the device", last)
	}
	for _, size := range []string{"1M", "512K", "4194816", "4000000"} {
		b.run("resize", device.Device, size).fails(b, 1, device.Device, "invalid argument")
	}
	b.ok("resize", last, "3M")
	b.hasSize(device, 3*mib)
	b.hasTable(device, text(4096))
	b.holds(device.Device, data[:3*mib])
	change(device, text(2048))
	device = b.list(device.Device)[0]
	b.hasSize(device, 3*mib)
	b.hasTable(device, text(4096))
	b.ok("resize", device.Device)
	b.hasSize(device, 4*mib)
	b.holds(device.Device, data)
	b.del(device.Device)
}

// hasTable checks the table that list shows, in each of its forms.
func (b *bed) hasTable(s client.Device, want string) {
	b.Helper()
	if got := b.list(s.Device)[0].Table; got != want {
		b.Errorf("table %q, want %q", got, want)
	}
	concise := fmt.Sprintf("ublkb%d,,,rw,%s", s.ID, strings.ReplaceAll(strings.TrimSpace(want), "\n", ","))
	if got := b.ok("list", "--dm-table", s.Device); got != concise+"\n" {
		b.Errorf("list --dm-table prints %q, want %q", got, concise)
	}
}

// Other tables keep their size.
func TestKernelResizeOtherTables(t *testing.T) {
	b := kernelBed(t, ublktest.OldestKernel)
	if !b.canResize() {
		return
	}
	text, first, second := b.stripes()
	for _, text := range []string{
		text, "0 8 zero", fmt.Sprintf("low,,,,0 4096 linear %s 0;top,,,,0 8 linear %s 0,8 4096 linear /dev/mapper/low 0", first, second),
	} {
		device := b.addTable(text)
		b.run("resize", device.Device).fails(t, 1, device.Device, "the last line of its table is not linear or crypt over a file or disk: unsupported operation")
		b.hasSize(device, device.Size)
		b.del(device.Device)
	}
}
