package oci

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/eintr"
	"github.com/ublk-loop/ublk-loop/internal/oci/below"
)

// mount calls mount(2).
func mount(source, target, fsType string, flags uintptr, data string) error {
	err := eintr.Repeat(func() error { return unix.Mount(source, target, fsType, flags, data) })
	if err != nil {
		return &os.PathError{Op: "mount " + fsType + " at", Path: target, Err: err}
	}
	return nil
}

// mountAll mounts the root directory of a container from a device, in the namespace of
// the calling thread.
func (m *Maker) mountAll(r *rootfs, device string, fs fileSystem) error {
	flags, data, err := r.options.forFS(fs)
	if err != nil {
		return err
	}
	place := rootPlace
	if r.overlay.kind != "" {
		place = lowerPlace
	}
	first := place
	if r.subdir != "" {
		first = imagePlace
	}
	if err := mount(device, first, fs.kind, flags, data); err != nil {
		return err
	}
	if r.subdir != "" {
		if err := bindSubdir(first, r.subdir, place); err != nil {
			return err
		}
	}
	if r.overlay.kind == "" {
		return nil
	}
	return m.mountOverlay(r)
}

// bindSubdir binds a directory of an image to a place. It follows no links, because the
// image is not trusted.
func bindSubdir(image, subdir, place string) error {
	f, err := below.OpenPath([]string{image}, image+"/"+subdir, unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	return bind(f, place)
}

// bind binds an open directory to a place. Later mounts below the directory do not appear
// at the place.
func bind(dir *os.File, place string) error {
	if err := mount(fmt.Sprintf("/proc/self/fd/%d", dir.Fd()), place, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	return mount("", place, "", unix.MS_PRIVATE, "")
}

// mountOverlay mounts an overlay with a writable directory over the read-only image.
func (m *Maker) mountOverlay(r *rootfs) error {
	dir, err := m.openOverlay(r.overlay)
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }()
	w, err := openWritable(lowerPlace, dir)
	if err != nil {
		return err
	}
	defer w.close()
	data := "lowerdir=" + lowerPlace + "," + w.data()
	if r.overlay.kind == overlayDir {
		data += ",index=on" // makes the kernel refuse a directory that is in use
	}
	return mount("overlay", rootPlace, "overlay", r.options.flags, data)
}

// openOverlay opens the directory for the overlay's writes. A directory of the host is
// opened in this namespace, because an overlay accepts no other.
func (m *Maker) openOverlay(o overlay) (*os.File, error) {
	if o.kind == overlayDir {
		return openOverlayDir(m.Settings.AllowedOverlays, o.dir)
	}
	return mountTmpfs(o.size)
}
