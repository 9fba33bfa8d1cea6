package ublk_test

import (
	"context"
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// Serve returns nil when another process stops the device, and leaves nothing behind.
func TestKernelServeIsStopped(t *testing.T) {
	ctl := ublktest.Kernel(t)
	stopped := make(chan error, 1)
	err := ublk.Serve(t.Context(), make(ramDisk, 1<<20), ublk.ServeOptions{
		Params: ublk.Params{Size: 1 << 20},
		Ready:  func(dev *ublk.Device) { stopped <- ctl.Stop(dev.Info().ID) },
	})
	if err := errors.Join(err, <-stopped); err != nil {
		t.Error(err)
	}
}

// Serve returns the error of a step that fails, and leaves no device behind.
func TestKernelServeFails(t *testing.T) {
	ublktest.Kernel(t)
	fails := targetFunc(func(*ublk.Queue) (ublk.Handler, error) { return nil, unix.EXFULL })
	for name, tt := range map[string]struct {
		target ublk.Target
		opts   ublk.ServeOptions
		want   error
	}{
		"no size":     {make(ramDisk, 1<<20), ublk.ServeOptions{}, unix.EINVAL},
		"no handler":  {fails, ublk.ServeOptions{Params: ublk.Params{Size: 1 << 20}}, unix.EXFULL},
		"bad options": {make(ramDisk, 1<<20), ublk.ServeOptions{Options: ublk.Options{Depth: -1}, Params: ublk.Params{Size: 1 << 20}}, unix.EINVAL},
	} {
		t.Run(name, func(t *testing.T) {
			tt.opts.Ready = func(*ublk.Device) { t.Error("ready") }
			if err := ublk.Serve(context.Background(), tt.target, tt.opts); !errors.Is(err, tt.want) {
				t.Errorf("error %v, want %v", err, tt.want)
			}
		})
	}
}

// Serve returns the error of a handler that fails.
func TestKernelServeEndsWithTheDevice(t *testing.T) {
	ublktest.Kernel(t)
	err := ublk.Serve(t.Context(), ublk.HandlerFunc(func(req *ublk.Request) {
		req.Complete(nil)
		req.Complete(nil)
	}), ublk.ServeOptions{Options: ublk.Options{NoPartScan: true}, Params: ublk.Params{Size: 1 << 20}, Ready: func(dev *ublk.Device) {
		_, _ = openDirect(t, dev.BlockPath()).ReadAt(alignedBytes(t, 4096), 0)
	}})
	if !errors.Is(err, ublk.ErrCompleted) {
		t.Errorf("error %v, want ErrCompleted", err)
	}
}
