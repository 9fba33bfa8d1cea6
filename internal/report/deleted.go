package report

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/ublk-loop/ublk-loop/client"
)

// deletedSuffix is what the kernel appends to the path of an open file that has been deleted.
const deletedSuffix = " (deleted)"

// markDeleted returns devices with deletedSuffix behind the paths of deleted files. The kernel
// tells it of the files that a server has open, without a look at the file system, which may hang.
func markDeleted(devices []client.Device) []client.Device {
	marked := slices.Clone(devices)
	open := map[int]map[string]bool{} // the paths that each server has open
	for i := range marked {
		d := &marked[i]
		if d.PID == 0 {
			continue
		}
		if open[d.PID] == nil {
			open[d.PID] = openPaths(d.PID)
		}
		mark := func(path string) string {
			if paths := open[d.PID]; paths[path] || !paths[path+deletedSuffix] {
				return path
			}
			return path + deletedSuffix
		}
		d.File = mark(d.File)
		d.Files = slices.Clone(d.Files)
		for j := range d.Files {
			d.Files[j].File = mark(d.Files[j].File)
		}
	}
	return marked
}

// openPaths returns the paths of the files that a process has open.
func openPaths(pid int) map[string]bool {
	links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid)) // the pattern is valid
	paths := make(map[string]bool, len(links))
	for _, link := range links {
		if path, err := os.Readlink(link); err == nil {
			paths[path] = true
		}
	}
	return paths
}
