package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/ublk-loop/ublk-loop/internal/report"
	"github.com/ublk-loop/ublk-loop/loop"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// unusedCommand is the name of the command that stops devices which nobody
// uses. It is for servers alone, which must not open their own devices.
const unusedCommand = "unused-of-serve"

// exitInUse is its exit status where a device is in use.
const exitInUse = 3

// stopUnusedInChild is loop.StopUnused in another process.
func stopUnusedInChild(devices ...loop.Identity) error {
	args := []string{"ublk-loop", unusedCommand}
	for _, d := range devices {
		args = append(args, fmt.Sprintf("%d:%d", d.ID, d.Tag))
	}
	process, err := os.StartProcess(selfPath, args, &os.ProcAttr{
		Env: serverEnv(os.Environ()), Files: []*os.File{nil, nil, os.Stderr},
	})
	if err != nil {
		return fmt.Errorf("stop devices that nobody uses: %w", err)
	}
	state, err := process.Wait()
	switch {
	case err != nil:
		return fmt.Errorf("stop devices that nobody uses: %w", err)
	case state.ExitCode() == exitInUse:
		return loop.ErrInUse
	case !state.Success():
		return fmt.Errorf("stop devices that nobody uses: %s", state)
	}
	return nil
}

// unusedMain is the process that stops devices which nobody uses.
func unusedMain(args []string) int {
	ctl, err := ublk.OpenControl()
	if err != nil {
		report.Print(os.Stderr, err.Error(), "")
		return report.ExitFailed
	}
	defer func() { _ = ctl.Close() }()
	result := report.ExitDone
	for _, arg := range args {
		device, err := parseIdentity(arg)
		if err != nil {
			report.Print(os.Stderr, unusedCommand+": only serve starts it", "")
			return report.ExitUsage
		}
		switch err := loop.StopUnused(ctl, device); {
		case errors.Is(err, loop.ErrInUse):
			result = exitInUse
		case err != nil:
			report.Print(os.Stderr, err.Error(), "")
			return report.ExitFailed
		}
	}
	return result
}

// parseIdentity is for what stopUnusedInChild has written.
func parseIdentity(arg string) (loop.Identity, error) {
	id, tag, _ := strings.Cut(arg, ":")
	n, err := strconv.ParseUint(id, 10, 32)
	if err != nil {
		return loop.Identity{}, err
	}
	t, err := strconv.ParseUint(tag, 10, 64)
	return loop.Identity{ID: uint32(n), Tag: t}, err
}
