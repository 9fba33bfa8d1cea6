package e2e

import (
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/loop/cowfile"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// merge merges a device of its own process, one of serve, and none without a store.
func TestKernelMergeCommand(t *testing.T) {
	b := kernelBed(t, ublktest.OldestKernel)
	base := b.image(8 << 20)
	store := filepath.Join(filepath.Dir(base), "store")
	device := b.add(base, "--cow", store)
	b.checkApart(device)
	want := b.fillDevice(device, 8<<20)
	if out := b.ok("merge", device.Device); out != "128 chunks merged\n" {
		t.Errorf("merge prints %q", out)
	}
	b.del(device.Device)
	if b.readFile(base) != want {
		t.Error("the base has other data")
	}
	b.run("add", base).fails(t, 1, "base of a store") // the device could have written more
	if out := b.ok("cow", "merge", store); out != "0 chunks merged into "+base+"\n" {
		t.Errorf("cow merge prints %q", out)
	}
	device = b.add(base)
	b.run("merge", device.Device).fails(t, 1, "it has no store")
	b.del(device.Device)

	s := b.serve()
	device = b.add(base, "--cow", store)
	b.fillDevice(device, 4<<20)
	if merged, err := client.New(client.DefaultSocket).Merge(context.Background(), &device); err != nil || merged.Chunks != 64 {
		t.Errorf("%+v, error %v", merged, err)
	}
	b.fillDevice(device, 1<<20)
	if out := b.ok("merge", device.Device); out != "16 chunks merged\n" {
		t.Errorf("merge prints %q", out)
	}
	s.stop()
}

// A server is killed while it merges, at any moment. Base and store together then have what was
// written, and the merge is finished without a device or by the next one.
func TestKernelMergeKilled(t *testing.T) {
	b := kernelBed(t, ublktest.OldestKernel, ublktest.Soak)
	const size, chunks = 32 << 20, 32 << 20 / 4096
	n := ublktest.Kills(b, ublktest.Fewer(b, 5, 3), 5)
	ublktest.UntilHit(t, "the server was killed within a merge", n, (n+1)/2, 12*n, func(i int) bool {
		base := b.image(size)
		store := filepath.Join(filepath.Dir(base), "store")
		device := b.add(base, "--cow", store+",chunk=4K")
		want := b.fillDevice(device, size)
		defer func() { // the machine has little memory
			for _, path := range []string{base, store} {
				if err := os.Remove(path); err != nil {
					t.Error(err)
				}
			}
		}()
		ended := make(chan result, 1)
		go func() { ended <- b.run("merge", device.Device) }() // received below
		below := 1 + rand.Uint64N(chunks)
		ublktest.Until(t, time.Minute, "chunks are merged", func() bool {
			info, err := cowfile.Inspect(store)
			if err != nil {
				t.Fatal(err)
			}
			return info.Chunks < below
		})
		if err := unix.Kill(device.PID, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		<-ended
		b.ok("del", device.Device)
		var info struct{ Chunks uint64 }
		b.decode(b.ok("cow", "info", "--json", store), &info)
		if i%2 == 0 {
			b.ok("cow", "merge", store)
		} else {
			device = b.add(base, "--cow", store)
			b.ok("merge", device.Device)
			b.del(device.Device)
		}
		if b.readFile(base) != want {
			t.Fatalf("try %d: the base has other data; %d chunks were left", i, info.Chunks)
		}
		return 0 < info.Chunks && info.Chunks < chunks
	})
}

// fillDevice writes random bytes to the first n of a device, and returns what the device has.
func (b *bed) fillDevice(device client.Device, n int) string {
	b.Helper()
	f, err := os.OpenFile(device.Device, os.O_RDWR, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(randomBytes(n), 0); err != nil {
		b.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		b.Fatal(err)
	}
	return b.readFile(device.Device)
}

// A device whose base is a frozen store is not merged, attached or not. Each error names the store,
// and no file changes.
func TestKernelMergeIntoChain(t *testing.T) {
	b := kernelBed(t)
	base := b.image(1 << 20)
	file := func(name string) string { return filepath.Join(filepath.Dir(base), name) }
	device := b.add(base, "--cow", file("below")+",chunk=4K")
	b.fillDevice(device, 1<<19)
	b.ok("fork", device.Device, file("top"))
	want := b.fillDevice(device, 1<<18)
	before := b.readFile(base) + b.readFile(file("below"))
	b.run("merge", device.Device).fails(t, 1, file("below"))
	if b.readFile(device.Device) != want {
		t.Error("the device has other data")
	}
	if err := os.WriteFile(file("table"), []byte(b.list(device.Device)[0].Table), 0o600); err != nil {
		t.Fatal(err)
	}
	b.del(device.Device)
	b.run("cow", "merge", file("top")).fails(t, 1, file("below"))
	b.run("cow", "merge", "--base", base, file("top")).fails(t, 1, file("below"))
	b.run("cow", "merge", "--base", file("below"), file("top")).fails(t, 1, file("below"))
	b.run("cow", "merge", file("below")).fails(t, 1, file("below"))
	b.run("add", base, "--cow", file("top")).fails(t, 1, file("below"))
	if b.readFile(base)+b.readFile(file("below")) != before {
		t.Error("the base or its store has changed")
	}
	device = b.add("--table", file("table"))
	if b.readFile(device.Device) != want {
		t.Error("the device has other data after it was attached again")
	}
	b.del(device.Device)
}
