package backing

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// loopDevices is the directory with the kernel's loop devices.
const loopDevices = "/sys/block"

// LoopDevice returns the name of a loop device of the kernel that has the file with a path, and
// whether it is read-only. The name is empty if none is found. A loop device takes no lock, so
// that nothing else tells of it.
//
// Loop devices are numbered from 0. LoopDevice looks no further than the first missing number, so
// that its work does not grow with the number of other disks. It compares paths, because looking
// at the file of another loop device could wait for a file system that hangs.
func LoopDevice(path string) (name string, readOnly bool) { return loopDeviceIn(loopDevices, path) }

func loopDeviceIn(dir, path string) (name string, readOnly bool) {
	for n := 0; ; n++ {
		disk := filepath.Join(dir, fmt.Sprintf("loop%d", n))
		switch file, err := os.ReadFile(filepath.Join(disk, "loop/backing_file")); {
		case err == nil && strings.TrimSuffix(string(file), "\n") == path:
			ro, err := os.ReadFile(filepath.Join(disk, "ro"))
			return filepath.Join("/dev", filepath.Base(disk)), err == nil && strings.TrimSpace(string(ro)) == "1"
		case err == nil: // of another file
		default: // of no file, or there is no such device
			if _, err := os.Lstat(disk); err != nil {
				return "", false
			}
		}
	}
}
