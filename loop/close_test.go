package loop

import (
	"testing"

	"github.com/ublk-loop/ublk-loop/loop/internal/backing"
	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// closedStorage notes which devices exist when it is closed.
type closedStorage struct {
	storage
	driver *ublktest.Fake
	seen   []uint32
	closed bool
}

func (s *closedStorage) Close() error {
	s.closed, s.seen = true, s.driver.IDs()
	return s.storage.Close()
}

// Who sees that a device is gone can unmount the file system of its file: the file is closed by then.
func TestRemoveClosesTheFileFirst(t *testing.T) {
	needState(t)
	fake := &ublktest.Fake{}
	id := uint32(unusedID)
	dev, err := ublk.NewControl(fake).Add(ublk.Options{ID: &id, Mode: ublk.BufferCopy, Tag: newTag()})
	if err != nil {
		t.Fatal(err)
	}
	s := &closedStorage{storage: &backing.Backing{FD: -1}, driver: fake}
	if err := (&Device{dev: dev, storage: s}).Close(); err != nil {
		t.Error(err)
	}
	if !s.closed || len(s.seen) != 1 {
		t.Errorf("closed %v, when the devices were %d", s.closed, s.seen)
	}
	if ids := fake.IDs(); len(ids) != 0 {
		t.Errorf("devices %d are left", ids)
	}
}
