package oci

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// userNamespace is that of a container, in which root is somebody else.
type userNamespace struct {
	path   string // of another's, "" for one that the runtime makes
	groups []idMapping
}

// idMapping says whom some of a user namespace's users or groups are outside.
type idMapping struct {
	ContainerID uint32 `json:"containerID"`
	HostID      uint32 `json:"hostID"`
}

// userNamespace returns the container's, nil where it has none of its own.
func (c *config) userNamespace() (*userNamespace, error) {
	var linux struct {
		Namespaces []struct {
			Type string `json:"type"`
			Path string `json:"path"`
		} `json:"namespaces"`
		GIDMappings []idMapping `json:"gidMappings"`
	}
	if len(c.Linux) > 0 {
		if err := json.Unmarshal(c.Linux, &linux); err != nil {
			return nil, fmt.Errorf("read the configuration: %w", err)
		}
	}
	for _, n := range linux.Namespaces {
		if n.Type == "user" {
			return &userNamespace{n.Path, linux.GIDMappings}, nil
		}
	}
	return nil, nil
}

// rootGroup returns the group, here, of group 0 there. It returns an error that
// wraps EOPNOTSUPP where that is not known.
func (u *userNamespace) rootGroup() (int, error) {
	groups := u.groups
	if u.path != "" {
		// What the configuration says of another's is not so: podman, which does not
		// know either, writes that 0 is 0.
		var err error
		if groups, err = groupsAt(u.path); err != nil {
			return 0, fmt.Errorf("whom the user namespace %s has for root is not known, use ublk-runc or ublk-crun: %w", u.path, err)
		}
	}
	i := slices.IndexFunc(groups, func(m idMapping) bool { return m.ContainerID == 0 && m.HostID != math.MaxUint32 })
	if i < 0 {
		return 0, fmt.Errorf("the user namespace has no group 0, use ublk-runc or ublk-crun: %w", unix.EOPNOTSUPP)
	}
	return int(groups[i].HostID), nil
}

// processNamespace is where a process has its user namespace (proc_pid_ns(5)).
var processNamespace = regexp.MustCompile(`^(/proc/[1-9][0-9]*)/ns/user$`)

// groupsAt returns the groups of the user namespace at a path. It returns an error
// that wraps EOPNOTSUPP for a path that is no process's.
func groupsAt(path string) ([]idMapping, error) {
	process := processNamespace.FindStringSubmatch(path)
	if process == nil {
		return nil, unix.EOPNOTSUPP
	}
	text, err := os.ReadFile(process[1] + "/gid_map")
	if err != nil {
		return nil, err
	}
	var groups []idMapping
	for line := range strings.Lines(string(text)) {
		var m idMapping
		if _, err := fmt.Sscan(line, &m.ContainerID, &m.HostID); err != nil {
			return nil, errors.Join(fmt.Errorf("%s/gid_map: %q: %w", process[1], line, unix.EINVAL), err)
		}
		groups = append(groups, m)
	}
	return groups, nil
}
