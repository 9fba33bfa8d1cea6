package ublk_test

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// A device ends when its queue fails, and Err returns why.
func TestQueueErrorEndsTheDevice(t *testing.T) {
	for _, depth := range []int{1, 4} {
		d := ublktest.NewDisk(t, depth, ublk.HandlerFunc(func(req *ublk.Request) { req.Complete(nil) }))
		for range 3 {
			if r := d.Do(ublktest.Request{Op: ublk.OpFlush}); r.Result != 0 {
				t.Fatalf("result %d", r.Result)
			}
		}
		if err := d.Break(ublktest.Request{Op: ublk.OpFlush}); !errors.Is(err, unix.EOPNOTSUPP) {
			t.Errorf("the device ended with %v, want EOPNOTSUPP", err)
		}
	}
}
