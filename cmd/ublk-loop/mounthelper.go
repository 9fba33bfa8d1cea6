package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/internal/daemon"
	"github.com/ublk-loop/ublk-loop/internal/hint"
	"github.com/ublk-loop/ublk-loop/internal/report"
	"github.com/ublk-loop/ublk-loop/internal/wire"
	"github.com/ublk-loop/ublk-loop/loop"
)

// mountHelper is the name by which mount(8) executes this program for `mount -t ublk-loop
// IMAGE DIRECTORY`.
const mountHelper = "mount.ublk-loop"

// mountRequest is the request of mount(8).
type mountRequest struct {
	image, dir string
	fsType     string   // "" if mount(8) detects the file system
	options    []string // for the file system
	flags      []string // for mount(8)
	remount    bool     // change the options of a mount; its device exists
	fake       bool     // do not mount
	config     loop.Config
}

// mountMain attaches an image with a lease, mounts it, and drops the lease. The server
// then removes the device when it is neither mounted nor open. If this process or the
// server dies on the way, no device is left.
func mountMain(args []string) int {
	a := newApp()
	req, err := parseMount(args)
	if err != nil {
		return report.Exit(a.errOut, report.Usage(err, "mount -t ublk-loop IMAGE DIRECTORY [-o OPTIONS]"))
	}
	ctx, stop := interruptible(context.Background())
	defer stop()
	if err := req.carryOut(ctx, client.New(client.DefaultSocket)); err != nil {
		a.report(report.Name(err, "mount", req.image))
		return exitMount
	}
	return report.ExitDone
}

// exitMount is the exit status of mount(8) for a failed mount.
const exitMount = 32

// parseMount parses the arguments that mount(8) gives a helper (mount(8), EXTERNAL
// HELPERS):
//
//	IMAGE DIRECTORY [-sfnv] [-N NAMESPACE] [-o OPTIONS] [-t TYPE.SUBTYPE]
func parseMount(args []string) (*mountRequest, error) {
	if len(args) < 2 {
		return nil, errors.New(mountHelper + ": needs an image and a directory")
	}
	req := &mountRequest{image: args[0], dir: args[1]}
	for i := 2; i < len(args); i++ {
		switch arg := args[i]; {
		case (arg == "-o" || arg == "-t") && i+1 < len(args):
			i++
			if arg == "-t" {
				_, req.fsType, _ = strings.Cut(args[i], ".")
				continue
			}
			if err := req.takeOptions(args[i]); err != nil {
				return nil, err
			}
		case arg == "-f":
			req.fake = true
		case slices.Contains([]string{"-s", "-n", "-v"}, arg):
			req.flags = append(req.flags, arg)
		default:
			return nil, fmt.Errorf("%s: unexpected argument %q", mountHelper, arg)
		}
	}
	return req, nil
}

// takeOptions keeps the options of the device, and passes the others on to mount(8).
func (r *mountRequest) takeOptions(list string) error {
	for option := range strings.SplitSeq(list, ",") {
		name, value, _ := strings.Cut(option, "=")
		var err error
		switch name {
		case "offset":
			err = sizeFlag{&r.config.Offset}.Set(value)
		case "sizelimit":
			err = sizeFlag{&r.config.SizeLimit}.Set(value)
		case "sector-size":
			err = sectorFlag{&r.config.SectorSize}.Set(value)
		case "direct-io":
			err = switchFlag{&r.config.DirectIO}.Set(value)
		case "fstype":
			r.fsType = value
		case "ro":
			r.config.ReadOnly = true
			r.options = append(r.options, option)
		case "remount":
			r.remount = true
			r.options = append(r.options, option)
		case "loop": // an option of the kernel's loop driver in fstab
		default:
			r.options = append(r.options, option)
		}
		if err != nil {
			return fmt.Errorf("option %s: %w", option, err)
		}
	}
	return nil
}

// carryOut carries out the request: a fake mount, a remount or a mount. mount(8) also
// calls its helper for a remount.
func (r *mountRequest) carryOut(ctx context.Context, c *client.Client) error {
	switch {
	case r.fake:
		return nil
	case r.remount:
		return callMount(ctx, r.again()...)
	}
	return r.mount(ctx, c)
}

// mount mounts the image on a device that exists as long as the mount.
func (r *mountRequest) mount(ctx context.Context, c *client.Client) error {
	file, err := loop.OpenPath(r.image)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	held, err := c.Attach(ctx, client.AddRequest{File: file.Name(), Config: wire.RequestConfig(&r.config)}, client.Files{File: file})
	if errors.Is(err, client.ErrNoServer) {
		return &hint.Error{Err: err, Hint: daemon.HintStartServe}
	}
	if err != nil {
		return err
	}
	defer held.Close()
	device := held.Device.Device
	if err := callMount(ctx, r.command(device)...); err != nil {
		return fmt.Errorf("%s: %w", device, err)
	}
	return nil
}

// callMount executes mount(8), and waits for it even if the user interrupts this process:
// then the exit status tells whether the image is mounted.
func callMount(ctx context.Context, args ...string) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	// An absolute path is needed, because mount(8) removes PATH from the environment of
	// its helpers.
	program, err := exec.LookPath("/bin/mount")
	if err != nil {
		return err
	}
	cmd := exec.Command(program, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("mount(8): %w", err)
	}
	return nil
}

// command returns the arguments of mount(8) for mounting the device.
func (r *mountRequest) command(device string) []string {
	args := slices.Clone(r.flags)
	if r.fsType != "" {
		args = append(args, "-t", r.fsType)
	}
	return append(append(args, r.optionArgs()...), "--", device, r.dir)
}

// again returns the arguments of mount(8) for a remount, without its helper (-i).
func (r *mountRequest) again() []string {
	return append(append(append(slices.Clone(r.flags), "-i"), r.optionArgs()...), "--", r.dir)
}

func (r *mountRequest) optionArgs() []string {
	if len(r.options) == 0 {
		return nil
	}
	return []string{"-o", strings.Join(r.options, ",")}
}
