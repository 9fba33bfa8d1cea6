package oci

import "strings"

// engineWords replaces the kernel's words for some errors. podman searches a runtime's
// messages for these words, takes the error for one of the container's command, and exits
// with 126 or 127 (getOCIRuntimeError in libpod/oci_util.go).
var engineWords = strings.NewReplacer(
	"no such file or directory", "not there",
	"permission denied", "access refused",
	"operation not permitted", "not allowed",
	"executable file not found in", "no program in",
)

// reworded is an error with replaced words.
type reworded struct{ err error }

// Reword returns an error with the same meaning, in words that no engine takes for
// another failure. It returns nil for nil.
func Reword(err error) error {
	if err == nil {
		return nil
	}
	return &reworded{err}
}

// Error implements error.
func (w *reworded) Error() string { return engineWords.Replace(w.err.Error()) }

// Unwrap returns the original error.
func (w *reworded) Unwrap() error { return w.err }
