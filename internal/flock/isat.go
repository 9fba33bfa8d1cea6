package flock

import "os"

// IsAt reports whether an open file is the one at a path. If the holder of a lock removes its file, one that has
// waited for the lock finds that it has locked a file that is no longer there, and has to try again. A link at the
// path is another file.
func IsAt(f *os.File, path string) bool {
	is, err := f.Stat()
	if err != nil {
		return false
	}
	there, err := os.Lstat(path)
	return err == nil && os.SameFile(is, there)
}
