package oci

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/flock"
	"github.com/ublk-loop/ublk-loop/internal/oci/owners"
)

// bundle is a container's config.json, with its directory.
type bundle struct {
	dir    *os.File
	name   string // file name in dir
	text   []byte
	config *config     // parsed text
	owners []uint32    // the users who can change the text
	stat   unix.Stat_t // of the file with the text
}

// configName is the name of a bundle's configuration.
const configName = "config.json"

// openBundle reads the bundle of a call. It returns nil without an error if the bundle cannot be read, because the runtime then
// reports the error. A configuration that only the runtime may understand is an error if it names an image, or is too large
// to tell: crun accepts comments, for example, and the container must not start without its image.
func openBundle(c *call) (*bundle, error) {
	// Neither path is cleaned, because the kernel follows a link before "..", and so does the runtime.
	dirPath, name := c.bundle, configName
	if c.config != "" && c.config != configName { // crun looks for this very text in the bundle, and for other names in its directory
		dirPath, name = filepath.Split(c.config)
	}
	dir, users, err := owners.Open(dirPath)
	if err != nil {
		return nil, nil //nolint:nilerr // the runtime reports it
	}
	b := &bundle{dir: dir, name: name}
	if err := b.read(users); err != nil {
		b.close()
		if errors.Is(err, unix.EFBIG) || bytes.Contains(b.text, []byte(imageAnnotation)) {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		return nil, nil
	}
	return b, nil
}

// read reads the configuration. users are those of the directory.
func (b *bundle) read(users owners.Users) error {
	fd, err := unix.Openat(int(b.dir.Fd()), b.name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), b.name)
	defer func() { _ = f.Close() }()
	if b.text, err = readConfig(f); err != nil {
		return err
	}
	if b.config, err = parseConfig(b.text); err != nil {
		return err
	}
	if err := unix.Fstat(fd, &b.stat); err != nil {
		return err
	}
	users.Add(&b.stat)
	b.owners = users.List()
	return nil
}

func (b *bundle) close() { _ = b.dir.Close() }

// edit edits the configuration.
func (b *bundle) edit(edit func(object) error) error {
	text, err := editConfig(b.text, edit)
	if err == nil {
		err = b.write(text)
	}
	if err != nil {
		return fmt.Errorf("change %s: %w", b.name, err)
	}
	return nil
}

// restore restores the original config.json.
func (b *bundle) restore() error { return b.write(b.text) }

// write replaces the configuration atomically. The directory is locked meanwhile, so that
// the name of the new file can be fixed. Therefore a killed writer leaves at most one
// such file.
func (b *bundle) write(text []byte) error {
	dir := int(b.dir.Fd())
	if err := flock.Exclusive(b.dir, lockPatience); err != nil {
		return err
	}
	defer func() { _ = unix.Flock(dir, unix.LOCK_UN) }()
	var old unix.Stat_t
	if err := unix.Fstatat(dir, b.name, &old, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("stat: %w", err)
	}
	if old.Mode&unix.S_IFMT != unix.S_IFREG {
		return fmt.Errorf("not a regular file: %w", unix.EINVAL)
	}
	temporary := "." + b.name + ".ublk-loop"
	// The owner of the directory may have made the name a link to another user's program.
	err := writeLike(dir, temporary, &b.stat, text)
	if err == nil {
		err = unix.Renameat(dir, temporary, dir, b.name)
	}
	if err != nil {
		_ = unix.Unlinkat(dir, temporary, 0)
		return err
	}
	return unix.Fsync(dir)
}

// writeLike makes a file with the owner and mode of another.
func writeLike(dir int, name string, other *unix.Stat_t, text []byte) error {
	if err := unix.Unlinkat(dir, name, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	fd, err := unix.Openat(dir, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), name)
	_, err = io.Copy(f, bytes.NewReader(text))
	if err == nil {
		err = f.Chown(int(other.Uid), int(other.Gid))
	}
	if err == nil {
		err = unix.Fchmod(fd, other.Mode&0o7777)
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}
