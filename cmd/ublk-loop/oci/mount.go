package oci

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// mount is mount(2).
func mount(source, target, fsType string, flags uintptr, data string) error {
	err := ignoreEINTR(func() error { return unix.Mount(source, target, fsType, flags, data) })
	if err != nil {
		return &os.PathError{Op: "mount " + fsType + " at", Path: target, Err: err}
	}
	return nil
}

// mountAll mounts the root directory of a container from a device, in the
// namespace of the calling thread.
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

// bindSubdir shows a directory of an image at a place. The image is not to be
// trusted with links.
func bindSubdir(image, subdir, place string) error {
	f, err := openAllowed([]string{image}, image+"/"+subdir, unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	return bind(f, place)
}

// bind shows an open directory at a place, and nothing that is mounted below
// it elsewhere later.
func bind(dir *os.File, place string) error {
	if err := mount(fmt.Sprintf("/proc/self/fd/%d", dir.Fd()), place, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	return mount("", place, "", unix.MS_PRIVATE, "")
}

// mountOverlay puts what can be written to over what cannot.
func (m *Maker) mountOverlay(r *rootfs) error {
	data := "lowerdir=" + lowerPlace + ",upperdir=" + writePlace + "/upper,workdir=" + writePlace + "/work"
	switch r.overlay.kind {
	case overlayTmpfs:
		if err := mount("ublk-loop", writePlace, "tmpfs", unix.MS_NODEV, "mode=711,size="+r.overlay.size); err != nil {
			return err
		}
	case overlayDir:
		if err := m.bindOverlay(r.overlay.dir); err != nil {
			return err
		}
		data += ",index=on" // so that a directory that is in use is refused
	}
	if err := makeUpper(lowerPlace, writePlace); err != nil {
		return err
	}
	return mount("overlay", rootPlace, "overlay", r.options.flags, data)
}

// bindOverlay shows a directory that takes writes. It is found in this
// namespace: only what is mounted there can be shown.
func (m *Maker) bindOverlay(path string) error {
	dir, err := openAllowed(m.Settings.AllowedOverlays, path, unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }()
	return bind(dir, writePlace)
}

// makeUpper makes what an overlay needs in a directory. The first is what a
// container sees of its root directory itself, so it has its mode and owner.
func makeUpper(lower, dir string) error {
	var st unix.Stat_t
	if err := unix.Stat(lower, &st); err != nil {
		return fmt.Errorf("look at %s: %w", lower, err)
	}
	if err := os.Mkdir(dir+"/work", 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	err := os.Mkdir(dir+"/upper", 0o700)
	if errors.Is(err, os.ErrExist) {
		return nil
	}
	if err == nil {
		err = os.Chown(dir+"/upper", int(st.Uid), int(st.Gid))
	}
	if err == nil {
		err = unix.Chmod(dir+"/upper", st.Mode&0o7777)
	}
	return err
}
