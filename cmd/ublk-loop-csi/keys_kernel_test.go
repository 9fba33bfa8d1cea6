package main

import (
	"os"
	"testing"

	csi "github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// Encrypted volumes in use survive the death and the upgrade of the server, because the driver gives
// the next server their keys. A driver that has been started again learns the keys from the
// secrets of repeated calls.
func TestKernelKeys(t *testing.T) {
	b := newBed(t, ublktest.OldestAndNewest)
	b.start()
	secrets := map[string]string{"passphrase": "correct horse"}
	var volumes []*volume
	for name, access := range map[string]*csi.VolumeCapability{"fs": mountAccess("ext4", oneWriter), "block": blockAccess(oneWriter)} {
		v := b.create(name, 24*mib, access, encrypted)
		v.secrets = secrets
		v.use("a")
		volumes = append(volumes, v)
	}
	number := uint64(0)
	writable := func(what string) {
		t.Helper()
		for _, v := range volumes {
			number++
			ended := b.putting(v.file("a"), content(number, mib))
			b.ok(what, ublktest.Receive(b, patience, what+": write to "+v.name, ended))
			b.has(v.file("a"), content(number, mib))
		}
	}
	writable("at first")
	b.server.end(unix.SIGKILL)
	b.serve()
	writable("after the death of the server")
	b.tool(os.Getenv("UBLK_LOOP_BIN"), "upgrade", "--socket", b.control)
	writable("after the upgrade of the server")

	// Only the secrets of a call have the keys when both have ended.
	b.driver.end(unix.SIGKILL)
	b.server.end(unix.SIGKILL)
	b.serve()
	b.start()
	b.giveSecretsAgain(volumes, secrets)
	writable("after the death of both")
	b.server.end(unix.SIGKILL)
	b.serve()
	writable("after another death of the server")
	b.devicesAre(2)

	// A driver learns the keys while the devices do not need them.
	b.driver.end(unix.SIGKILL)
	b.start()
	for _, v := range volumes {
		b.ok("publish again", v.tryPublish("a", false, v.access))
	}
	b.server.end(unix.SIGKILL)
	b.serve()
	writable("after the death of the driver and then of the server")
	for _, v := range volumes {
		v.leave("a")
		v.remove()
	}
	b.isClean()
}

// putting writes a file, or the start of a device, to disk, and sends the result.
func (b *bed) putting(path string, data []byte) <-chan error {
	ended := make(chan error, 1)
	go func() {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
		if err == nil {
			if _, err = f.WriteAt(data, 0); err == nil {
				err = f.Sync()
			}
			_ = f.Close()
		}
		ended <- err
	}()
	return ended
}

// giveSecretsAgain publishes volumes whose driver and server have ended. Only the right secrets work.
func (b *bed) giveSecretsAgain(volumes []*volume, secrets map[string]string) {
	b.Helper()
	for i, v := range volumes {
		v.secrets = nil
		b.refused("publish without a secret", v.tryPublish("a", false, v.access), codes.FailedPrecondition, "secrets")
		b.ok("unpublish", v.tryUnpublish("a"))
		b.refused("unstage without a secret", v.tryUnstage(), codes.FailedPrecondition, "secrets")
		v.secrets = map[string]string{"passphrase": "wrong"}
		b.refused("publish with another secret", v.tryPublish("a", false, v.access), codes.InvalidArgument, "secrets")
		v.secrets = secrets
		if i == 0 {
			b.ok("publish", v.tryPublish("a", false, v.access))
		} else {
			b.ok("stage", v.tryStage())
			b.ok("publish", v.tryPublish("a", false, v.access))
		}
	}
}
