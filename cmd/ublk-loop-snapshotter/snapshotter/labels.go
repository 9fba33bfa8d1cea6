package snapshotter

import (
	"fmt"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/ublk-loop/ublk-loop/internal/oci"
)

// The labels that have an image file in the place of layers. containerd hands
// those on that begin with containerd.io/snapshot/.
const (
	labelPrefix = "containerd.io/snapshot/ublk-loop."
	// ImageLabel names the file by its absolute path.
	ImageLabel = labelPrefix + "image"
	// OptionsLabel says how it is mounted: read-only without it.
	OptionsLabel = labelPrefix + "options"

	// refLabel is on what is unpacked, as what it will be: containerd sets it
	// itself (unpack in core/unpack/unpacker.go, 2.2.9; since 1.6 at least), over
	// what the image says.
	refLabel = "containerd.io/snapshot.ref"
)

// image is what labels ask for.
type image struct {
	path    string
	options *oci.MountOptions
}

// imageOf returns the image that labels ask for, nil for none. It returns an
// error that wraps errdefs.ErrInvalidArgument for labels that are wrong, and
// errdefs.ErrPermissionDenied for those of a layer: its labels are annotations of
// a manifest, whose author may name no file of the host's.
func imageOf(labels map[string]string) (*image, error) {
	for key := range labels {
		if strings.HasPrefix(key, labelPrefix) && key != ImageLabel && key != OptionsLabel {
			return nil, fmt.Errorf("label %s is unknown: %w", key, errdefs.ErrInvalidArgument)
		}
	}
	path, isImage := labels[ImageLabel]
	value, hasOptions := labels[OptionsLabel]
	_, isLayer := labels[refLabel]
	switch {
	case isLayer && (isImage || hasOptions):
		return nil, fmt.Errorf("label %s*: a layer of an image cannot be a file of the host's: %w", labelPrefix, errdefs.ErrPermissionDenied)
	case hasOptions && !isImage:
		return nil, fmt.Errorf("label %s without %s: %w", OptionsLabel, ImageLabel, errdefs.ErrInvalidArgument)
	case !isImage:
		return nil, nil
	}
	options, err := oci.ParseOptions(value)
	if err != nil {
		return nil, fmt.Errorf("label %s: %w: %w", OptionsLabel, errdefs.ErrInvalidArgument, err)
	}
	return &image{path, options}, nil
}

// isImage reports whether a snapshot is of an image.
func isImage(labels map[string]string) bool { _, is := labels[ImageLabel]; return is }

// sameImage reports whether labels ask for the same.
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
