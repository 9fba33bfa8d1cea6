package snapshot

import (
	"fmt"
	"syscall"
)

// Errors of this package. Each is also an errno: the one that the kernel returns if the
// kernel refuses the same store.
var (
	// ErrNoStore is returned for a header without the signature of a store.
	ErrNoStore = newError("no snapshot store", syscall.ENXIO)
	// ErrNew is returned for a header whose signature is 0. The kernel makes a new store
	// there.
	ErrNew = newError("no snapshot store: it begins with zeros", syscall.ENXIO)
	// ErrNotEmpty is returned if a new store would overwrite data.
	ErrNotEmpty = newError("neither a snapshot store nor empty", syscall.ENXIO)
	// ErrVersion is returned for a version other than 1.
	ErrVersion = newError("unsupported version", syscall.EINVAL)
	// ErrChunkSize is returned for a chunk size outside the limits, or that is no
	// power of 2.
	ErrChunkSize = newError("invalid chunk size", syscall.EINVAL)
	// ErrTooLarge is returned for an origin or a store whose chunks cannot be numbered
	// with 31 bits.
	ErrTooLarge = newError("too many chunks", syscall.EFBIG)
	// ErrTooSmall is returned for a store without room for a single chunk of data.
	ErrTooSmall = newError("store too small", syscall.EINVAL)
	// ErrFull is returned if the store has no free chunk.
	ErrFull = newError("snapshot store is full", syscall.ENOSPC)

	// ErrOldRange is the cause of a RecordError: the origin has no such chunk.
	ErrOldRange = newError("old chunk is outside the origin", syscall.EINVAL)
	// ErrNewRange is the cause of a RecordError: the store has no such chunk.
	ErrNewRange = newError("new chunk is outside the store", syscall.EINVAL)
	// ErrMetadata is the cause of a RecordError: the new chunk is the header or an area.
	ErrMetadata = newError("new chunk has metadata", syscall.EINVAL)
	// ErrDuplicateOld is the cause of a RecordError: an earlier record has the old chunk.
	ErrDuplicateOld = newError("old chunk has two records", syscall.EINVAL)
	// ErrDuplicateNew is the cause of a RecordError: an earlier record has the new chunk.
	ErrDuplicateNew = newError("new chunk has two records", syscall.EINVAL)
	// ErrVerity is returned for a merge into an origin that is checked when it is read.
	ErrVerity = newError("the base is checked against a hash tree of verity, which would not match it after a merge", syscall.EPERM)
	// ErrNoArea is the cause of a RecordError: the area is full, and the store ends before
	// the next area.
	ErrNoArea = newError("the next area is outside the store", syscall.EINVAL)
)

// snapshotError is an error that is also an errno.
type snapshotError struct {
	text  string
	errno syscall.Errno
}

func newError(text string, errno syscall.Errno) error { return &snapshotError{text, errno} }

func (e *snapshotError) Error() string { return e.text }

func (e *snapshotError) Is(target error) bool { return target == e.errno }

// RecordError says which record of a store is wrong.
type RecordError struct {
	Area   uint64 // number of the area, from 0
	Record uint32 // number of the record in its area, from 0
	Old    uint64
	New    uint64
	Err    error // the cause
}

// Error returns one line.
func (e *RecordError) Error() string {
	return fmt.Sprintf("area %d: record %d: old chunk %d, new chunk %d: %v", e.Area, e.Record, e.Old, e.New, e.Err)
}

// Unwrap returns the cause.
func (e *RecordError) Unwrap() error { return e.Err }
