package driver

import (
	"path/filepath"
	"slices"
	"strings"

	csi "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ublk-loop/ublk-loop/cmd/ublk-loop-csi/mounts"
	"github.com/ublk-loop/ublk-loop/cmd/ublk-loop-csi/pool"
)

const (
	// maxName is the maximum length of a name (spec.md, "Size Limits").
	maxName = 128
	// maxPath is the maximum length of a path in the kernel.
	maxPath = 4096

	defaultFSType = "ext4"
	defaultSize   = 1 << 30
	// sizeUnit divides the size of every volume, so that disks with large sectors can hold it.
	sizeUnit = 4096
)

// Parameters of a StorageClass. Kubernetes adds parameters of its own with a prefix.
const (
	kubernetesPrefix      = "csi.storage.k8s.io/"
	provisioningParameter = "provisioning"
	directIOParameter     = "directIO"
	encryptionParameter   = "encryption"
	layersParameter       = "snapshotsInUse"
)

func checkName(name string) error {
	switch {
	case name == "":
		return invalid("name: it is empty")
	case len(name) > maxName:
		return invalid("name: it has more than %d bytes", maxName)
	}
	return nil
}

func checkPath(field, path string) error {
	switch {
	case path == "":
		return invalid("%s: it is empty", field)
	case !filepath.IsAbs(path) || filepath.Clean(path) != path || len(path) >= maxPath:
		return invalid("%s: %q is not a clean absolute path", field, path)
	}
	return nil
}

// parseParameters returns the settings that a StorageClass asks for.
func parseParameters(parameters map[string]string) (pool.Settings, error) {
	s := pool.Settings{DirectIO: "auto"}
	for name, value := range parameters {
		allowed := map[string][]string{
			provisioningParameter: {"thin", "thick"},
			directIOParameter:     {"auto", "on", "off"},
			encryptionParameter:   {"none", "luks2"},
			layersParameter:       {"reflink", "layers"},
		}[name]
		switch {
		case strings.HasPrefix(name, kubernetesPrefix):
			continue
		case allowed == nil:
			return s, invalid("parameters: %q is unknown", name)
		case !slices.Contains(allowed, value):
			return s, invalid("parameters: %s: %q is not one of %s", name, value, strings.Join(allowed, ", "))
		}
	}
	s.Thick = parameters[provisioningParameter] == "thick"
	s.Encrypted = parameters[encryptionParameter] == "luks2"
	s.Layered = parameters[layersParameter] == "layers"
	if s.Layered && s.Encrypted {
		return s, invalid("parameters: %s: not with %s: an encrypted volume gets its layers with its first copy", layersParameter, encryptionParameter)
	}
	if v := parameters[directIOParameter]; v != "" {
		s.DirectIO = v
	}
	return s, nil
}

// useRequest is a request to use a volume.
type useRequest interface {
	GetVolumeId() string
	GetVolumeCapability() *csi.VolumeCapability
}

// checkUse returns why a volume cannot be used as a request says, in the path of its field.
func checkUse(req useRequest, field, path string) error {
	if req.GetVolumeId() == "" {
		return invalid("volume_id: it is empty")
	}
	if err := checkPath(field, path); err != nil {
		return err
	}
	c := req.GetVolumeCapability()
	if c == nil {
		return invalid("volume_capability: it is empty")
	}
	return checkCapability("volume_capability", c)
}

// checkCapability returns why a volume cannot be used in a way.
func checkCapability(field string, c *csi.VolumeCapability) error {
	switch mode := c.GetAccessMode().GetMode(); mode {
	case csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER,
		csi.VolumeCapability_AccessMode_SINGLE_NODE_READER_ONLY,
		csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER,
		csi.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER:
	default:
		return invalid("%s.access_mode: %s is not supported: a volume is on one node", field, mode)
	}
	switch {
	case c.GetBlock() != nil:
		return nil
	case c.GetMount() == nil:
		return invalid("%s: neither block nor mount is set", field)
	}
	return checkFSType(field+".mount.fs_type", c.GetMount().GetFsType())
}

func checkFSType(field, fsType string) error {
	if fsType != "" && mounts.MinBytes(fsType) == 0 {
		return invalid("%s: %q is not supported; ext4 and xfs are", field, fsType)
	}
	return nil
}

// fsTypeOf returns the file system that a capability asks for, empty for a block volume.
func fsTypeOf(c *csi.VolumeCapability) string {
	switch {
	case c.GetBlock() != nil:
		return ""
	case c.GetMount().GetFsType() == "":
		return defaultFSType
	}
	return c.GetMount().GetFsType()
}

// chooseSize returns a size within a range, at least least. If the range requires no size, it
// is standard, or less if the range has a limit.
func chooseSize(r *csi.CapacityRange, least, standard int64) (int64, error) {
	required, limit := r.GetRequiredBytes(), r.GetLimitBytes()
	if required < 0 || limit < 0 || limit > 0 && required > limit {
		return 0, invalid("capacity_range: required_bytes %d, limit_bytes %d", required, limit)
	}
	size := required
	if required == 0 {
		size = standard
		if limit > 0 {
			size = min(size, limit/sizeUnit*sizeUnit)
		}
	}
	size = max(size, least, sizeUnit)
	if size > 1<<62 {
		return 0, status.Errorf(codes.OutOfRange, "capacity_range.required_bytes: %d is too large", required)
	}
	size = (size + sizeUnit - 1) / sizeUnit * sizeUnit
	if limit > 0 && size > limit {
		return 0, status.Errorf(codes.OutOfRange, "capacity_range.limit_bytes: the smallest possible volume has %d bytes, the limit is %d", size, limit)
	}
	return size, nil
}

// conflicts reports whether a volume is published at a target already, or why it must not
// be (spec.md, "NodePublishVolume").
func conflicts(v *pool.Volume, want *pool.Publication) (known bool, err error) {
	multi := csi.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER.String()
	single := csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER.String()
	for i := range v.Publications {
		is := &v.Publications[i]
		switch {
		case is.Target != want.Target:
			if want.Mode != multi || is.Mode == single {
				err = status.Errorf(codes.FailedPrecondition, "target_path: volume %q is published at %s", v.ID, is.Target)
			}
		case is.ReadOnly == want.ReadOnly && is.Mode == want.Mode && is.Block == want.Block && slices.Equal(is.Options, want.Options):
			return true, nil
		default:
			return false, status.Errorf(codes.AlreadyExists, "target_path: volume %q is published there with another volume_capability or readonly", v.ID)
		}
	}
	return false, err
}
