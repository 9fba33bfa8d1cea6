package e2e

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// Changes of a device over an image with a hash tree are not merged into the image: neither while
// the device is used, nor from its store, nor from a store that was made without it. Nothing is
// written. With --force the image gets the changes, and does not match its root hash then.
func TestKernelMergeIntoVerity(t *testing.T) {
	b := kernelBed(t, ublktest.OldestAndNewest)
	m := b.verityImage()
	separate := &verityImage{path: b.image(2 << 20), data: nil}
	hash := filepath.Join(t.TempDir(), "tree")
	separate.root = b.veritysetup(separate.path, hash)
	for _, tt := range []struct {
		image *verityImage
		flags []string
	}{{m, nil}, {separate, []string{"--hash-file", hash}}} {
		store, before := filepath.Join(t.TempDir(), "store"), b.readFile(tt.image.path)
		with := append([]string{"--root-hash", tt.image.root, "--cow", store + ",chunk=4K", tt.image.path}, tt.flags...)
		device := b.add(with...)
		b.writeBlock(device, 3, 0xab)
		b.run("merge", device.Device).fails(t, 1, "hash tree of verity", "hint: cow merge --force")
		b.run("fork", device.Device, store+".new").fails(t, 1, "a snapshot above the targets crypt and verity")
		b.hasBlock(device, 3, 0xab)
		b.del(device.Device)
		b.run("cow", "merge", store).fails(t, 1, "hash tree of verity", "hint: --force")
		b.run("cow", "merge", store, "--base", tt.image.path).fails(t, 1, "hash tree of verity", "hint: --force")
		if b.readFile(tt.image.path) != before {
			t.Fatal("the image has changed")
		}
		b.ok("cow", "merge", store, "--force")
		b.run(append([]string{"verity", "verify", tt.image.path, "--root-hash", tt.image.root}, tt.flags...)...).fails(t, 1, "data block 3")
	}
	// A store that no device with verity had.
	other := filepath.Join(t.TempDir(), "other")
	image := b.verityImage()
	b.ok("cow", "create", other, "--origin", image.path)
	before := b.readFile(image.path)
	device := b.add(image.path, "--cow", other)
	b.writeBlock(device, 3, 0xab)
	b.run("merge", device.Device).fails(t, 1, "hash tree of verity", "superblock at byte 2097152")
	b.del(device.Device)
	b.run("cow", "merge", other).fails(t, 1, "superblock at byte 2097152")
	if b.readFile(image.path) != before {
		t.Error("the image has changed")
	}
	if err := os.Remove(other); err != nil {
		t.Fatal(err)
	}
}
