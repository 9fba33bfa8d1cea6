package e2e

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// A random key is another one for each device, and exists only in its server: an upgrade is
// refused while the device exists, and after a crash nothing can read what was written.
func TestKernelServeRandomKeys(t *testing.T) {
	b := kernelBed(t, ublktest.OldestAndNewest)
	m := b.serve("--on-crash=reissue")
	image := b.image(1 << 20)
	add := func() (device client.Device) {
		t.Helper()
		body := fmt.Sprintf(`{"table":"0 2048 crypt aes-xts-plain64 :64:user:x 0 %s 0","random_keys":true}`, image)
		b.decode(m.curl("-f", "-d", body, "http://x/v1/devices"), &device)
		return device
	}
	device := add()
	if device.OnCrash != "fail" {
		t.Errorf("device %+v", device)
	}
	content := bytes.Repeat([]byte("a secret of 16 b"), 1<<16)
	if err := os.WriteFile(device.Device, content, 0o600); err != nil {
		t.Fatal(err)
	}
	b.tool("blockdev", "--flushbufs", device.Device)
	b.holds(device.Device, content)
	if text := b.fileText(image); strings.Contains(text, "secret") {
		t.Error("the file has what was written in clear text")
	}
	b.run("upgrade").fails(t, 1, device.Device)
	b.holds(device.Device, content)
	b.del(device.Device)
	device = add()
	if text, err := os.ReadFile(device.Device); err != nil || bytes.Contains(text, []byte("secret")) {
		t.Errorf("the next device has the key of the first, error %v", err)
	}
	m.kill()
	m = b.serve("--on-crash=reissue")
	if left := m.unrecovered(); len(left) != 0 {
		t.Errorf("after a crash, the server waits for %+v", left)
	}
	for _, d := range b.list() {
		b.del("--force", d.Device)
	}
}
