package e2e

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/udev"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// partitioned returns an image with two partitions.
func (b *bed) partitioned() string {
	b.Helper()
	file := b.image(16 << 20)
	cmd := exec.Command("sfdisk", "-q", file)
	cmd.Stdin = strings.NewReader("label: gpt\nsize=4MiB\nsize=4MiB\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("sfdisk: %v\n%s", err, out)
	}
	return file
}

// Partitions can be opened when add returns, and stay.
func TestKernelPartScan(t *testing.T) {
	b := kernelBed(t, ublktest.EveryKernel)
	file := b.partitioned()
	for range 5 {
		events := b.uevents()
		s := b.add("--partscan", file)
		for _, p := range []string{"p1", "p2"} {
			f, err := os.Open(s.Device + p)
			if err != nil {
				t.Error(err)
				continue
			}
			_ = f.Close()
		}
		if !s.PartScan {
			t.Error("list does not say it")
		}
		b.drain(events)
		time.Sleep(200 * time.Millisecond) // for events that must not come
		if late := b.drain(events); len(late) > 0 {
			t.Errorf("after add: %q", late)
		}
		b.run("del", s.Device+"p1").fails(t, 1, "is a partition of "+s.Device, "hint: name the disk: "+s.Device)
		b.del(file)
	}
}

// Without --partscan there are no partitions, and the kernel has not read the disk.
func TestKernelNoPartScan(t *testing.T) {
	b := kernelBed(t, ublktest.EveryKernel)
	file := b.partitioned()
	s := b.add(file)
	time.Sleep(100 * time.Millisecond) // some kernels would scan a moment later
	if found := udev.Partitions(filepath.Base(s.Device)); len(found) > 0 {
		t.Errorf("without --partscan there are %q", found)
	}
	if reads := strings.Fields(b.attr(s, "stat"))[0]; reads != "0" {
		t.Errorf("%s reads of a device that nobody used", reads)
	}
	b.del(file)
}

// uevents returns a socket that receives an event for each disk and partition that the
// kernel makes or removes.
func (b *bed) uevents() int {
	b.Helper()
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1}); err != nil {
		b.Fatal(err)
	}
	return fd
}

// drain returns the disks' events so far.
func (b *bed) drain(socket int) []string {
	b.Helper()
	var events []string
	buf := make([]byte, 8192)
	for {
		n, err := unix.Read(socket, buf)
		if err != nil {
			return events // EAGAIN: no more events
		}
		event, _, _ := bytes.Cut(buf[:n], []byte{0})
		if bytes.Contains(event, []byte("/block/ublkb")) {
			events = append(events, string(event))
		}
	}
}

// A scan waits until no other process claims the device. A process with an open partition
// shows that no scan is needed.
func TestKernelScanBusy(t *testing.T) {
	b := kernelBed(t, ublktest.EveryKernel)
	s := b.add("--partscan", b.image(1<<20)) // without partitions
	defer b.del(s.Device)
	claim, err := unix.Open(s.Device, unix.O_RDONLY|unix.O_EXCL|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	release := time.AfterFunc(300*time.Millisecond, func() { _ = unix.Close(claim) })
	defer release.Stop()
	if err := scan(s.Device); err != nil {
		t.Error(err)
	}
	if took := time.Since(start); took < 300*time.Millisecond {
		t.Errorf("it took %v", took)
	}
	parts := b.add("-P", b.partitioned())
	defer b.del(parts.Device)
	p, err := os.Open(parts.Device + "p1")
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := scan(parts.Device); err != nil {
		t.Errorf("with a partition open: %v", err)
	}
}

// A partition of a disk can be attached, and also a partition of another device of
// ublk-loop.
func TestKernelAttachPartition(t *testing.T) {
	b := kernelBed(t, ublktest.EveryKernel)
	file := b.partitioned()
	below := b.add("-P", file)
	above := b.add(below.Device + "p2")
	if above.Size != 4<<20 || above.File != below.Device+"p2" {
		t.Errorf("device is %+v", above)
	}
	b.run("del", below.Device).fails(t, 1, below.Device, "in use", "hint: --force")
	b.roundTripPartition(above.Device, file)
	b.del(below.Device + "p2") // removes the device whose file is the partition, not the device below
	if list := b.list(); len(list) != 1 || list[0].ID != below.ID {
		t.Errorf("left are %+v", list)
	}
	b.del(file)
}

// roundTripPartition writes to the device of the second partition, and reads from the
// image.
func (b *bed) roundTripPartition(device, file string) {
	b.Helper()
	data := bytes.Repeat([]byte("partition "), 512)
	f, err := os.OpenFile(device, os.O_RDWR|unix.O_SYNC, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(data); err != nil {
		b.Fatal(err)
	}
	content, err := os.ReadFile(file)
	if err != nil {
		b.Fatal(err)
	}
	if bytes.Index(content, data) != 5<<20 {
		b.Errorf("what was written is at %d of the image", bytes.Index(content, data))
	}
}

// scan makes the kernel look for the partitions of a device.
func scan(path string) error {
	disk, err := udev.OpenScanned(context.Background(), path, "")
	if err != nil {
		return err
	}
	return disk.Close()
}
