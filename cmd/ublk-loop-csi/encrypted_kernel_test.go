package main

import (
	"bytes"
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	csi "github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// An encrypted volume has exactly its size, needs its passphrase, and leaves neither that
// nor its data in the pool or in the log.
func TestKernelEncryptedVolume(t *testing.T) {
	b := newBed(t, ublktest.OldestAndNewest, ublktest.ScratchDisk)
	b.poolOnXFS()
	b.start()
	never := b.create("never", 24*mib, mountAccess("ext4", oneWriter), encrypted)
	b.refused("stage without a secret", never.tryStage(), codes.InvalidArgument, "secrets")
	never.remove() // Kubernetes does not unstage it
	const pass = "correct horse battery"
	for _, access := range []*csi.VolumeCapability{mountAccess("ext4", oneWriter), blockAccess(oneWriter)} {
		v := b.create("secret-"+access.GetMount().GetFsType(), 24*mib, access, encrypted)
		b.refused("stage without a secret", v.tryStage(), codes.InvalidArgument, "secrets")
		v.secrets = map[string]string{"passphrase": pass}
		path := v.use("a")
		if access.GetBlock() == nil {
			path = filepath.Join(path, "file")
		} else if b.sizeOf(path) != 24*mib {
			t.Errorf("the device has %d bytes", b.sizeOf(path))
		}
		data := bytes.Repeat([]byte("plain text in a file"), 4096)
		b.put(path, data)
		snapshot := v.snapshot(v.name)
		b.updateSize(v.grow("a", 40*mib))
		b.has(path, data)
		v.leave("a")
		v.secrets = map[string]string{"passphrase": "wrong"}
		b.refused("stage with another secret", v.tryStage(), codes.InvalidArgument, "secrets")
		v.secrets = map[string]string{"passphrase": pass}
		v.use("a")
		b.has(path, data)

		restored := b.create(v.name+"-restored", 24*mib, access, encrypted, fromSnapshot(snapshot))
		restored.secrets = v.secrets
		copied := restored.use("a")
		if access.GetBlock() == nil {
			copied = filepath.Join(copied, "file")
		}
		b.has(copied, data)
		b.tool("grep", "-rlF", "-e", v.name, b.pool) // finds what is in the pool
		b.poolLacks("plain text", pass)
		for _, v := range []*volume{v, restored} {
			v.leave("a")
			v.remove()
		}
		b.deleteSnapshot(snapshot)
	}
	b.isClean()
	b.driver.end(unix.SIGTERM)
	if log := b.driver.errOut.String(); strings.Contains(log, pass) || strings.Contains(log, "wrong") {
		t.Errorf("a passphrase is in the log: %s", log)
	}
}

// poolLacks fails the test if a file of the pool has one of the texts.
func (b *bed) poolLacks(texts ...string) {
	b.Helper()
	for _, text := range texts {
		out, err := exec.Command("grep", "-rlF", "-e", text, b.pool).CombinedOutput()
		var status *exec.ExitError
		if !errors.As(err, &status) || status.ExitCode() != 1 { // 1: no file has it
			b.Errorf("%q is in the pool: %s, error %v", text, out, err)
		}
	}
}

// TestCrashDriverEncrypted is TestCrashDriver for encrypted volumes.
func TestCrashDriverEncrypted(t *testing.T) {
	b := newBed(t, ublktest.OldestAndNewest, ublktest.ScratchDisk, ublktest.Soak)
	b.poolOnXFS()
	b.crash(3*time.Second, map[string]string{"passphrase": "correct horse"}, encrypted) // a new header takes long
}
