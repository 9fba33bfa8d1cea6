package oci

import "strings"

// engineWords puts errors of the kernel in words that podman does not look for: in
// what a runtime says it takes some for those of the container's command, and
// ends with 126 or 127 (getOCIRuntimeError in libpod/oci_util.go).
var engineWords = strings.NewReplacer(
	"no such file or directory", "not there",
	"permission denied", "access refused",
	"operation not permitted", "not allowed",
	"executable file not found in", "no program in",
)

// reworded is an error in such words.
type reworded struct{ err error }

// Reword returns an error that says the same in words that no engine takes for
// another failure, nil for nil.
func Reword(err error) error {
	if err == nil {
		return nil
	}
	return &reworded{err}
}

// Error implements error.
func (w *reworded) Error() string { return engineWords.Replace(w.err.Error()) }

// Unwrap returns the error in its own words.
func (w *reworded) Unwrap() error { return w.err }
