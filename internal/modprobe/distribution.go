package modprobe

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// packages are the packages with modules of the kernel, by the ID of the distribution
// (os-release(5)). The release of the kernel stands for %s.
var packages = []struct{ id, hint string }{
	{"ubuntu", "apt install linux-modules-extra-%s"},
	{"debian", "the kernel of Debian 13 has it, and that of the backports of Debian 12, in the package linux-image; Debian 12's kernel lacks it"},
	{"fedora", "dnf install kernel-modules-%[1]s kernel-modules-extra-%[1]s"},
	{"rhel", "dnf install kernel-modules-%[1]s kernel-modules-extra-%[1]s"},
	{"suse", "zypper install kernel-default, and boot it; kernel-default-base has few modules"},
	{"arch", "pacman -S linux, and reboot if the running kernel %s is older"},
	{"alpine", "apk add linux-lts, and boot it; linux-virt has few modules"},
}

// packageHint says which package of this distribution has the driver.
func (l *Loader) packageHint() string {
	var uts unix.Utsname
	release := "$(uname -r)"
	if unix.Uname(&uts) == nil {
		release = unix.ByteSliceToString(uts.Release[:])
	}
	ids := l.distribution()
	for _, id := range ids {
		for _, p := range packages {
			if p.id == id && strings.Contains(p.hint, "%") {
				return fmt.Sprintf(p.hint, release)
			}
			if p.id == id {
				return p.hint
			}
		}
	}
	return "install the kernel's module ublk_drv (CONFIG_BLK_DEV_UBLK), or a kernel that has it"
}

// distribution returns the ID of this distribution, and of those that it resembles.
func (l *Loader) distribution() []string {
	for _, path := range l.OSRelease {
		if text, err := os.ReadFile(path); err == nil {
			return slices.Concat(valueOf(string(text), "ID"), valueOf(string(text), "ID_LIKE"))
		}
	}
	return nil
}

// valueOf returns the words of a variable in the text of os-release.
func valueOf(text, name string) []string {
	for line := range strings.SplitSeq(text, "\n") {
		if value, found := strings.CutPrefix(line, name+"="); found {
			return strings.Fields(strings.Trim(value, `"'`))
		}
	}
	return nil
}
