package main

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// The server refuses a fork to a store that the device has already, as when the driver has asked for it again
// before the server came to the first request. The device goes on.
func TestKernelForkTwice(t *testing.T) {
	b := newBed(t, ublktest.OldestAndNewest)
	b.start("--overcommit", "8") // on tmpfs
	v := b.create("data", 16*mib, blockAccess(writers), layered)
	v.use("a")
	b.put(v.file("a"), content(1, mib))
	snapshot := v.snapshot("s")
	b.put(v.file("a"), content(2, mib))

	devices, err := b.client.Devices(b.Context())
	b.ok("list", err)
	files := devices[0].Files
	path := files[len(files)-1].File
	store, err := os.OpenFile(path, os.O_RDWR, 0)
	b.ok("open", err)
	_, err = b.client.Fork(b.Context(), &devices[0], client.NewStore{Path: path, File: store})
	b.ok("close", store.Close())
	var refused *client.ServerError
	if !errors.As(err, &refused) {
		t.Errorf("a second fork: error %v", err)
	}

	b.has(v.file("a"), content(2, mib))
	b.put(v.file("a"), content(3, mib))
	other := v.snapshot("t")
	b.put(v.file("a"), content(4, mib))
	b.server.end(unix.SIGKILL)
	b.serve()
	b.has(v.file("a"), content(4, mib))
	v.leave("a")
	b.has(v.use("a"), content(4, mib))
	v.leave("a")
	v.remove()
	b.deleteSnapshot(snapshot)
	b.deleteSnapshot(other)
	b.isClean()
}
