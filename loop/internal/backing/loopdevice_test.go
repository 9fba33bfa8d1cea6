package backing

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// A loop device without a file has no directory "loop". The search ends at the first number that
// is missing.
func TestLoopDevice(t *testing.T) {
	dir := t.TempDir()
	for n, file := range map[int]string{0: "", 1: "/srv/other", 2: "/srv/a b", 3: "/srv/read only", 5: "/srv/unreachable"} {
		disk := filepath.Join(dir, fmt.Sprintf("loop%d", n))
		if err := os.Mkdir(disk, 0o700); err != nil {
			t.Fatal(err)
		}
		if file == "" {
			continue
		}
		ro := "0\n"
		if n == 3 {
			ro = "1\n"
		}
		if err := os.Mkdir(filepath.Join(disk, "loop"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(disk, "loop/backing_file"), []byte(file+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(disk, "ro"), []byte(ro), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		path, name string
		readOnly   bool
	}{
		{"/srv/a b", "/dev/loop2", false},
		{"/srv/read only", "/dev/loop3", true},
		{"/srv/a", "", false},
		{"/srv/unreachable", "", false},
		{"", "", false},
	} {
		if name, readOnly := loopDeviceIn(dir, tt.path); name != tt.name || readOnly != tt.readOnly {
			t.Errorf("%q: %q, read-only %v, want %q, %v", tt.path, name, readOnly, tt.name, tt.readOnly)
		}
	}
}
