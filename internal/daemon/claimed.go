package daemon

import (
	"fmt"

	"github.com/ublk-loop/ublk-loop/internal/report"
	"github.com/ublk-loop/ublk-loop/loop"
)

// claimedTask names the device that the role claimed looks at.
type claimedTask struct {
	Device string `json:"device"`
}

// exitClaimed is the exit status of the role claimed for a device that is mounted, or
// claimed in another way.
const exitClaimed = 5

// isClaimedInChild reports whether a device is mounted, or claimed in the same way. A
// server must not open its own device, so another process looks.
func isClaimedInChild(device string) (bool, error) {
	l := &launch{role: claimedRole, task: func([]string) any { return claimedTask{device} }}
	state, err := l.call()
	if err == nil && state.ExitCode() == exitClaimed {
		return true, nil
	}
	if err = callFailed(state, err); err != nil {
		return false, fmt.Errorf("look whether %s is mounted: %w", device, err)
	}
	return false, nil
}

// runClaimed is the main function of that process.
func (p *Program) runClaimed(args []string) int {
	var task claimedTask
	if _, err := receive(claimedRole, args, &task); err != nil {
		report.Print(p.Err, err.Error(), "")
		return report.ExitUsage
	}
	if loop.IsClaimed(task.Device) {
		return exitClaimed
	}
	return report.ExitDone
}
