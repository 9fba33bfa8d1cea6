package report

import (
	"errors"
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/internal/hint"
	"github.com/ublk-loop/ublk-loop/loop"
	"github.com/ublk-loop/ublk-loop/ublk"
)

func TestHints(t *testing.T) {
	root, off := host{isRoot: true}, host{isRoot: true, uringDisabled: true}
	for _, tt := range []struct {
		err  error
		here host
		want string
	}{
		{errors.New("x"), root, ""},
		{unix.EIO, root, ""},
		{&hint.Error{Err: unix.EPERM, Hint: "do this"}, off, "do this"},
		{fmt.Errorf("open: %w", &hint.Error{Err: unix.EPERM, Hint: "do this"}), root, "do this"},
		{client.ErrNoServer, root, "start ublk-loop serve, or the unit ublk-loop.socket"},
		{ublk.ErrNoDriver, root, "add and serve load it as root, and so does modprobe ublk_drv"},
		{loop.ErrInUse, root, "unmount it or end the processes that have it open; {force} removes it anyway"},
		{loop.ErrForeign, root, "remove it with the program that made it"},
		{ublk.ErrControlHung, root, "the kernel's log may say why: dmesg"},
		{unix.ENOSYS, root, "the kernel lacks io_uring, or a container's filter forbids it"},
		{unix.ENOENT, root, ""},
		{unix.ENOENT, host{isRoot: true, noProc: true}, "mount /proc: mount -t proc proc /proc"},
		{unix.EIO, host{isRoot: true, noProc: true}, ""},
		{unix.EPERM, off, "io_uring is switched off: sysctl kernel.io_uring_disabled=0"},
		{unix.EACCES, host{uringDisabled: true}, "run it as root"},
		{unix.EACCES, host{}, "run it as root"},
		{unix.EPERM, host{}, "run it as root"},
		{unix.EPERM, root, "a container needs the capability SYS_ADMIN, and its filters must allow io_uring"},
	} {
		if got := hintOn(fmt.Errorf("try: %w", tt.err), tt.here); got != tt.want {
			t.Errorf("%v, %+v: hint %q, want %q", tt.err, tt.here, got, tt.want)
		}
	}
}

// The command's user sees flags, whichever process found the error.
func TestHintNamesFlags(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want string
	}{
		{&hint.Error{Err: unix.EBUSY, Hint: "attach it with {read_only}"}, "attach it with --read-only"},
		{&hint.Error{Err: unix.EINVAL, Hint: "use {sector_size=4096}, or {direct_io=auto}"}, "use --sector-size=4096, or --direct-io=auto"},
		{&hint.Error{Err: unix.EINVAL, Hint: "give it with {key}"}, "give it with --key-file"},
		{loop.ErrInUse, "unmount it or end the processes that have it open; --force removes it anyway"},
		{&client.ServerError{ErrorReply: client.ErrorReply{Hint: "use direct_io=auto", Template: "use {direct_io=auto}"}}, "use --direct-io=auto"},
		{&client.ServerError{ErrorReply: client.ErrorReply{Hint: "of an older server: use --direct-io=auto"}}, "of an older server: use --direct-io=auto"},
	} {
		if got := Hint(tt.err); got != tt.want {
			t.Errorf("%#v: hint %q, want %q", tt.err, got, tt.want)
		}
	}
}
