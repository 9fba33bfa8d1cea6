package loop

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/loop/internal/statefile"
	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/uapi"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// unusedID is an id that no device of this machine has, because it is the maximum.
const unusedID = 1<<20 - 1

// needState skips a test if the state directory belongs to another user.
func needState(t *testing.T) {
	t.Helper()
	if err := unix.Access(statefile.Dir, unix.W_OK); errors.Is(err, unix.EACCES) {
		ublktest.MachineLacks(t, "root: "+statefile.Dir+" belongs to another user")
	}
}

// fakeDevice returns a driver with one device with a tag.
func fakeDevice(t *testing.T, tag uint64) (*ublktest.Fake, *ublk.Control) {
	t.Helper()
	fake := &ublktest.Fake{Offers: uapi.UBLK_F_CMD_IOCTL_ENCODE}
	ctl := ublk.NewControl(fake)
	id := uint32(unusedID)
	if _, err := ctl.Add(ublk.Options{ID: &id, Mode: ublk.BufferCopy, Tag: tag}); err != nil {
		t.Fatal(err)
	}
	return fake, ctl
}

// hangingStop is a driver that waits for a request before it stops a device.
type hangingStop struct {
	*ublktest.Fake
	op    uint32
	until chan struct{}
}

func (h *hangingStop) Do(c ublk.Command) error {
	if c.Op == h.op {
		<-h.until
	}
	return h.Fake.Do(c)
}

// A device that is not in use, but whose server keeps a request, is not waited for without limit.
func TestStopOfSilentDevice(t *testing.T) {
	for op, fail := range map[uint32]map[uint32]error{
		uapi.UBLK_U_CMD_TRY_STOP_DEV: nil,
		uapi.UBLK_U_CMD_STOP_DEV:     {uapi.UBLK_U_CMD_TRY_STOP_DEV: unix.EOPNOTSUPP}, // before Linux 7.0
	} {
		synctest.Test(t, func(t *testing.T) {
			driver := &hangingStop{&ublktest.Fake{Offers: uapi.UBLK_F_CMD_IOCTL_ENCODE, Fail: fail}, op, make(chan struct{})}
			defer close(driver.until)
			ctl := ublk.NewControl(driver)
			id := uint32(unusedID)
			if _, err := ctl.Add(ublk.Options{ID: &id, Mode: ublk.BufferCopy}); err != nil {
				t.Fatal(err)
			}
			if err := tryStop(ctl, id); !errors.Is(err, unix.ETIMEDOUT) || !strings.Contains(err.Error(), "its requests are not answered") {
				t.Errorf("command %#x: error %v", op, err)
			}
		})
	}
}

// The removal of a device's rest does not remove the next device with its id, however
// similar it is.
func TestDeleteSameLeavesTheNext(t *testing.T) {
	tag := newTag()
	for _, other := range []uint64{newTag(), tag + 1, tag ^ 1<<63, 0} {
		fake, ctl := fakeDevice(t, other)
		if err := deleteSame(ctl, ublk.Info{ID: unusedID, Tag: tag}); err != nil {
			t.Errorf("error %v", err)
		}
		if ids := fake.IDs(); !slices.Equal(ids, []uint32{unusedID}) {
			t.Errorf("after the removal of another device with its id, with tag %#x for %#x: devices %v", other, tag, ids)
		}
	}
}

func TestDeleteSame(t *testing.T) {
	needState(t)
	for _, tt := range []struct {
		name string
		fail map[uint32]error
		want error
		left int
	}{
		{"a device", nil, nil, 0},
		{"one that goes meanwhile", map[uint32]error{uapi.UBLK_U_CMD_DEL_DEV: unix.ENODEV}, nil, 1},
		{"one that is open somewhere", map[uint32]error{uapi.UBLK_U_CMD_DEL_DEV: unix.EINTR}, nil, 1},
		{"one that can't be deleted", map[uint32]error{uapi.UBLK_U_CMD_DEL_DEV: unix.EPERM}, unix.EPERM, 1},
		{"one whose deletion hangs", map[uint32]error{uapi.UBLK_U_CMD_DEL_DEV: ublk.ErrControlHung}, ublk.ErrControlHung, 1},
		{"one that is gone", map[uint32]error{uapi.UBLK_U_CMD_GET_DEV_INFO: unix.ENODEV}, nil, 1},
		{"one of which nothing is told", map[uint32]error{uapi.UBLK_U_CMD_GET_DEV_INFO: unix.EPERM}, unix.EPERM, 1},
	} {
		tag := newTag()
		fake, ctl := fakeDevice(t, tag)
		fake.Fail = tt.fail
		err := deleteSame(ctl, ublk.Info{ID: unusedID, Tag: tag})
		if !errors.Is(err, tt.want) || tt.want == nil && err != nil {
			t.Errorf("%s: error %v, want %v", tt.name, err, tt.want)
		}
		if n := len(fake.IDs()); n != tt.left {
			t.Errorf("%s: %d devices are left, want %d", tt.name, n, tt.left)
		}
	}
}

