package e2e

import (
	"errors"
	"io"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// Without recovery, requests fail at once and the disk goes. With recovery, they wait
// until del fails them.
func TestKernelCrashedServer(t *testing.T) {
	b := kernelBed(t, ublktest.EveryKernel)
	t.Run("fail", func(t *testing.T) { b.in(t).crash("fail", "dead") })
	for _, onCrash := range ublktest.Sample(b, 0, "requeue", "reissue") {
		t.Run(onCrash, func(t *testing.T) { b.in(t).crash(onCrash, "quiesced") })
	}
}

func (b *bed) crash(onCrash, state string) {
	b.Helper()
	s := b.add("--on-crash", onCrash, b.image(4<<20))
	f, err := os.OpenFile(s.Device, os.O_RDWR|unix.O_DIRECT, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	b.killServer(s)
	ended, page := make(chan error, 1), alignedPage(b)
	go func() { // until the device goes; received below
		_, err := f.ReadAt(page, 0)
		ended <- err
	}()
	waits := onCrash != "fail"
	if waits {
		select {
		case err := <-ended:
			b.Fatalf("a request without a server ends with %v", err)
		case <-time.After(2 * time.Second): // a request that goes on waiting causes no event
		}
	} else {
		err = ublktest.Receive(b, waitLimit, "the end of a request without a server", ended)
	}
	if now := b.list(s.Device)[0]; now.State != state {
		b.Errorf("the device is %+v", now)
	}
	if waits {
		b.run("del", s.Device).fails(b, 1, s.Device, "in use", "hint: --force")
		start := time.Now()
		b.ok("del", "--force", s.Device)
		err = <-ended
		b.Logf("del --force took %v", time.Since(start))
	}
	// A disk that is already gone has no sectors, so that a read returns the end of the
	// file.
	gone := !waits && errors.Is(err, io.EOF)
	if !gone && !errors.Is(err, unix.EIO) && !errors.Is(err, unix.ENXIO) && !errors.Is(err, unix.ENODEV) {
		b.Errorf("the request ends with %v", err)
	}
	f.Close()
	b.del(s.Device)
	// The same for a device that is not in use.
	s = b.add("--on-crash", onCrash, s.File)
	b.killServer(s)
	b.del(s.Device)
	if list := b.list(); len(list) > 0 {
		b.Errorf("left are %+v", list)
	}
}
