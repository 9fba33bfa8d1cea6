package loop

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Files returns descriptors of the files and disks of the server's devices, by id,
// for the Recover of another process: it finds them by these though their names
// are others' by then, or nobody's. They are O_PATH, with neither lock nor claim.
// A device that is about to end may have none.
func (s *Server) Files() map[uint32]*os.File {
	files := map[uint32]*os.File{}
	for _, d := range s.all() {
		if f, err := d.dev.reopenPath(); err == nil {
			files[d.dev.ID()] = f
		}
	}
	return files
}

// reopenPath returns a descriptor for OpenPath's purposes of the device's file.
func (d *Device) reopenPath() (*os.File, error) {
	if !d.closing.TryLock() {
		return nil, fmt.Errorf("%s: about to end: %w", d.Path(), unix.ENODEV)
	}
	defer d.closing.Unlock()
	if d.removed {
		return nil, fmt.Errorf("%s: %w", d.Path(), unix.ENODEV)
	}
	fd, err := unix.Open(procPath(d.b.fd), unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s again: %w", d.b.path, err)
	}
	return os.NewFile(uintptr(fd), d.b.path), nil
}
