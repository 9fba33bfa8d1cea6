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
// A file stays if its path leads the server to another file, or to none.
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
	if s.Open == nil { // the process of a single device takes no paths
		return nil
	}
	own, err := s.Open(sent.Name())
	if err != nil {
		return nil
	}
	if !isSameFile(own, sent) || !readOnly && isReadOnlyMount(sent) && !isReadOnlyMount(own) {
		_ = own.Close()
		return nil
	}
	return own
}

// isSameFile reports whether two descriptors are of the same regular file. A disk is in use whatever mount its
// node was found in.
func isSameFile(a, b *os.File) bool {
	of, err := a.Stat()
	if err != nil || !of.Mode().IsRegular() {
		return false
	}
	other, err := b.Stat()
	return err == nil && os.SameFile(of, other)
}

// isReadOnlyMount reports whether the mount of a file refuses writes. The server's mounts must not allow a client
// what its own mount refuses.
func isReadOnlyMount(file *os.File) bool {
	var mount unix.Statfs_t
	err := unix.Fstatfs(int(file.Fd()), &mount)
	runtime.KeepAlive(file)
	return err != nil || mount.Flags&unix.ST_RDONLY != 0
}
