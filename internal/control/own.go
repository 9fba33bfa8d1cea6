package control

import (
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// useOwnMounts replaces files that came as descriptors by the same files as the server's own mounts have them.
// A descriptor belongs to a mount of the client. If the client has a mount namespace of its own, the mounts there
// go away when it ends. After that, umount(8) would not see that the file of a device is in use.
//
// A file stays if its path leads the server to another file, or to none. The client has seen its file system answer, but
// the server may have another one at the path. Therefore useOwnMounts waits for none.
func (s *Server) useOwnMounts(files []*os.File, readOnly bool) {
	for i, sent := range files {
		if own := s.openOwn(sent, readOnly); own != nil {
			_ = sent.Close()
			files[i] = own
		}
	}
}

// openOwn returns a file as the server's own mounts have it, or nil.
func (s *Server) openOwn(sent *os.File, readOnly bool) *os.File {
	if s.OpenCached == nil { // the process of a single device takes no paths
		return nil
	}
	own, err := s.OpenCached(sent.Name())
	if err != nil {
		return nil
	}
	of, err := identify(sent)
	is, ownErr := identify(own)
	if err != nil || ownErr != nil || !of.isSameFile(is) ||
		!readOnly && of.mount != is.mount && isReadOnlyMount(sent) != isReadOnlyMount(own) {
		_ = own.Close()
		return nil
	}
	return own
}

// place is what a file is, and where. In some file systems, such as those with snapshots and those of virtual machines,
// several files have the same inode number, but no two have the same handle.
type place struct {
	kind, major, minor uint32
	handleType         int32
	handle             string
	mount              uint64
}

// isSameFile reports whether two places are of the same regular file. A disk is in use whatever mount its node was found in.
func (p *place) isSameFile(other *place) bool {
	a, b := *p, *other
	a.mount, b.mount = 0, 0
	return a == b && a.kind == unix.S_IFREG
}

// handleFID is AT_HANDLE_FID of linux/fcntl.h, for a handle that only identifies a file. Every file system has these (Linux 6.5).
const handleFID = 0x200

// identify asks the kernel, but no file system, what a file is.
func identify(file *os.File) (*place, error) {
	defer runtime.KeepAlive(file)
	fd := int(file.Fd())
	var stx unix.Statx_t
	err := unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, unix.STATX_TYPE|unix.STATX_MNT_ID, &stx)
	if err != nil {
		return nil, err
	}
	handle, _, err := unix.NameToHandleAt(fd, "", unix.AT_EMPTY_PATH|handleFID)
	if err != nil {
		return nil, err
	}
	return &place{
		kind: uint32(stx.Mode) & unix.S_IFMT, major: stx.Dev_major, minor: stx.Dev_minor,
		handleType: handle.Type(), handle: string(handle.Bytes()), mount: stx.Mnt_id,
	}, nil
}

// isReadOnlyMount reports whether the mount of a file refuses writes. The server's mounts must not allow a client
// what its own mount refuses, nor refuse what that allows.
func isReadOnlyMount(file *os.File) bool {
	var mount unix.Statfs_t
	err := unix.Fstatfs(int(file.Fd()), &mount)
	runtime.KeepAlive(file)
	return err != nil || mount.Flags&unix.ST_RDONLY != 0
}
