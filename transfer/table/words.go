package table

import (
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"unicode/utf8"
)

// blank has the characters that separate words: isspace in the C locale.
const blank = " \t\n\v\f\r"

// nonBreaking is a space for the kernel (lib/ctype.c), and no space for C.
const nonBreaking = 0xa0

// words are the arguments of a target that have not been read.
type words struct {
	rest [][]byte // parts of the caller's text, because one can be a key
	opts *Options
}

// atLeast refuses fewer than n arguments.
func (w *words) atLeast(n int) error {
	if len(w.rest) < n {
		return fmt.Errorf("%d arguments, fewer than %d: %w", len(w.rest), n, ErrInvalid)
	}
	return nil
}

// exactly refuses another number of arguments than n.
func (w *words) exactly(n int) error {
	if len(w.rest) != n {
		return fmt.Errorf("%d arguments, not %d: %w", len(w.rest), n, ErrInvalid)
	}
	return nil
}

// next returns the next argument, which is not a key. The caller has checked
// that there is one.
func (w *words) next() string { return string(w.nextSecret()) }

// nextSecret returns the next argument without a copy.
func (w *words) nextSecret() []byte {
	b := w.rest[0]
	w.rest = w.rest[1:]
	return b
}

// number returns the next argument, a number of at most the given bits.
func (w *words) number(what string, bits int) (uint64, error) {
	s := w.next()
	n, err := parseNumber(s, bits)
	if err != nil {
		return 0, badArgument(what, s, err)
	}
	return n, nil
}

// location returns the next two arguments: a device and a sector of it.
func (w *words) location() (Location, error) {
	s := w.next()
	device, err := normalDevice(s)
	if err != nil {
		return Location{}, badArgument("device", s, err)
	}
	start, err := w.number("start", 64)
	return Location{device, start}, err
}

// parseNumber reads a decimal number without a sign.
func parseNumber(s string, bits int) (uint64, error) {
	if !isDigits(s) {
		return 0, fmt.Errorf("not a decimal number: %w", ErrInvalid)
	}
	n, err := strconv.ParseUint(s, 10, bits)
	if err != nil {
		return 0, fmt.Errorf("number too large: %w", ErrInvalid)
	}
	return n, nil
}

// The largest device numbers of the kernel (MINORBITS in linux/kdev_t.h).
const (
	maxMajor = 1<<12 - 1
	maxMinor = 1<<20 - 1
)

// DeviceNumber returns the numbers of a device that is MAJOR:MINOR; ok is
// false for a path.
func DeviceNumber(device string) (major, minor uint32, ok bool) {
	left, right, _ := strings.Cut(device, ":")
	a, errA := strconv.ParseUint(left, 10, 32)
	b, errB := strconv.ParseUint(right, 10, 32)
	return uint32(a), uint32(b), errA == nil && errB == nil && a <= maxMajor && b <= maxMinor
}

// normalDevice checks a device and returns numbers without leading zeroes. It
// returns EOVERFLOW for numbers that the kernel cannot have, as the kernel
// does (dm_devt_from_path in drivers/md/dm-table.c).
func normalDevice(s string) (string, error) {
	left, right, _ := strings.Cut(s, ":")
	if !isDigits(left) || !isDigits(right) {
		return s, nil
	}
	major, minor, ok := DeviceNumber(s)
	if !ok {
		return "", fmt.Errorf("device number too large: %w", syscall.EOVERFLOW)
	}
	return fmt.Sprintf("%d:%d", major, minor), nil
}

// isDigits reports whether a text has digits, and nothing else.
func isDigits(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }

// checkWord refuses characters that would mean different things to dmsetup, to
// the kernel and to a terminal.
func checkWord(b []byte) error {
	for _, c := range b {
		switch {
		case c < ' ' || c == 0x7f:
			return fmt.Errorf("control character %#02x: %w", c, ErrInvalid)
		case c == nonBreaking:
			return fmt.Errorf("byte 0xa0, at which the kernel splits arguments: %w", ErrInvalid)
		}
	}
	return nil
}

// IsWord reports whether a text can be an argument of a line: it is UTF-8 without white space,
// control characters, the start of a comment (#), and the byte 0xa0, which is white space for the
// kernel.
func IsWord(text string) bool {
	return text != "" && !strings.ContainsAny(text, blank+"#") && utf8.ValidString(text) && checkWord([]byte(text)) == nil
}

// FileWord returns the argument that stands for a file or disk: its path, or another word if a line
// cannot have the path, or has it for a table of the stack.
func FileWord(path, other string) string {
	if !IsWord(path) || strings.HasPrefix(path, mapperDirectory) {
		return other
	}
	return path
}
