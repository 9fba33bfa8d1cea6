package daemon

import (
	"fmt"
	"io"
	"os"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/internal/confine"
	"github.com/ublk-loop/ublk-loop/internal/report"
)

// BecomeSingle makes this process a server of one device, in the foreground. It returns
// only if that fails.
func BecomeSingle(j *Job) error {
	manager, err := openNotify(j.NotifySocket)
	if err != nil {
		return err
	}
	if err := confine.CloseInherited(); err != nil {
		return err
	}
	j.Warnings = append(j.Warnings, confine.ProtectFromOOM(os.Getpid())...)
	return j.launch(descriptors{notifyFile: manager}).become()
}

// user is the requester of a server in the foreground: the reader of its output, and the
// service manager.
type user struct {
	out    io.Writer
	errOut io.Writer
	notify *os.File // nil for none
	json   bool
}

var _ requester = (*user)(nil)

// Ready implements requester. A server must not open its own device, so another
// process looks for partitions.
func (u *user) Ready(device client.Device, _ int) error {
	if device.PartScan {
		if err := scanInChild(device.Device, device.MajMin); err != nil {
			return err
		}
	}
	if err := report.Device(u.out, &device, u.json); err != nil {
		return err
	}
	return notify(u.notify, fmt.Sprintf("READY=1\nSTATUS=%s is %s", device.Device, report.OneLine(device.File)))
}

// Failed implements requester.
func (u *user) Failed(a answer) { report.Print(u.errOut, a.Error, a.Hint) }

// Ending implements requester.
func (u *user) Ending() { _ = notify(u.notify, "STOPPING=1") }
