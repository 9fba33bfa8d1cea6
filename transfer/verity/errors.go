package verity

import (
	"errors"
	"strconv"
)

var (
	// ErrNoSuperblock is returned by ParseSuperblock if the signature is missing.
	ErrNoSuperblock = errors.New("no verity superblock")
	// ErrInvalid is returned for parameters that the format does not allow, and
	// for a superblock with such parameters.
	ErrInvalid = errors.New("invalid")
	// ErrUnsupported is returned for a feature that veritysetup has and this package
	// lacks, such as another hash.
	ErrUnsupported = errors.ErrUnsupported
	// ErrTooLarge is returned if data or tree would end at 2^63 bytes or later.
	ErrTooLarge = errors.New("2^63 bytes or more")
)

// maxQuoted is the maximum length of a superblock's text in an error.
const maxQuoted = 32

// quoted returns text for an error, so that a superblock cannot write to a
// terminal.
func quoted(s string) string { return strconv.QuoteToASCII(s[:min(len(s), maxQuoted)]) }
