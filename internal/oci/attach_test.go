package oci

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/internal/control/controltest"
	"github.com/ublk-loop/ublk-loop/internal/oci/below"
	"github.com/ublk-loop/ublk-loop/loop"
)

// A device is open before it is mounted, and is removed if it is not mounted.
func TestAttach(t *testing.T) {
	for content, want := range map[string]string{"hsqs": "", "else": "no file system"} {
		dir := t.TempDir()
		path := filepath.Join(dir, "image")
		if err := os.WriteFile(path, append([]byte(content), make([]byte, probeSize)...), 0o600); err != nil {
			t.Fatal(err)
		}
		image, err := below.OpenRegular([]string{dir}, path)
		if err != nil {
			t.Fatal(err)
		}
		defer image.Close()
		r, err := parseRootfs(map[string]string{"dev.ublk-loop.rootfs.image": path})
		if err != nil {
			t.Fatal(err)
		}
		d, socket := controltest.NewDevices(path), filepath.Join(dir, "socket")
		controltest.Serve(t, d, socket)
		m := &Maker{Settings: &Settings{Socket: socket, AttachTimeout: time.Minute}}
		a, err := m.attach(image, r)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Fatalf("%s: error %v, want %q", content, err, want)
		}
		if err == nil {
			if a.fs.kind != squashfs || a.Disk() == nil {
				t.Errorf("it holds %q, and is open: %v", a.fs.kind, a.Disk())
			}
			a.end()
		}
		if removed, left := d.Removed(), d.Devices(); len(removed) != 1 || len(left) > 0 {
			t.Errorf("%s: removed are %+v, left are %+v", content, removed, left)
		}
	}
}

// attach tries an image in use again until its device has gone.
func TestAttachInUse(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "image")
	if err := os.WriteFile(path, append([]byte("hsqs"), make([]byte, probeSize)...), 0o600); err != nil {
		t.Fatal(err)
	}
	image, err := below.OpenRegular([]string{dir}, path)
	if err != nil {
		t.Fatal(err)
	}
	defer image.Close()
	d, socket := controltest.NewDevices(path), filepath.Join(dir, "socket")
	d.Become(0, &loop.Status{})
	controltest.Serve(t, d, socket)
	m := &Maker{Settings: &Settings{Socket: socket, AttachTimeout: 200 * time.Millisecond}}
	if _, err := m.attach(image, &rootfs{image: path}); !client.HasStatus(err, http.StatusConflict) {
		t.Errorf("in use for good: %v", err)
	}
	m.Settings.AttachTimeout = time.Minute
	time.AfterFunc(200*time.Millisecond, func() { _ = d.Remove(0, loop.DetachOptions{}) })
	a, err := m.attach(image, &rootfs{image: path})
	if err != nil {
		t.Fatalf("in use for a moment: %v", err)
	}
	a.end()
}

// The device must have the requested file system, if one is requested.
func TestProbeOfAnotherFileSystem(t *testing.T) {
	device := bytes.NewReader(append([]byte("hsqs"), make([]byte, probeSize)...))
	for wanted, want := range map[fsType]string{"": "", squashfs: "", ext4: "holds squashfs, not ext4"} {
		fs, err := wanted.probe(t.Context(), device)
		if fs.kind != squashfs || errors.Is(err, unix.EMEDIUMTYPE) != (want != "") || err != nil && !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: %+v, error %v, want %q", wanted, fs, err, want)
		}
	}
}

// silent is a device that does not answer.
type silent struct{ end chan struct{} }

func (s silent) ReadAt([]byte, int64) (int, error) {
	<-s.end
	return 0, unix.EIO
}

// A device that does not answer is not waited for longer than the context allows.
func TestProbeOfSilentDevice(t *testing.T) {
	device := silent{make(chan struct{})}
	defer close(device.end)
	ctx, cancel := context.WithTimeoutCause(t.Context(), time.Millisecond, errTimeout)
	defer cancel()
	if _, err := fsType("").probe(ctx, device); !errors.Is(err, errTimeout) {
		t.Errorf("error %v, want %v", err, errTimeout)
	}
}