// A device that was found, and that is gone, may have left its id to a device that has no disk
// yet. The tag tells them apart.
func TestFoundDeviceIsNotTheNext(t *testing.T) {
	needState(t)
	for _, sequence := range []uint64{0, 5} {
		tag := newTag()
		fake, ctl := fakeDevice(t, newTag())
		if err := Detach(ctl, unusedID, DetachOptions{Force: true, DiskSequence: &sequence, Tag: tag}); err != nil {
			t.Errorf("del: error %v", err)
		}
		if err := Resize(ctl, unusedID, ResizeOptions{DiskSequence: &sequence, Tag: tag}); !errors.Is(err, errReplaced) {
			t.Errorf("resize: error %v, want %v", err, errReplaced)
		}
		if _, err := recoverable(ctl, unusedID, &RecoverOptions{DiskSequence: &sequence, Tag: tag}); !errors.Is(err, errReplaced) {
			t.Errorf("recover: error %v, want %v", err, errReplaced)
		}
		for _, c := range fake.Commands() {
			if c.Op == uapi.UBLK_U_CMD_STOP_DEV || c.Op == uapi.UBLK_U_CMD_DEL_DEV {
				t.Errorf("the next device, found with sequence %d, gets command %#x", sequence, c.Op)
			}
		}
	}
}

// A device that was found before its start, or after its stop, is still the same one.
func TestFoundDeviceWithoutDisk(t *testing.T) {
	needState(t)
	for _, sequence := range []uint64{0, 5} {
		tag := newTag()
		fake, ctl := fakeDevice(t, tag)
		if err := Detach(ctl, unusedID, DetachOptions{Force: true, DiskSequence: &sequence, Tag: tag}); err != nil || len(fake.IDs()) > 0 {
			t.Errorf("del of a device with sequence %d: error %v, devices %v", sequence, err, fake.IDs())
		}
	}
}

// If the driver does not tell which device has the id, a server leaves the device, its state and
// the error to del.
func TestRemoveRestOfUnknown(t *testing.T) {
	needState(t)
	fake := &ublktest.Fake{Offers: uapi.UBLK_F_CMD_IOCTL_ENCODE}
	ctl := ublk.NewControl(fake)
	id := uint32(unusedID)
	dev, err := ctl.Add(ublk.Options{ID: &id, Mode: ublk.BufferCopy, Tag: newTag()})
	if err != nil {
		t.Fatal(err)
	}
	record := statefile.Record{Status: &statefile.Status{ID: id}}
	if err := record.Write(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = statefile.Remove(id) })
	for _, told := range []error{unix.EPERM, unix.EINTR, ublk.ErrControlHung} {
		fake.Fail = map[uint32]error{uapi.UBLK_U_CMD_GET_DEV_INFO: told}
		if err := (&Device{dev: dev}).removeRest(); !errors.Is(err, told) {
			t.Errorf("error %v, want %v", err, told)
		}
		if kept, err := statefile.Read(id); err != nil || kept == nil || len(fake.IDs()) != 1 {
			t.Errorf("after %v: state %v, error %v, devices %v", told, kept, err, fake.IDs())
		}
	}
}

// The same is true for a server that removes its own device.
func TestNowIsOfTheDevice(t *testing.T) {
	fake := &ublktest.Fake{Offers: uapi.UBLK_F_CMD_IOCTL_ENCODE}
	own := ublk.NewControl(fake)
	id := uint32(unusedID)
	dev, err := own.Add(ublk.Options{ID: &id, Mode: ublk.BufferCopy, Tag: newTag()})
	if err != nil {
		t.Fatal(err)
	}
	d := &Device{dev: dev}
	if _, err := d.now(); err != nil {
		t.Errorf("error %v", err)
	}
	if err := own.Delete(id); err != nil {
		t.Fatal(err)
	}
	if _, err := d.now(); !errors.Is(err, unix.ENODEV) {
		t.Errorf("of a device that is gone: error %v, want ENODEV", err)
	}
	if _, err := own.Add(ublk.Options{ID: &id, Mode: ublk.BufferCopy, Tag: newTag()}); err != nil {
		t.Fatal(err)
	}
	if _, err := d.now(); !errors.Is(err, unix.ENODEV) {
		t.Errorf("of another device with the id: error %v, want ENODEV", err)
	}
	if err := d.removeRest(); err != nil || len(fake.IDs()) != 1 {
		t.Errorf("removal of what is left: error %v, devices %v; want the other device", err, fake.IDs())
	}
}
