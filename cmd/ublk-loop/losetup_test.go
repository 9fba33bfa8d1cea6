package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/internal/hint"
	"github.com/ublk-loop/ublk-loop/internal/report"
	"github.com/ublk-loop/ublk-loop/loop"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// fakeLifetimes is a server that clears and keeps devices.
type fakeLifetimes struct {
	err           error
	cleared, kept []uint32
}

func (s *fakeLifetimes) Clear(_ context.Context, d *client.Device) error {
	s.cleared = append(s.cleared, d.ID)
	return s.err
}

func (s *fakeLifetimes) Keep(_ context.Context, d *client.Device) error {
	s.kept = append(s.kept, d.ID)
	return s.err
}

// hungDriver has devices whose server hangs.
type hungDriver struct {
	driver
	goOn chan struct{}
}

func (d *hungDriver) Detach(uint32, loop.DetachOptions) error { return d.wait() }

func (d *hungDriver) Resize(uint32, loop.ResizeOptions) error { return d.wait() }

func (d *hungDriver) wait() error {
	<-d.goOn
	return nil
}

func (d *hungDriver) Close() error { return nil }

// An interrupt ends losetup also if a server hangs.
func TestLosetupInterrupted(t *testing.T) {
	for name, change := range map[string]func(*loops, context.Context) error{
		"-d": func(l *loops, ctx context.Context) error { return l.Detach(ctx, &client.Device{}) },
		"-c": func(l *loops, ctx context.Context) error { return l.Resize(ctx, &client.Device{}) },
	} {
		synctest.Test(t, func(t *testing.T) {
			hung := &hungDriver{goOn: make(chan struct{})}
			l := &loops{&app{open: func() (driver, error) { return hung, nil }}}
			ctx, interrupt := context.WithCancelCause(t.Context())
			done := make(chan error, 1)
			go func() { done <- change(l, ctx) }() // received below
			synctest.Wait()
			interrupt(report.ErrInterrupted)
			select {
			case err := <-done:
				if !errors.Is(err, report.ErrInterrupted) {
					t.Errorf("losetup %s: error %v", name, err)
				}
			case <-time.After(time.Minute):
				t.Errorf("losetup %s goes on", name)
			}
			close(hung.goOn)
		})
	}
}

func TestLosetup(t *testing.T) {
	b := newBench()
	server := &fakeLifetimes{}
	b.app.server = server
	path := filepath.Join(t.TempDir(), "img")
	if err := os.WriteFile(path, make([]byte, 512), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, id := range []uint32{0, 1, 3} {
		b.drv.devices = append(b.drv.devices, client.Device{ID: id, Device: fmt.Sprintf("/dev/ublkb%d", id), DiskSequence: uint64(id + 7), Tag: uint64(id + 10), File: "/f"})
	}
	b.check(t, []string{"losetup", "-f"}, 0, "/dev/ublkb2\n", "")
	b.check(t, []string{"losetup", "-n", "-O", "NAME"}, 0, "/dev/ublkb0\n/dev/ublkb1\n/dev/ublkb3\n", "")
	b.srv.status = client.Device{Device: "/dev/ublkb2"}
	b.check(t, []string{"losetup", "-rf", "--show", path}, 0, "/dev/ublkb2\n", "")
	if cfg := b.job.Config; b.job.Name != path || !cfg.ReadOnly || cfg.DirectIO != loop.SwitchAuto || !b.srv.stayed || b.srv.ended {
		t.Errorf("attached by %+v, stays %v", b.job, b.srv.stayed)
	}
	b.srv.err = fmt.Errorf("open it: %w", unix.ENOSPC)
	b.check(t, []string{"losetup", "-f", path}, 1, "", "losetup: "+path+": failed to set up loop device: No space left on device\n")
	if !b.srv.ended {
		t.Error("what failed is not removed")
	}
	b.check(t, []string{"losetup", "-c", "/dev/ublkb3"}, 0, "", "")
	b.check(t, []string{"losetup", "-d", "/dev/ublkb0"}, 0, "", "")
	if len(b.drv.resized) != 1 || b.drv.resized[0].id != 3 || !slices.Equal(b.drv.asked, []askedFor{{10, 13}, {7, 10}}) || len(b.drv.ids()) != 2 {
		t.Errorf("resized %v, left are %v", b.drv.resized, b.drv.ids())
	}
	b.drv.refuse = map[uint32]error{1: loop.ErrInUse, 3: unix.EIO}
	b.check(t, []string{"losetup", "-d", "ublkb1"}, 0, "", "")
	b.check(t, []string{"losetup", "-d", "ublkb3"}, 1, "", "losetup: /dev/ublkb3: detach failed: Input/output error\n")
	b.drv.refuse[3] = hint.Add(ublk.ErrNotSupported, "wait")
	b.check(t, []string{"losetup", "-c", "ublkb3"}, 1, "", "losetup: /dev/ublkb3: set capacity failed: Operation not supported\nhint: wait\n")
	server.err = client.ErrNoServer
	busy := "losetup: /dev/ublkb1: detach failed: Device or resource busy\nhint: unmount it first; only ublk-loop serve removes devices when their last user has gone\n"
	b.check(t, []string{"losetup", "-d", "ublkb1"}, 1, "", busy)
	if len(server.cleared) != 2 || server.cleared[0] != 1 {
		t.Errorf("cleared %v", server.cleared)
	}
	b.drv = nil
	b.check(t, []string{"losetup"}, 0, "", "")
	b.check(t, []string{"losetup", "--nonsense"}, 1, "", "losetup: unrecognized option '--nonsense'\nTry 'losetup --help' for more information.\n")
}
