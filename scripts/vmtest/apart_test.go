// Package vmtest tests the machines that the kernel tests run in.
package vmtest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// destroy is a script that the guest runs as root. It writes to everything it can.
const destroy = `
for disk in /dev/vd?; do dd if=/dev/urandom of=$disk bs=1M count=1 conv=notrunc 2>/dev/null && echo "wrote $disk"; done
grep -w hostfs /proc/filesystems
mkdir -p /host && mount -t hostfs none /host 2>/dev/null && echo "mounted the host"
ls /dev/mem /dev/kmem /dev/port 2>/dev/null
echo x >/tmp/canary
busybox rm -rf /usr/share /var /root /home /etc /srv /tmp/canary
echo done
`

// A user-mode kernel is a process of the user who starts it. A guest that could reach a
// file of the host could do to it whatever that user can. The test runs the guest where
// every file system is read-only except TMPDIR, the cache, and /dev/shm, in which the
// kernel keeps the guest's memory as a file without a name. A write anywhere else fails
// the run, and the test fails if the guest leaves a file in the writable directories.
func TestGuestIsApart(t *testing.T) {
	cache := cachedKernel(t)
	dir := t.TempDir()
	image := filepath.Join(dir, "image")
	if err := os.WriteFile(image, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	tmp := filepath.Join(dir, "tmp")
	if err := os.Mkdir(tmp, 0o700); err != nil {
		t.Fatal(err)
	}
	out := runApart(t, []string{dir, cache, "/dev/shm"}, "TMPDIR="+tmp,
		"../vm.sh", "run", "uml", "--modules", "", "--disk", "1M", "--image", image, "--", "sh", "-c", destroy)
	if want := "wrote /dev/vda\ndone\n"; out != want {
		t.Errorf("the guest said %q, want %q", out, want)
	}
	if b, err := os.ReadFile(image); err != nil || strings.Trim(string(b), "\x00") != "" {
		t.Errorf("the guest changed a read-only image (%v)", err)
	}
	if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
		t.Errorf("the run left %v in TMPDIR (%v)", left, err)
	}
}

// An unprivileged user can start the same machine, and is root in it.
func TestGuestNeedsNoRoot(t *testing.T) {
	cache := cachedKernel(t)
	dir, err := os.MkdirTemp("", "vmtest")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	// The other user has a cache of its own with a copy of the built kernel, and a copy
	// of the scripts that it may read.
	script := `set -e
cp -r .. "$1/scripts"; mkdir -p "$1/cache/kernels"; cp -r "$2" "$1/cache/kernels/"
if [ "$3" = root ]; then
	chown -R nobody "$1"
	set -- "$1" setpriv --reuid nobody --regid nogroup --clear-groups --no-new-privs --inh-caps=-all
else
	set -- "$1"
fi
exec "${@:2}" \
	env HOME="$1" TMPDIR="$1" UBLK_LOOP_CACHE="$1/cache" "$1/scripts/vm.sh" run uml -- id -u`
	who := "another" // this user has no privileges itself
	if ublktest.HasOtherUsers() {
		who = "root"
	}
	cmd := exec.Command("bash", "-c", script, "bash", dir, kernelDirectory(t, cache), who)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil || string(out) != "0\n" {
		t.Errorf("without root: %q, %v, want user 0 of the guest", out, err)
	}
}

// cachedKernel returns the directory of the cache. A run that also has kernel tests builds the
// user-mode kernel, or waits for it. Other runs skip the test if the cache has none, because
// building one takes minutes.
func cachedKernel(t *testing.T) string {
	t.Helper()
	cache := os.Getenv("UBLK_LOOP_CACHE")
	if cache == "" {
		base, err := os.UserCacheDir()
		if err != nil {
			t.Fatal(err)
		}
		cache = filepath.Join(base, "ublk-loop")
	}
	if tier := os.Getenv("UBLK_LOOP_TIER"); tier != "" && tier != "unit" {
		kernelDirectory(t, cache)
	} else if exec.Command("../vm-kernel.sh", "--cached", "uml").Run() != nil {
		t.Skip("the user-mode kernel is not built: scripts/vm-kernel.sh uml builds it")
	}
	return cache
}

func kernelDirectory(t *testing.T, cache string) string {
	t.Helper()
	cmd := exec.Command("../vm-kernel.sh", "uml")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil || !strings.HasPrefix(string(out), cache) {
		t.Fatalf("vm-kernel.sh uml: %q, %v\n%s", out, err, &stderr)
	}
	return strings.TrimSpace(string(out))
}

// runApart runs a command in a mount namespace in which only some directories are
// writable, and returns its output.
func runApart(t *testing.T, writable []string, env string, args ...string) string {
	t.Helper()
	script := `set -e
mount --make-rprivate /
for d in $WRITABLE; do mount --bind "$d" "$d"; done
mount -o remount,bind,ro /
exec "$@"`
	options := []string{"--mount"}
	if os.Getuid() != 0 {
		options = append(options, "--map-root-user")
	}
	if exec.Command("unshare", append(options, "true")...).Run() != nil {
		ublktest.MachineLacks(t, "root, and user namespaces")
	}
	cmd := exec.Command("unshare", append(append(options, "bash", "-c", script, "bash"), args...)...)
	cmd.Env = append(os.Environ(), env, "WRITABLE="+strings.Join(writable, " "))
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%q: %v", args, err)
	}
	return string(out)
}
