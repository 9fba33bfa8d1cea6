package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/internal/confine"
	"github.com/ublk-loop/ublk-loop/internal/report"
)

// replaceProcess makes this process a server: it executes this program again
// on a confined thread. It returns only if that fails.
func replaceProcess(j *job) error {
	var err error
	if j.notify, err = openNotify(os.Getenv("NOTIFY_SOCKET")); err != nil {
		return err
	}
	control, writer, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("make pipe: %w", err)
	}
	defer func() { _ = control.Close() }()
	defer func() { _ = writer.Close() }()
	if err := confine.CloseInherited(); err != nil {
		return err
	}
	oom := confine.ProtectFromOOM(os.Getpid())
	j.FileFD, j.LogFD, j.NotifyFD, j.KeyFD = inherit(j.file), inherit(j.log), inherit(j.notify), inherit(j.key)
	return confine.OnThread(func(warnings []string) error {
		j.Warnings = append(append(j.Warnings, warnings...), oom...)
		// A pipe takes it all: a path and little more.
		if err := j.send(writer); err != nil {
			return err
		}
		err := unix.Exec(selfPath, j.serverArgs(inherit(control)), serverEnv(os.Environ()))
		return fmt.Errorf("execute %s: %w", selfPath, err)
	})
}

// inherit lets a descriptor stay open across exec, and returns its number, -1
// for none.
func inherit(f *os.File) int {
	if f == nil {
		return -1
	}
	fd := int(f.Fd())
	_, _ = unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0)
	return fd
}

// user is the client of a server in the foreground: whoever reads its output,
// and the service manager.
type user struct {
	out    io.Writer
	errOut io.Writer
	notify *os.File // nil for none
	json   bool
}

var _ requester = (*user)(nil)

// Ready implements requester. A server must not open its own device, so another
// process looks for partitions.
func (u *user) Ready(status client.Device) error {
	if status.PartScan {
		if err := scanInChild(status.Device); err != nil {
			return err
		}
	}
	if err := report.Device(u.out, &status, u.json); err != nil {
		return err
	}
	return notify(u.notify, fmt.Sprintf("READY=1\nSTATUS=%s is %s", status.Device, report.OneLine(status.File)))
}

// Failed implements requester.
func (u *user) Failed(a answer) { report.Print(u.errOut, a.Error, a.Hint) }

// Ending implements requester.
func (u *user) Ending() { _ = notify(u.notify, "STOPPING=1") }

// scanCommand is the name of the command that looks for partitions. It is for
// servers alone.
const scanCommand = "scan-of-add"

// scanInChild looks for the partitions of a device in another process, and
// waits for it.
func scanInChild(device string) error {
	process, err := os.StartProcess(selfPath, []string{"ublk-loop", scanCommand, device}, &os.ProcAttr{
		Env: serverEnv(os.Environ()), Files: []*os.File{nil, nil, os.Stderr},
	})
	if err != nil {
		return fmt.Errorf("scan partitions of %s: %w", device, err)
	}
	state, err := process.Wait()
	if err != nil {
		return fmt.Errorf("scan partitions of %s: %w", device, err)
	}
	if !state.Success() {
		return fmt.Errorf("scan partitions of %s: %s", device, state)
	}
	return nil
}

// scanMain is the process that looks for partitions.
func scanMain(args []string) int {
	if len(args) != 1 {
		report.Print(os.Stderr, scanCommand+": only add starts it", "")
		return report.ExitUsage
	}
	if err := openUsable(context.Background(), &client.Device{Device: args[0], PartScan: true}); err != nil {
		report.Print(os.Stderr, err.Error(), report.Hint(err))
		return report.ExitFailed
	}
	return report.ExitDone
}
