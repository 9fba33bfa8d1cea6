package sandbox

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// LimitThreads limits the threads of the calling process, which no other process of its user shares. It must be called while the
// process has files. Go ends a program that cannot start a thread, so that a hostile process could otherwise end its starter:
// the limits of a cgroup and of the machine count both. A quarter of the least of them stays for other processes.
func LimitThreads() error {
	most := leastBound("/")
	if most == unix.RLIM_INFINITY {
		return nil
	}
	var has unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NPROC, &has); err != nil {
		return os.NewSyscallError("getrlimit", err)
	}
	limit := min(has.Max, most-most/4)
	if err := unix.Setrlimit(unix.RLIMIT_NPROC, &unix.Rlimit{Cur: limit, Max: limit}); err != nil {
		return fmt.Errorf("limit threads to %d: %w", limit, err)
	}
	return nil
}

// leastBound returns the least number of threads that the machine and the cgroups of this process allow, or RLIM_INFINITY. It
// looks at files below root. A limit that it cannot read does not count, such as that of a cgroup outside the process's
// cgroup namespace.
func leastBound(root string) uint64 {
	least := uint64(unix.RLIM_INFINITY)
	lower := func(file string) {
		text, err := os.ReadFile(filepath.Join(root, file))
		if err != nil {
			return
		}
		if n, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64); err == nil { // "max" is no limit
			least = min(least, n)
		}
	}
	lower("proc/sys/kernel/threads-max")
	lower("proc/sys/kernel/pid_max")
	text, _ := os.ReadFile(filepath.Join(root, "proc/self/cgroup")) // a kernel may lack cgroups
	for line := range strings.Lines(string(text)) {
		hierarchy, group := cgroupOf(strings.TrimSuffix(line, "\n"))
		for ; hierarchy != ""; group = path.Dir(group) {
			lower(path.Join(hierarchy, group, "pids.max"))
			if group == "/" {
				break
			}
		}
	}
	return least
}

// cgroupOf returns where a hierarchy is mounted, and the group in it, of a line in /proc/self/cgroup (cgroups(7)). The first is
// empty if the hierarchy does not limit threads.
func cgroupOf(line string) (hierarchy, group string) {
	const fields = 3
	f := strings.SplitN(line, ":", fields)
	if len(f) < fields {
		return "", ""
	}
	group = path.Join("/", f[2])
	switch controllers := "," + f[1] + ","; {
	case f[1] == "": // version 2
		return "sys/fs/cgroup", group
	case strings.Contains(controllers, ",pids,"):
		return "sys/fs/cgroup/pids", group
	}
	return "", ""
}
