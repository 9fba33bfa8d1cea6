package report

import (
	"cmp"
	"errors"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/internal/hint"
	"github.com/ublk-loop/ublk-loop/loop"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// uringSwitch holds 0 if all users may use io_uring, 1 if only a group may, and 2 if
// io_uring is disabled (Linux 6.6).
const uringSwitch = "/proc/sys/kernel/io_uring_disabled"

// Hint returns the hint for an error, with settings as flags. It returns an empty text if
// there is no hint.
func Hint(err error) string {
	return hint.Render(Template(err), func(name, assigned string) string {
		if name == "key" {
			name = "key-file"
		}
		return "--" + strings.ReplaceAll(name, "_", "-") + assigned
	})
}

// Template returns the hint for an error, with settings in braces as in package hint.
func Template(err error) string {
	disabled, readErr := os.ReadFile(uringSwitch)
	return hintOn(err, host{
		isRoot:        os.Geteuid() == 0,
		uringDisabled: readErr == nil && strings.TrimSpace(string(disabled)) != "0",
		noProc:        errors.Is(unix.Access("/proc/self", unix.F_OK), unix.ENOENT),
	})
}

// host describes the machine and process, on which hints depend, too.
type host struct {
	isRoot        bool
	uringDisabled bool
	noProc        bool
}

func hintOn(err error, here host) string {
	var withHint *hint.Error
	var ofServer *client.ServerError
	switch {
	case errors.As(err, &ofServer):
		return cmp.Or(ofServer.Template, ofServer.Hint)
	case errors.As(err, &withHint):
		return withHint.Hint
	case here.noProc && errors.Is(err, unix.ENOENT):
		return "mount /proc: mount -t proc proc /proc"
	case errors.Is(err, ublk.ErrNoSysfs):
		return "mount /sys: mount -t sysfs sys /sys"
	case errors.Is(err, client.ErrNoServer):
		return "start ublk-loop serve, or the unit ublk-loop.socket"
	case errors.Is(err, ublk.ErrNoDriver):
		return "add and serve load it as root, and so does modprobe ublk_drv"
	case errors.Is(err, loop.ErrInUse):
		return "unmount it or end the processes that have it open; {force} removes it anyway"
	case errors.Is(err, loop.ErrForeign):
		return "remove it with the program that made it"
	case errors.Is(err, ublk.ErrControlHung):
		return "the kernel's log may say why: dmesg"
	case errors.Is(err, unix.ENOSYS):
		return "the kernel lacks io_uring, or a container's filter forbids it"
	case !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EACCES):
		return ""
	case here.uringDisabled && errors.Is(err, unix.EPERM):
		return "io_uring is switched off: sysctl kernel.io_uring_disabled=0"
	case !here.isRoot:
		return "run it as root"
	}
	return "a container needs the capability SYS_ADMIN, and its filters must allow io_uring"
}
