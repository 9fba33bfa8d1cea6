// Package newfile makes files that have no name until everything that needs them is ready. A
// process that ends before that leaves nothing behind.
package newfile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

// File is a new file.
type File struct {
	// File is open for reading and writing. Its name is the absolute path that it has, or gets
	// by Link.
	File *os.File
	// Directory is the open directory in which Link gives the file its name. It is nil if the
	// file has its name already, because the file system has no files without one.
	Directory *os.File
}

// Create makes an empty file. It returns an error that wraps EEXIST if the path exists, and as open(2)
// ENOENT or EISDIR if the path cannot be that of a file. The caller closes the file.
func Create(path string) (*File, error) {
	switch {
	case path == "":
		return nil, fmt.Errorf("create %q: %w", path, unix.ENOENT)
	case os.IsPathSeparator(path[len(path)-1]):
		return nil, fmt.Errorf("create %s: %w", path, unix.EISDIR)
	}
	directory, err := os.OpenFile(filepath.Dir(path), os.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f, err := create(directory, filepath.Base(path))
	if err != nil {
		_ = directory.Close()
		return nil, fmt.Errorf("create %s: %w", path, err)
	}
	return f, nil
}

func create(directory *os.File, name string) (*File, error) {
	defer runtime.KeepAlive(directory)
	in := int(directory.Fd())
	var st unix.Stat_t
	if err := unix.Fstatat(in, name, &st, unix.AT_SYMLINK_NOFOLLOW); !errors.Is(err, unix.ENOENT) {
		if err == nil {
			err = unix.EEXIST
		}
		return nil, err
	}
	resolved, err := os.Readlink(procPath(directory))
	if err != nil {
		return nil, err
	}
	path := filepath.Join(resolved, name)
	fd, err := unix.Openat(in, ".", unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err == nil {
		return &File{os.NewFile(uintptr(fd), path), directory}, nil
	}
	if !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EISDIR) {
		return nil, err
	}
	fd, err = unix.Openat(in, name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	f := &File{File: os.NewFile(uintptr(fd), path)}
	if err := directory.Sync(); err != nil {
		return nil, errors.Join(err, f.Remove(), f.Close())
	}
	return f, directory.Close()
}

// SyncDirectory makes the names in the directory of a new file outlive a power cut.
func SyncDirectory(path string) error {
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Replace replaces the contents of a small file that is open for writing, and writes them and its
// name to disk. It only writes to other files than regular ones.
func Replace(f *os.File, data []byte) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		_, err := f.Write(data)
		return err
	}
	if err := f.Truncate(0); err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		return err
	}
	return errors.Join(f.Sync(), SyncDirectory(f.Name()))
}

// procPath leads to the object of an open file in any mount namespace.
func procPath(f *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", f.Fd()) }

// Link gives a file its name, which also outlives a power cut. It returns an error that wraps
// EEXIST if the name exists, and does nothing for a file with a name. After an error the file
// has no name.
func (f *File) Link() error {
	if f.Directory == nil {
		return nil
	}
	defer runtime.KeepAlive(f)
	name := filepath.Base(f.File.Name())
	err := unix.Linkat(unix.AT_FDCWD, procPath(f.File), int(f.Directory.Fd()), name, unix.AT_SYMLINK_FOLLOW)
	if err != nil {
		return fmt.Errorf("create %s: %w", f.File.Name(), err)
	}
	if err := f.Directory.Sync(); err != nil {
		return errors.Join(fmt.Errorf("create %s: %w", f.File.Name(), err), f.Unlink())
	}
	return nil
}

// Unlink undoes Link.
func (f *File) Unlink() error {
	if f.Directory == nil {
		return nil
	}
	defer runtime.KeepAlive(f)
	return unlinkAt(int(f.Directory.Fd()), filepath.Base(f.File.Name()), f.File)
}

// Remove removes the file from its path.
func (f *File) Remove() error { return unlinkAt(unix.AT_FDCWD, f.File.Name(), f.File) }

// unlinkAt removes a name that leads to the file, and ignores one that does not.
func unlinkAt(directory int, name string, file *os.File) error {
	var is, there unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &is); err != nil {
		return err
	}
	err := unix.Fstatat(directory, name, &there, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) || err == nil && (there.Dev != is.Dev || there.Ino != is.Ino) {
		return nil
	}
	if err == nil {
		err = unix.Unlinkat(directory, name, 0)
	}
	if err != nil {
		return fmt.Errorf("remove %s: %w", file.Name(), err)
	}
	return nil
}

// Close closes the file. Without a name it is gone then.
func (f *File) Close() error {
	err := f.File.Close()
	if f.Directory != nil {
		err = errors.Join(err, f.Directory.Close())
	}
	return err
}
