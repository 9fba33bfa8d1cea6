package e2e

import (
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
)

// directReader opens a device for reads of size bytes, with a buffer for them.
func (b *bed) directReader(s client.Device, size int) (read func() error, end func()) {
	b.Helper()
	fd, err := unix.Open(s.Device, unix.O_RDONLY|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if err != nil {
		b.Fatal(err)
	}
	buf, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_POPULATE)
	if err != nil {
		b.Fatal(err)
	}
	read = func() error {
		_, err := unix.Pread(fd, buf, 0)
		return err
	}
	return read, func() {
		_ = unix.Munmap(buf)
		_ = unix.Close(fd)
	}
}

// busy reads 1 MiB at a time from a device, with 16 readers, until the returned function
// is called.
func (b *bed) busy(s client.Device) (stop func()) {
	b.Helper()
	const readers = 16
	var stopped atomic.Bool
	var running sync.WaitGroup
	for range readers {
		read, end := b.directReader(s, 1<<20)
		running.Go(func() {
			defer end()
			for !stopped.Load() {
				if err := read(); err != nil {
					b.Errorf("read: %v", err)
					return
				}
			}
		})
	}
	return func() {
		stopped.Store(true)
		running.Wait()
	}
}

// compare reads 4 KiB from two devices by turns, and returns the sorted durations of each.
func (b *bed) compare(one, other client.Device) (times [2][]time.Duration) {
	b.Helper()
	const rounds = 300
	var reads [2]func() error
	for i, s := range []client.Device{one, other} {
		read, end := b.directReader(s, 4096)
		defer end()
		reads[i] = read
	}
	for range rounds {
		for i, read := range reads {
			start := time.Now()
			if err := read(); err != nil {
				b.Fatal(err)
			}
			times[i] = append(times[i], time.Since(start))
		}
	}
	for i := range times {
		slices.Sort(times[i])
	}
	return times
}

// A device waits for a neighbour whose data is copied no longer than a device of another
// thread does. The last two of four devices would share a thread.
func TestKernelNeighbour(t *testing.T) {
	b := kernelBed(t)
	m := b.serve()
	key, _ := b.keyFile(64)
	for name, flags := range map[string][]string{
		"buffered":  {"--direct-io=off"},
		"copy mode": {"--direct-io=off", "--zero-copy=off"},
		"encrypted": {"--direct-io=off", "--transfer=aes-xts-plain64", "--key-file=" + key},
	} {
		t.Run(name, func(t *testing.T) { b.in(t).neighbours(flags) })
	}
	m.stop()
}

func (b *bed) neighbours(flags []string) {
	b.Helper()
	var devices []client.Device
	for range 4 {
		devices = append(devices, b.add(append(flags, b.image(4<<20))...))
	}
	stop := b.busy(devices[2])
	times := b.compare(devices[0], devices[3])
	stop()
	own, neighbour := times[0], times[1]
	median := len(own) / 2
	b.Logf("p50 %v and %v, p99 %v and %v", own[median], neighbour[median], own[len(own)*99/100], neighbour[len(own)*99/100])
	if neighbour[median] > 3*own[median] {
		b.Error("the neighbour of a busy device is slow")
	}
	for _, d := range devices {
		b.del(d.Device)
	}
}
