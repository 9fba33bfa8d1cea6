package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// These tests are util-linux's own tests of losetup, with ublk-losetup in its place.

// ublkCheck replaces the check for the node of an unused loop device. An unused ublk device
// has none.
const ublkCheck = `
function ts_check_losetup {
	case $($TS_CMD_LOSETUP -f) in
	/dev/ublkb*) ;;
	*) ts_failed "losetup -f does not name a device" ;;
	esac
}
`

// modprobe leaves scsi_mod loaded. Otherwise its hosts are numbered from 0 again, and Linux
// 7.3 still has a workqueue with the old name.
const modprobe = `#!/bin/sh
case "$*" in
"-r scsi_debug") [ ! -e /sys/module/scsi_debug ] || exec rmmod scsi_debug; exit 0 ;;
esac
exec /sbin/modprobe "$@"
`

// utilLinux runs a test of util-linux, all of whose parts must pass.
func (b *bed) utilLinux(name string, parts int) {
	b.Helper()
	dir := b.TempDir()
	b.tool("cp", "-r", os.Getenv("UBLK_LOOP_UTIL_LINUX")+"/tests", dir)
	functions, err := os.OpenFile(filepath.Join(dir, "tests/functions.sh"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := functions.WriteString(ublkCheck); err != nil {
		b.Fatal(err)
	}
	if err := functions.Close(); err != nil {
		b.Fatal(err)
	}
	losetup := filepath.Join(dir, "ublk-losetup")
	b.symlink(b.bin, losetup)
	b.write(filepath.Join(dir, "udevadm"), "#!/bin/sh\n", 0o755) // the kernel makes the nodes, so that there is nothing to wait for
	b.tool("modprobe", "sd_mod")
	b.write(filepath.Join(dir, "modprobe"), modprobe, 0o755)
	cmd := exec.Command("bash", filepath.Join(dir, "tests/ts/losetup", name), "--use-system-commands", "--noskip-commands", "--show-diff", "--parsable")
	cmd.Env = append(os.Environ(), "TS_CMD_LOSETUP="+losetup, "PATH="+dir+":"+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	text := string(out)
	if passed := strings.Count(text, "... OK\n"); err != nil || passed != parts || strings.Contains(text, "SKIPPED") || strings.Contains(text, "FAILED") {
		b.Errorf("%s: %d of %d parts pass, error %v\n%s", name, passed, parts, err, text)
	}
}

func (b *bed) symlink(target, path string) {
	b.Helper()
	if err := os.Symlink(target, path); err != nil {
		b.Fatal(err)
	}
}

func TestKernelUtilLinuxLosetup(t *testing.T) {
	b := kernelBed(t, ublktest.UtilLinux)
	b.utilLinux("losetup", 4)
	b.serve()
	b.utilLinux("losetup", 4)
}

func TestKernelUtilLinuxLosetupBlkdev(t *testing.T) {
	b := kernelBed(t, ublktest.UtilLinux)
	b.utilLinux("losetup-blkdev", 4)
}

func TestKernelUtilLinuxLosetupLoop(t *testing.T) {
	b := kernelBed(t, ublktest.UtilLinux, ublktest.Waits)
	b.utilLinux("losetup-loop", 9)
}

func TestKernelUtilLinuxLosetupLoopOfServe(t *testing.T) {
	b := kernelBed(t, ublktest.UtilLinux, ublktest.Waits)
	b.serve()
	b.utilLinux("losetup-loop", 9)
}
