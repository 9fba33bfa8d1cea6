package daemon

import (
	"errors"
	"fmt"

	"github.com/ublk-loop/ublk-loop/internal/report"
	"github.com/ublk-loop/ublk-loop/loop"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// unusedTask names the devices that the role unused stops if they are not in use.
type unusedTask struct {
	Devices []unusedDevice `json:"devices"`
}

// unusedDevice is loop.TaggedID as JSON.
type unusedDevice struct {
	ID  uint32 `json:"id"`
	Tag uint64 `json:"tag"`
}

// stopUnusedInChild calls loop.StopUnused in another process, because a server must not
// open its own devices.
func stopUnusedInChild(devices ...loop.TaggedID) error {
	var task unusedTask
	for _, d := range devices {
		task.Devices = append(task.Devices, unusedDevice(d))
	}
	l := &launch{role: unusedRole, task: func([]string) any { return task }}
	state, err := l.call()
	if err == nil && state.ExitCode() == exitInUse {
		return loop.ErrInUse
	}
	if err := callFailed(state, err); err != nil {
		return fmt.Errorf("stop unused devices: %w", err)
	}
	return nil
}

// runUnused is the main function of the process that stops unused devices.
func (p *Program) runUnused(args []string) int {
	var task unusedTask
	if _, err := receive(unusedRole, args, &task); err != nil {
		report.Print(p.Err, err.Error(), "")
		return report.ExitUsage
	}
	ctl, err := ublk.OpenControl()
	if err != nil {
		report.Print(p.Err, err.Error(), "")
		return report.ExitFailed
	}
	defer func() { _ = ctl.Close() }()
	status := report.ExitDone
	for _, d := range task.Devices {
		switch err := loop.StopUnused(ctl, loop.TaggedID(d)); {
		case errors.Is(err, loop.ErrInUse):
			status = exitInUse
		case err != nil:
			report.Print(p.Err, err.Error(), "")
			return report.ExitFailed
		}
	}
	return status
}
