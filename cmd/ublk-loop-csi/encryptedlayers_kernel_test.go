package main

import (
	"bytes"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// Where files cannot share blocks, encrypted volumes in use are copied as others are: also for the first
// time, and after they have grown. Their layers are merged, and all layers are encrypted. The volumes
// survive the death of the server, and a copy needs the passphrase of its source.
func TestKernelEncryptedLayers(t *testing.T) {
	b := newBed(t, ublktest.Once)
	b.start("--overcommit", "8") // on tmpfs
	const pass = "correct horse battery"
	access := mountAccess("ext4", writers)
	v := b.create("secret", 24*mib, access, encrypted)
	v.secrets = map[string]string{"passphrase": pass}
	v.use("a")
	first, second, third := plainText("first "), plainText("second"), plainText("third ")
	b.put(v.file("a"), first)
	if !b.updateSize(v.grow("a", 32*mib)) {
		v.leave("a")
		v.use("a")
	}
	snapshot := v.snapshot("s")
	b.put(v.file("a"), second)
	clone := b.create("clone", 32*mib, access, encrypted, fromVolume(v.id))
	b.put(v.file("a"), third)
	larger := b.create("larger", 48*mib, access, encrypted, fromSnapshot(snapshot))
	clone.secrets = map[string]string{"passphrase": "wrong"}
	b.refused("stage a copy with another secret", clone.tryStage(), codes.InvalidArgument, "secrets")
	for c, data := range map[*volume][]byte{clone: second, larger: first} {
		c.secrets = v.secrets
		c.use("a")
		b.has(c.file("a"), data)
	}
	b.server.end(unix.SIGKILL) // the driver gives the keys to the next one
	b.serve()
	for c, data := range map[*volume][]byte{v: third, clone: second, larger: first} {
		b.has(c.file("a"), data)
	}
	b.refused("grow with layers", v.grow("a", 40*mib), codes.FailedPrecondition, "staged again")
	b.put(clone.file("a"), third)
	b.poolLacks("plain text", pass)
	clone.leave("a")
	clone.remove()
	b.deleteSnapshot(snapshot)
	b.layersAre(v, 3) // an image and a store of the volume, after a merge, and the image of the larger copy
	b.has(v.file("a"), third)
	v.leave("a")
	v.use("a")
	b.has(v.file("a"), third)
	b.poolLacks("plain text", pass)
	for _, c := range []*volume{v, larger} {
		c.leave("a")
		c.remove()
	}
	b.isClean()
}

// plainText returns nearly a MiB that is easy to find.
func plainText(word string) []byte { return bytes.Repeat([]byte(word+" plain text"), mib/17) }
