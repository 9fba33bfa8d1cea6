package e2e

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/loop"
)

// The server of one device in the background says why it has crashed, and the next server keeps
// that. The report goes with the device.
func TestKernelCrashReport(t *testing.T) {
	b := kernelBed(t)
	image := b.image(1 << 20)
	path := loop.CrashPath(0)
	b.del(b.add("--id=0", image).Device) // which makes the directory
	if err := os.WriteFile(path, []byte("of a device that another program has removed"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := b.add("--id=0", "--on-crash=reissue", image)
	if report := b.fileText(path); report != "" {
		t.Errorf("a server that works reports\n%s", report)
	}
	for n := range 2 {
		if err := unix.Kill(b.list(s.Device)[0].PID, unix.SIGABRT); err != nil { // like a panic
			t.Fatal(err)
		}
		waitUntil(t, "the crash is reported", func() bool { return strings.Count(b.fileText(path), "SIGABRT: abort") > n })
		waitUntil(t, "the device waits", func() bool { return b.list(s.Device)[0].State == "quiesced" })
		b.ok("recover", s.Device)
	}
	b.del(s.Device)
	if _, err := os.Stat(path); err == nil {
		t.Error("the report stays")
	}
}
