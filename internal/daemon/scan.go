package daemon

import (
	"context"
	"fmt"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/internal/rawname"
	"github.com/ublk-loop/ublk-loop/internal/report"
)

// scanTask names the device whose partitions the role scan looks for.
type scanTask struct {
	Device string `json:"device"`
	Number string `json:"number"` // major:minor
}

// scanInChild looks for the partitions of a device, with a number major:minor, in a child process, and
// waits for it.
func scanInChild(device, number string) error {
	l := &launch{role: scanRole, task: func([]string) any { return scanTask{device, number} }}
	if err := callFailed(l.call()); err != nil {
		return fmt.Errorf("scan partitions of %s: %w", device, err)
	}
	return nil
}

// runScan is the main function of the process that looks for partitions.
func (p *Program) runScan(args []string) int {
	var task scanTask
	if _, err := receive(scanRole, args, &task); err != nil {
		report.Print(p.Err, rawname.Error(err), "")
		return report.ExitUsage
	}
	if err := openUsable(context.Background(), &client.Device{Device: task.Device, MajMin: task.Number, PartScan: true}); err != nil {
		report.Error(p.Err, err)
		return report.ExitFailed
	}
	return report.ExitDone
}
