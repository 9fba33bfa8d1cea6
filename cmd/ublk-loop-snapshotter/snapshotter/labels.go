package snapshotter

import (
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/ublk-loop/ublk-loop/internal/oci"
)

// These labels ask for an image file instead of layers. containerd passes labels on whose
// names begin with containerd.io/snapshot/.
const (
	labelPrefix = "containerd.io/snapshot/ublk-loop."
	// ImageLabel holds the absolute path of the image file.
	ImageLabel = labelPrefix + "image"
	// OptionsLabel holds the mount options. Without it the mount is read-only.
	OptionsLabel = labelPrefix + "options"
	// FSTypeLabel holds the type of the file system. Without it the type is detected.
	FSTypeLabel = labelPrefix + "fstype"

	// refLabel names the final snapshot while a layer is unpacked. containerd sets it
	// itself and overrides the image's value (unpack in core/unpack/unpacker.go, 2.2.9;
	// since 1.6 at least).
	refLabel = "containerd.io/snapshot.ref"
)

// labelNames are the names of all labels, without their prefix.
var labelNames = append([]string{"image", "options", "fstype"}, oci.DiskNames...)

// image is an image that labels ask for.
type image struct {
	path    string
	options *oci.MountOptions
	disk    oci.Disk
}

// imageOf returns the image that the labels ask for, or nil. It returns an error that
// wraps errdefs.ErrInvalidArgument if the labels are wrong. It returns an error that
// wraps errdefs.ErrPermissionDenied for labels on a layer, because these are annotations
// of a manifest, whose author must not name a file of the host.
func imageOf(labels map[string]string) (*image, error) {
	asks := ""
	for key := range labels {
		if !strings.HasPrefix(key, labelPrefix) {
			continue
		}
		if !slices.Contains(labelNames, strings.TrimPrefix(key, labelPrefix)) {
			return nil, fmt.Errorf("label %s is unknown: %w", key, errdefs.ErrInvalidArgument)
		}
		asks = key
	}
	if asks == "" {
		return nil, nil
	}
	if _, isLayer := labels[refLabel]; isLayer {
		return nil, fmt.Errorf("label %s*: a layer of an image cannot be a file of the host: %w", labelPrefix, errdefs.ErrPermissionDenied)
	}
	if !isImage(labels) {
		return nil, fmt.Errorf("label %s without %s: %w", asks, ImageLabel, errdefs.ErrInvalidArgument)
	}
	return parseImage(labels)
}

// parseImage parses the labels of an image.
func parseImage(labels map[string]string) (*image, error) {
	options, err := oci.ParseOptions(labels[OptionsLabel])
	if err != nil {
		return nil, fmt.Errorf("label %s: %w: %w", OptionsLabel, errdefs.ErrInvalidArgument, err)
	}
	if fsType, given := labels[FSTypeLabel]; given {
		if err := options.SetFileSystem(fsType); err != nil {
			return nil, fmt.Errorf("label %s: %q: %w: %w", FSTypeLabel, fsType, errdefs.ErrInvalidArgument, err)
		}
	}
	img := &image{path: labels[ImageLabel], options: options, disk: oci.Disk{ReadOnly: options.ReadOnly()}}
	values := map[string]string{}
	for _, name := range oci.DiskNames {
		if value, given := labels[labelPrefix+name]; given {
			values[name] = value
		}
	}
	if name, err := img.disk.Set(values); err != nil {
		return nil, fmt.Errorf("label %s%s: %w: %w", labelPrefix, name, errdefs.ErrInvalidArgument, err)
	}
	return img, nil
}

// isImage reports whether the labels ask for an image.
func isImage(labels map[string]string) bool { _, is := labels[ImageLabel]; return is }

// sameImage reports whether both labels ask for the same image and options.
func sameImage(a, b map[string]string) bool {
	for _, labels := range []map[string]string{a, b} {
		for key := range labels {
			x, inA := a[key]
			y, inB := b[key]
			if strings.HasPrefix(key, labelPrefix) && (x != y || inA != inB) {
				return false
			}
		}
	}
	return true
}
