package oci

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A directory can take a container's writes only if no other user can pass it.
func TestOpenOverlayDirPrivate(t *testing.T) {
	top := t.TempDir()
	makeDirs(t, top, 0o755, "overlays")
	for mode, want := range map[os.FileMode]error{
		0o700: nil, 0o500: nil, 0o700 | os.ModeSticky: nil,
		0o755: unix.EPERM, 0o711: unix.EPERM, 0o710: unix.EPERM, 0o701: unix.EPERM, 0o720: unix.EPERM, 0o704: unix.EPERM, 0o750: unix.EPERM,
	} {
		makeDirs(t, top, mode, "overlays/x")
		path := filepath.Join(top, "overlays/x")
		says := fmt.Sprintf("%s: owner %d, mode %04o: ", path, os.Geteuid(), mode.Perm())
		f, err := openOverlayDir([]string{top + "/overlays"}, path)
		if !errors.Is(err, want) || want == nil && err != nil || want != nil && !strings.HasPrefix(err.Error(), says) {
			t.Errorf("mode %s: error %v, want %v", mode, err, want)
		}
		_ = f.Close()
	}
}

// A directory of another owner is refused, whatever its mode, because the owner can pass
// it.
func TestCheckPrivateOwner(t *testing.T) {
	dir := t.TempDir()
	makeDirs(t, dir, 0o700, "x")
	other := os.Geteuid() + 1
	if err := os.Chown(dir+"/x", other, -1); errors.Is(err, unix.EPERM) || errors.Is(err, unix.EINVAL) {
		// A test without root, or with root of a user namespace, uses /, which has another owner.
		dir = "/"
	} else if err != nil {
		t.Fatal(err)
	} else {
		dir += "/x"
	}
	if err := checkPrivate(openPath(t, dir)); !errors.Is(err, unix.EPERM) {
		t.Errorf("%s: error %v, want EPERM", dir, err)
	}
}
