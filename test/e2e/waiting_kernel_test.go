package e2e

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// While a device waits for its next server, its file counts as in use: by another device or the
// next server, the data of the first or of the second would be lost.
func TestKernelAddBesideWaiting(t *testing.T) {
	b := kernelBed(t, ublktest.OldestKernel)
	image := b.image(1 << 20)
	other := filepath.Join(filepath.Dir(image), "hard link")
	if err := os.Link(image, other); err != nil {
		t.Fatal(err)
	}
	table := image + ".table"
	b.write(table, "0 1024 linear "+image+" 1024\n", 0o600)
	s := b.add("--on-crash", "reissue", image)
	b.killServer(s)
	refused := []string{"open ", s.Device + " has it and waits for a server: device or resource busy", "hint: ublk-loop recover " + s.Device}
	for _, args := range [][]string{{image}, {other}, {"--read-only", image}, {"--offset", "4096", image}, {"--table", table}, {image, "--cow", other + ".cow"}} {
		b.run(append([]string{"add"}, args...)...).fails(t, 1, refused...)
	}
	b.run("cow", "create", other+".cow", "--origin", image).fails(t, 1, refused...)
	if _, err := os.Lstat(other + ".cow"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a store is left, error %v", err)
	}
	m := b.serve()
	b.run("add", image).fails(t, 1, refused...)
	m.stop()
	b.del(b.add("--shared", image).Device)
	b.del(b.recover(s).Device)
	b.del(b.add(image).Device)
}

// Other parts of the file, and files that the waiting device only reads, can be used.
func TestKernelAddBesideWaitingAllowed(t *testing.T) {
	b := kernelBed(t, ublktest.OldestKernel)
	image, base := b.image(1<<20), b.image(1<<20)
	store := base + ".cow"
	part := b.add("--on-crash", "reissue", "--sizelimit", "4096", image)
	above := b.add("--on-crash", "reissue", base, "--cow", store)
	reader := b.add("--on-crash", "reissue", "--read-only", base)
	b.killServer(part)
	b.killServer(above)
	b.killServer(reader)
	b.del(b.add("--offset", "4096", image).Device)
	b.del(b.add("--read-only", base).Device)
	b.del(b.add(base, "--cow", store+"2").Device)
	b.run("add", image).fails(t, 1, part.Device+" has it and waits for a server")
	b.run("add", "--read-only", store).fails(t, 1, above.Device+" has it and waits for a server")
	b.run("add", base, "--cow", store).fails(t, 1, above.Device+" has it and waits for a server")
	for _, args := range [][]string{{"merge", store}, {"diff", store}, {"thaw", base}} {
		b.run(append([]string{"cow"}, args...)...).fails(t, 1, above.Device+" has it and waits for a server")
	}
	behind := b.add("--offset", "8192", "--sizelimit", "4096", image)
	b.del(behind.Device)
	b.del(part.Device, above.Device, reader.Device)
	b.del(b.add(image).Device)
}

// A merge does not write to the file of a device that waits for its next server, which expects the file as it
// was.
func TestKernelMergeBesideWaiting(t *testing.T) {
	b := kernelBed(t, ublktest.OldestKernel)
	base := b.image(1 << 20)
	above := b.add(base, "--cow", base+".cow")
	want, before := b.fillDevice(above, 1<<20), b.readFile(base)
	reader := b.add("--on-crash", "reissue", "--read-only", base)
	b.killServer(reader)
	b.run("merge", above.Device).fails(t, 1, reader.Device+" has it and waits for a server", "hint: ublk-loop recover "+reader.Device)
	if b.readFile(base) != before {
		t.Error("the base has other data")
	}
	b.del(reader.Device)
	b.ok("merge", above.Device)
	if b.readFile(base) != want {
		t.Error("the base has other data after a merge")
	}
	b.del(above.Device)
}
