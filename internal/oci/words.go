package oci

import "strings"

// words puts errors of the kernel in words that podman does not look for: in
// what a runtime says it takes some for those of the container's command, and
// ends with 126 or 127 (getOCIRuntimeError in libpod/oci_util.go).
var words = strings.NewReplacer(
	"no such file or directory", "not there",
	"permission denied", "access refused",
	"operation not permitted", "not allowed",
	"executable file not found in", "no program in",
)

// worded is an error in such words.
type worded struct{ err error }

// Worded returns an error that says the same in words that no engine takes for
// another failure, nil for nil.
func Worded(err error) error {
	if err == nil {
		return nil
	}
	return &worded{err}
}

// Error implements error.
func (w *worded) Error() string { return words.Replace(w.err.Error()) }

// Unwrap returns the error in its own words.
func (w *worded) Unwrap() error { return w.err }
