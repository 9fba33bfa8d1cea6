package daemon

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/loop"
)

// The answer for a device does not wait for another device that hangs.
func TestUnusedAnswersForEach(t *testing.T) {
	hangs, used, unused, broken := loop.TaggedID{ID: 1, Tag: 5}, loop.TaggedID{ID: 2, Tag: 6}, loop.TaggedID{ID: 3, Tag: 7}, loop.TaggedID{ID: 4}
	var task unusedTask
	for _, d := range []loop.TaggedID{hangs, used, unused, broken} {
		task.Devices = append(task.Devices, unusedDevice(d))
	}
	hung, release := context.WithTimeout(t.Context(), 20*time.Second)
	defer release()
	answered := 0
	r, w := io.Pipe()
	stopped := make(chan error, 1)
	go func() { // received below
		stopped <- errors.Join(task.stop(w, func(d loop.TaggedID) error {
			switch d {
			case hangs:
				<-hung.Done()
			case used:
				return loop.ErrInUse
			case broken:
				return unix.EIO
			}
			return nil
		}), w.Close())
	}()
	results := map[loop.TaggedID]error{}
	first := readUnused(r, func(d loop.TaggedID, err error) {
		results[d] = err
		if answered++; answered == len(task.Devices)-1 {
			release()
		}
	})
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	if errors.Is(hung.Err(), context.DeadlineExceeded) {
		t.Error("the other answers wait for the device that hangs")
	}
	if first == nil || len(results) != 4 || !errors.Is(results[used], loop.ErrInUse) || results[unused] != nil || results[hangs] != nil || results[broken] == nil {
		t.Errorf("results %v, error %v", results, first)
	}
}
