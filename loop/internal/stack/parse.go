package stack

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/ublk-loop/ublk-loop/transfer/table"
)

// Parse reads the text of a stack, and refuses what this package does not serve.
// keysInText allows keys in the text (table.Options).
func Parse(text []byte, keysInText bool) (*table.Stack, error) {
	if !utf8.Valid(text) {
		// The text is a string in the JSON of the state and of list.
		return nil, &table.StackError{Err: fmt.Errorf("text that is not UTF-8: %w", errors.ErrUnsupported)}
	}
	major, err := mapperMajor()
	if err != nil {
		return nil, err
	}
	s, err := table.Parse(text, table.Options{DeviceMapperMajor: major, KeysInText: keysInText})
	if err != nil {
		return nil, err
	}
	if err := checkServed(s); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// checkServed refuses too many files and disks, or keys.
func checkServed(s *table.Stack) error {
	number := 0
	for place := range table.Targets[*table.Crypt](s) {
		if number++; number > MaxCrypts {
			return place.Wrap(fmt.Errorf("more than %d lines with it: %w", MaxCrypts, table.ErrLimit))
		}
	}
	if n := verities(s); n > MaxVerity {
		return &table.StackError{Err: fmt.Errorf("%d lines with verity, more than %d: %w", n, MaxVerity, table.ErrLimit)}
	}
	if n := len(s.Devices()); n > MaxFiles {
		return &table.StackError{Err: fmt.Errorf("%d files and disks, more than %d: %w", n, MaxFiles, table.ErrLimit)}
	}
	return nil
}

// mapperMajor returns the major number of device mapper from the file /proc/devices, or 0 if
// the kernel has none.
func mapperMajor() (uint32, error) {
	text, err := os.ReadFile("/proc/devices")
	if err != nil {
		return 0, fmt.Errorf("find device mapper: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		if number, found := strings.CutSuffix(strings.TrimSpace(line), " device-mapper"); found {
			n, err := strconv.ParseUint(number, 10, 32)
			return uint32(n), err
		}
	}
	return 0, nil
}
