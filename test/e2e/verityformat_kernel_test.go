package e2e

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// verity format makes no tree of an image that a device writes to, and writes neither to a file that a device
// has, nor to one that stores need. A device that waits for its next server also has its file.
func TestKernelVerityFormatInUse(t *testing.T) {
	b := kernelBed(t, ublktest.OldestKernel)
	image := b.image(2 << 20)
	before := b.readFile(image)
	tree := filepath.Join(t.TempDir(), "tree")
	inImage, beside := []string{"verity", "format", image}, []string{"verity", "format", image, "--hash-file", tree}

	writer := b.add(image, "--on-crash", "reissue")
	b.run(inImage...).fails(t, 1, image, "already in use", "hint: ublk-loop list FILE")
	b.run(beside...).fails(t, 1, image, "already in use")
	b.run("verity", "format", b.image(1<<20), "--hash-file", image, "--force").fails(t, 1, image, "already in use")
	b.killServer(writer)
	b.run(inImage...).fails(t, 1, writer.Device+" has it and waits for a server")
	b.run(beside...).fails(t, 1, writer.Device+" has it and waits for a server")
	b.ok("recover", writer.Device)
	b.del(writer.Device)

	reader := b.add(image, "--read-only")
	b.run(inImage...).fails(t, 1, image, "already in use")
	b.del(reader.Device)

	store := filepath.Join(t.TempDir(), "store")
	b.ok("cow", "create", store, "--origin", image)
	b.run(inImage...).fails(t, 1, image, "base of a store", "hint: --hash-file")
	if _, err := os.Lstat(tree); err == nil {
		t.Error("a refused format leaves the hash file")
	}
	if b.readFile(image) != before {
		t.Error("the image has changed")
	}
	reader = b.add(image, "--cow", store)
	b.ok(beside...)
	b.del(reader.Device)
	b.ok("cow", "thaw", image)
	b.ok(inImage...)
}
