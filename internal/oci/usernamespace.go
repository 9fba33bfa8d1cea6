package oci

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/jsontext"
	"github.com/ublk-loop/ublk-loop/internal/mountpoint"
)

// userNamespace is a container's user namespace, in which root is an ordinary user of the
// host.
type userNamespace struct {
	path   string // path of an existing namespace, "" if the runtime makes a new one
	groups []idMapping
}

// idMapping maps ids of a user namespace to ids of the host. It omits the number of ids.
type idMapping struct {
	ContainerID uint32 `json:"containerID"`
	HostID      uint32 `json:"hostID"`
}

// namespaces holds the container's namespaces, as far as this package needs them.
type namespaces struct {
	Namespaces []struct {
		Type string `json:"type"`
		Path string `json:"path"` // path of an existing namespace, "" for a new one
	} `json:"namespaces"`
	GIDMappings []idMapping `json:"gidMappings"`
}

func (c *config) namespaces() (*namespaces, error) {
	n := &namespaces{}
	if len(c.Linux) > 0 {
		if err := json.Unmarshal(c.Linux, n); err != nil {
			return nil, fmt.Errorf("read the configuration: linux: %w", jsontext.Explain(err))
		}
	}
	return n, nil
}

// userNamespace returns the container's user namespace, or nil if the container has none.
func (c *config) userNamespace() (*userNamespace, error) {
	linux, err := c.namespaces()
	if err != nil {
		return nil, err
	}
	for _, n := range linux.Namespaces {
		if n.Type == "user" {
			return &userNamespace{n.Path, linux.GIDMappings}, nil
		}
	}
	return nil, nil
}

// checkMountNamespace refuses a container that joins an existing mount namespace, because
// the image is not mounted there. It returns an error that wraps EOPNOTSUPP.
func (c *config) checkMountNamespace() error {
	linux, err := c.namespaces()
	if err != nil {
		return err
	}
	for _, n := range linux.Namespaces {
		if n.Type == "mount" && n.Path != "" {
			return fmt.Errorf("the container joins the mount namespace %s, where the image is not mounted: %w", n.Path, unix.EOPNOTSUPP)
		}
	}
	return nil
}

// checkMappedRoot refuses a container whose root directory the engine shows with other
// owners (podman --rootfs DIR:idmap), because the image would keep its owners. bundle is
// the directory of relative paths. It returns an error that wraps EOPNOTSUPP.
func (c *config) checkMappedRoot(bundle string) error {
	root := c.Root.Path
	if !filepath.IsAbs(root) {
		root = filepath.Join(bundle, root)
	}
	is, err := mountpoint.IsIdmapped(root)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return nil // The image takes the place of the directory, which need not exist.
	}
	if err != nil {
		return err
	}
	if is {
		return fmt.Errorf("the root directory %s is in an idmapped mount, and the owners in an image cannot be mapped: %w", root, unix.EOPNOTSUPP)
	}
	return nil
}

// rootGroup returns the host's group for group 0 of the namespace. It returns an error
// that wraps EOPNOTSUPP if the group is unknown.
func (u *userNamespace) rootGroup() (int, error) {
	groups := u.groups
	if u.path != "" {
		// The configuration does not describe an existing namespace: podman does not know
		// it either, and writes that 0 maps to 0.
		var err error
		if groups, err = groupsAt(u.path); err != nil {
			return 0, fmt.Errorf("the root group of the user namespace %s is unknown, use ublk-runc or ublk-crun: %w", u.path, err)
		}
	}
	i := slices.IndexFunc(groups, func(m idMapping) bool { return m.ContainerID == 0 && m.HostID != math.MaxUint32 })
	if i < 0 {
		return 0, fmt.Errorf("the user namespace has no group 0, use ublk-runc or ublk-crun: %w", unix.EOPNOTSUPP)
	}
	return int(groups[i].HostID), nil
}

// processNamespace matches the path of a process's user namespace (proc_pid_ns(5)).
var processNamespace = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^(/proc/[1-9][0-9]*)/ns/user$`) })

// groupsAt returns the group mappings of the user namespace at a path. It returns an
// error that wraps EOPNOTSUPP if the path does not name a process's namespace.
func groupsAt(path string) ([]idMapping, error) {
	process := processNamespace().FindStringSubmatch(path)
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
