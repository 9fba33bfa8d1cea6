package modprobe

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/hint"
	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// loader returns a loader whose modprobe is a script.
func loader(t *testing.T, script, release string) *Loader {
	t.Helper()
	if os.Geteuid() != 0 {
		ublktest.MachineLacks(t, "root") // the driver is only loaded by root
	}
	dir := t.TempDir()
	l := &Loader{
		Control: filepath.Join(dir, "control"), Programs: []string{filepath.Join(dir, "none"), filepath.Join(dir, "modprobe")},
		OSRelease: []string{filepath.Join(dir, "none"), filepath.Join(dir, "os-release")},
	}
	for path, text := range map[string]string{l.Programs[1]: "#!/bin/sh\n" + script, l.OSRelease[1]: release} {
		if text == "#!/bin/sh\n" {
			continue
		}
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

func TestLoad(t *testing.T) {
	l := loader(t, `[ "$*" = ublk_drv ] && : >"${0%/*}/control"`, "")
	if err := l.Load(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(l.Programs[1], []byte("#!/bin/sh\nexit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := l.Load(); err != nil {
		t.Errorf("a loaded driver is loaded again: %v", err)
	}
}

// The error has what modprobe says, and the hint names the package of the distribution.
func TestLoadFails(t *testing.T) {
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		t.Fatal(err)
	}
	kernel := unix.ByteSliceToString(uts.Release[:])
	const missing = "echo 'modprobe: FATAL: Module ublk_drv not found in directory /lib/modules/x' >&2; exit 1"
	for name, tt := range map[string]struct{ script, release, text, hint string }{
		"Ubuntu":         {missing, "NAME=U\nID=ubuntu\nID_LIKE=debian\n", "not found in directory", "apt install linux-modules-extra-" + kernel},
		"like Ubuntu":    {missing, "ID=mint\nID_LIKE=\"ubuntu debian\"\n", "not found", "apt install linux-modules-extra-" + kernel},
		"Debian":         {missing, "ID=debian", "not found", "Debian 12's kernel lacks it"},
		"Rocky":          {missing, "ID='rocky'\nID_LIKE=\"rhel centos fedora\"", "not found", "kernel-modules-extra-" + kernel},
		"openSUSE":       {missing, "ID=opensuse-leap\nID_LIKE=\"suse opensuse\"", "not found", "kernel-default-base"},
		"Arch":           {missing, "ID=arch", "not found", "reboot if the running kernel " + kernel},
		"Alpine":         {missing, "ID=alpine", "not found", "linux-lts"},
		"another":        {missing, "ID=plan9", "not found", "CONFIG_BLK_DEV_UBLK"},
		"no os-release":  {missing, "", "not found", "CONFIG_BLK_DEV_UBLK"},
		"no signature":   {"echo \"modprobe: ERROR: could not insert 'ublk_drv': Key was rejected by service\"; exit 1", "ID=ubuntu", "Key was rejected", "secure boot"},
		"another error":  {"echo 'modprobe: ERROR: could not insert'; exit 1", "ID=ubuntu", "could not insert", "dmesg"},
		"a silent error": {"exit 3", "ID=ubuntu", "modprobe: exit status 3", "dmesg"},
		"no device":      {"exit 0", "ID=ubuntu", "control does not exist", "--device"},
		"no modprobe":    {"", "ID=ubuntu", "there is no modprobe", "outside of the container"},
	} {
		err := loader(t, tt.script, tt.release).Load()
		var h *hint.Error
		if !errors.Is(err, ublk.ErrNoDriver) || !strings.Contains(err.Error(), tt.text) || strings.Contains(err.Error(), "\n") || !errors.As(err, &h) || !strings.Contains(h.Hint, tt.hint) {
			t.Errorf("%s: error %v, hint %+v; want %q and %q", name, err, h, tt.text, tt.hint)
		}
	}
}
