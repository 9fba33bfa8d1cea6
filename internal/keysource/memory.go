package keysource

import (
	"bufio"
	"bytes"
	"fmt"
	"io/fs"
	"math"
	"path"
	"strconv"
	"strings"
)

// availableMemory returns the number of bytes that this process can use without swapping, or 0 if it is unknown: what
// the machine has (MemAvailable in proc_meminfo(5)), and at most what the memory limits of the process's cgroup and of those
// above it leave. The kernel would kill a process that takes more than these.
func availableMemory(root fs.FS) uint64 {
	meminfo, err := fs.ReadFile(root, "proc/meminfo")
	if err != nil {
		return 0
	}
	kib, found := valueOf(meminfo, "MemAvailable:")
	if !found {
		return 0
	}
	return min(kib<<10, max(leftByGroups(root), 1)) // 0 would stand for an unknown number
}

// groupsDir is where cgroups are mounted (cgroups(7)).
const groupsDir = "sys/fs/cgroup"

// leftByGroups returns the number of bytes that the memory limits of cgroups leave. Only version 2 has them in the
// hierarchy "0::".
func leftByGroups(root fs.FS) uint64 {
	left := uint64(math.MaxUint64)
	own, err := fs.ReadFile(root, "proc/self/cgroup")
	if err != nil {
		return left
	}
	for line := range strings.Lines(string(own)) {
		group, found := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::")
		if !found {
			continue
		}
		for group = path.Clean("/" + group); ; group = path.Dir(group) {
			left = min(left, leftByGroup(root, path.Join(groupsDir, group)))
			if group == "/" {
				break
			}
		}
	}
	return left
}

// leftByGroup returns the number of bytes that the limit of one cgroup leaves. The kernel takes back memory that caches
// files and their names before it kills.
func leftByGroup(root fs.FS, dir string) uint64 {
	limit, hasLimit := numberIn(root, path.Join(dir, "memory.max")) // the word "max" without a limit
	used, isKnown := numberIn(root, path.Join(dir, "memory.current"))
	stat, err := fs.ReadFile(root, path.Join(dir, "memory.stat"))
	if !hasLimit || !isKnown || err != nil {
		return math.MaxUint64
	}
	for _, cache := range []string{"active_file", "inactive_file", "slab_reclaimable"} {
		n, _ := valueOf(stat, cache)
		used -= min(used, n)
	}
	return limit - min(limit, used)
}

func numberIn(root fs.FS, name string) (n uint64, ok bool) {
	b, err := fs.ReadFile(root, name)
	if err != nil {
		return 0, false
	}
	n, err = strconv.ParseUint(string(bytes.TrimSpace(b)), 10, 64)
	return n, err == nil
}

// valueOf returns the number behind a name at the beginning of a line.
func valueOf(text []byte, name string) (n uint64, found bool) {
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		if count, _ := fmt.Sscanf(lines.Text(), name+" %d", &n); count == 1 {
			return n, true
		}
	}
	return 0, false
}
