package daemon

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/ublk-loop/ublk-loop/internal/rawname"
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

// unusedAnswer is the result for a device, as a line of JSON.
type unusedAnswer struct {
	Device unusedDevice `json:"device"`
	InUse  bool         `json:"in_use"`
	Error  string       `json:"error,omitempty"`
}

// answersFile is the name of the descriptor that the role unused writes its answers to.
const answersFile = "answers"

// stopUnusedInChild calls loop.StopUnused in another process, because a server must not
// open its own devices. It is the StopUnused of loop.ServerOptions.
func stopUnusedInChild(ended func(loop.TaggedID, error), devices ...loop.TaggedID) error {
	var task unusedTask
	for _, d := range devices {
		task.Devices = append(task.Devices, unusedDevice(d))
	}
	answers, toAnswer, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("stop unused devices: %w", err)
	}
	l := &launch{role: unusedRole, files: descriptors{answersFile: toAnswer}, task: func([]string) any { return task }}
	process, err := l.startChild()
	_ = toAnswer.Close()
	if err != nil {
		_ = answers.Close()
		return fmt.Errorf("stop unused devices: %w", err)
	}
	first := readUnused(answers, ended)
	_ = answers.Close() // if an answer could not be read, the process does not wait for its reader
	state, err := process.Wait()
	if err := callFailed(state, err); err != nil {
		return fmt.Errorf("stop unused devices: %w", err)
	}
	return first
}

// readUnused reads answers until there are no more, and returns the first error in them.
func readUnused(from io.Reader, ended func(loop.TaggedID, error)) (first error) {
	answers := json.NewDecoder(from)
	for {
		var a unusedAnswer
		err := answers.Decode(&a)
		switch {
		case errors.Is(err, io.EOF):
			return first
		case err != nil:
			return errors.Join(first, fmt.Errorf("stop unused devices: %w", err))
		}
		err = a.err()
		ended(loop.TaggedID(a.Device), err)
		if first == nil {
			first = err
		}
	}
}

func (a *unusedAnswer) err() error {
	switch {
	case a.InUse:
		return fmt.Errorf("remove %s: %w", ublk.BlockPath(a.Device.ID), loop.ErrInUse)
	case a.Error != "":
		return errors.New(a.Error)
	}
	return nil
}

// runUnused is the main function of the process that stops unused devices.
func (p *Program) runUnused(args []string) int {
	var task unusedTask
	files, err := receive(unusedRole, args, &task)
	if err != nil {
		report.Print(p.Err, rawname.Error(err), "")
		return report.ExitUsage
	}
	ctl, err := ublk.OpenControl()
	if err == nil {
		err = task.stop(files[answersFile], func(d loop.TaggedID) error { return loop.StopUnused(ctl, d) })
		err = errors.Join(err, ctl.Close())
	}
	if err != nil {
		report.Print(p.Err, rawname.Error(err), "")
		return report.ExitFailed
	}
	return report.ExitDone
}

// stop stops all devices at the same time, and answers for each when it knows the result.
// A device whose disk hangs does not delay the others.
func (t *unusedTask) stop(answers io.Writer, stop func(loop.TaggedID) error) error {
	results := make(chan unusedAnswer)
	for _, d := range t.Devices {
		go func() { // received below
			a := unusedAnswer{Device: d}
			if err := stop(loop.TaggedID(d)); errors.Is(err, loop.ErrInUse) {
				a.InUse = true
			} else if err != nil {
				a.Error = rawname.Error(err)
			}
			results <- a
		}()
	}
	encoder := json.NewEncoder(answers)
	for range t.Devices {
		if err := encoder.Encode(<-results); err != nil {
			return fmt.Errorf("answer: %w", err)
		}
	}
	return nil
}
