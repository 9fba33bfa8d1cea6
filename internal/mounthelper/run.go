package mounthelper

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/internal/hint"
	"github.com/ublk-loop/ublk-loop/internal/rawname"
	"github.com/ublk-loop/ublk-loop/internal/report"
	"github.com/ublk-loop/ublk-loop/loop"
)

// Helper is the helper of mount(8).
type Helper struct {
	Client *client.Client
	// Find returns the devices of a file, whichever process serves them.
	Find func(file *os.File) ([]client.Device, error)
	// NoServer is the hint if no server of many devices runs.
	NoServer string
	Err      io.Writer
}

// These are exit statuses of mount(8).
const (
	exitDone  = 0
	exitUsage = 1  // a wrong command line, or not root
	exitMount = 32 // the mount has failed
)

// Run carries out the request of mount(8), and returns the exit status.
func (h *Helper) Run(ctx context.Context, args []string) int {
	r, err := parse(args)
	switch {
	case err != nil:
		h.report("", err)
		return exitUsage
	case r.fake:
		return exitDone
	case os.Geteuid() != 0:
		// mount(8) drops its privileges before it executes a helper for another user.
		h.report(r.dir, hint.Add(fmt.Errorf("only root can mount an image: %w", unix.EPERM), "the options user and users have no effect here"))
		return exitUsage
	}
	if err := h.carryOut(ctx, r); err != nil {
		h.report(r.image, err)
		return exitMount
	}
	return exitDone
}

// report prints an error about an object, and the hint in the names of options.
func (h *Helper) report(object string, err error) {
	text := rawname.Error(err)
	if object != "" && !strings.Contains(text, object) {
		text = object + ": " + text
	}
	fmt.Fprintf(h.Err, "%s: %s\n", Name, report.OneLine(text))
	if hint := hint.Render(report.Template(err), optionOf); hint != "" {
		fmt.Fprintf(h.Err, "hint: %s\n", report.OneLine(hint))
	}
}

// optionOf returns the option of mount(8) for a setting.
func optionOf(name, assigned string) string {
	switch name {
	case "read_only":
		return "-o ro"
	case "key":
		return "-o " + prefix + "key-file"
	}
	return "-o " + prefix + strings.ReplaceAll(name, "_", "-") + assigned
}

// note prints what the user should know of a mount that succeeds.
func (h *Helper) note(object, text string) {
	fmt.Fprintf(h.Err, "%s: %s: %s\n", Name, report.OneLine(object), report.OneLine(text))
}

// noteReadOnly says that an image is mounted read-only, which the user did not ask for.
func (h *Helper) noteReadOnly(image string) { h.note(image, "write-protected, mounted read-only") }

// noteMounted says that an image is mounted at the directory already, if the user wants to know that, or
// asks for another access than the mount has. The helper leaves such a mount alone.
func (h *Helper) noteMounted(r *request) {
	var fs unix.Statfs_t
	err := unix.Statfs(r.dir, &fs)
	isReadOnly := fs.Flags&unix.ST_RDONLY != 0
	switch {
	case err == nil && isReadOnly && !r.config.ReadOnly:
		h.note(r.image, "already mounted at "+r.dir+", read-only")
	case err == nil && !isReadOnly && r.config.ReadOnly:
		h.note(r.image, "already mounted at "+r.dir+", and not read-only: -o remount,ro changes that")
	case r.verbose:
		h.note(r.image, "already mounted at "+r.dir)
	}
}

// noteLoopDevice warns of a loop device of the kernel that has the image, too: if both are mounted,
// the file system gets damaged.
func (h *Helper) noteLoopDevice(r *request, file *os.File) {
	if r.config.Shared {
		return
	}
	for _, warning := range report.LoopDevice(file, r.config.ReadOnly) {
		h.note(r.image, "warning: "+warning)
	}
}

// carryOut carries out a remount or a mount. mount(8) also calls its helper for a remount.
func (h *Helper) carryOut(ctx context.Context, r *request) error {
	if r.remount {
		return callMount(ctx, os.Stderr, r.again()...)
	}
	file, err := loop.OpenPath(r.image)
	if errors.Is(err, unix.ENOENT) && r.nofail {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	unlock, err := lockImage(ctx, file)
	if err != nil {
		return err
	}
	defer unlock()
	devices, err := h.Find(file)
	if err != nil {
		return err
	}
	d, err := r.existing(devices)
	if err != nil {
		return err
	}
	if d != nil {
		if done, err := h.mountExisting(ctx, r, d, file); done || err != nil {
			return err
		}
		// The server has the image open until the device is completely gone. Only an attach
		// can tell what follows from an error.
		_ = h.Client.Remove(ctx, d, false)
	}
	return h.attach(ctx, r, file)
}

// mountExisting mounts a device that has the image already, unless it is mounted at the
// directory. It returns false if the device has gone meanwhile. Before Linux 7.0 it may go
// although it is open: the server's last look for users may have been before the open.
func (h *Helper) mountExisting(ctx context.Context, r *request, d *client.Device, file *os.File) (done bool, err error) {
	disk, err := open(d)
	if err != nil {
		return false, nil
	}
	defer func() { _ = disk.Close() }()
	if r.namespace == "" {
		is, err := r.isMounted(d.Device)
		if err != nil || is {
			if is {
				h.noteMounted(r)
			}
			return true, err
		}
	}
	h.noteLoopDevice(r, file)
	var said bytes.Buffer
	reads := d.ReadOnly && !r.config.ReadOnly
	if reads {
		r = r.readOnly()
	}
	err = mountDevice(ctx, r, d.Device, &said)
	if err != nil && hasGone(d) {
		return false, nil
	}
	_, _ = said.WriteTo(os.Stderr)
	if err == nil && reads {
		h.noteReadOnly(r.image)
	}
	return true, err
}

// hasGone reports whether a device's name no longer leads to it.
func hasGone(d *client.Device) bool {
	disk, err := open(d)
	if err != nil {
		return true
	}
	_ = disk.Close()
	return false
}

func mountDevice(ctx context.Context, r *request, device string, stderr io.Writer) error {
	if err := callMount(ctx, stderr, r.command(device)...); err != nil {
		return fmt.Errorf("%s: %w", device, err)
	}
	return nil
}

// callMount executes mount(8), and waits for it even if the user interrupts this process:
// then the exit status tells whether the image is mounted.
func callMount(ctx context.Context, stderr io.Writer, args ...string) error {
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
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("mount(8): %w", err)
	}
	return nil
}
