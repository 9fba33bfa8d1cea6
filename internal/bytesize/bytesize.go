// Package bytesize reads and writes numbers of bytes as losetup(8) does.
package bytesize

import (
	"errors"
	"fmt"
	"math"
	"math/bits"
	"strconv"
	"strings"
)

// unitLetters are the units of sizes, each a thousand of the one before it, or
// 1024. The next would be more than a size can be.
const unitLetters = "KMGTPE"

// Why a text is not a size.
var (
	errEmpty    = errors.New("empty")
	errNegative = errors.New("negative")
	errNumber   = errors.New("not a number of bytes")
	errTooLarge = errors.New("2^63 bytes or more")
)

// Parse returns the bytes that a text stands for: a decimal number and
// nothing else, or K, M, G, T, P, E or KiB, MiB, … for powers of 1024, or KB,
// MB, … for powers of 1000, as losetup(8) takes them.
func Parse(text string) (uint64, error) {
	digits := len(text) - len(strings.TrimLeft(text, "0123456789"))
	switch {
	case text == "":
		return 0, errEmpty
	case text[0] == '-':
		return 0, errNegative
	case digits == 0:
		return 0, errNumber
	}
	factor, err := unitFactor(text[digits:])
	if err != nil {
		return 0, err
	}
	number, err := strconv.ParseUint(text[:digits], 10, 64)
	if err != nil {
		return 0, errTooLarge // digits only: nothing else can be wrong
	}
	high, bytes := bits.Mul64(number, factor)
	if high != 0 || bytes > math.MaxInt64 {
		return 0, errTooLarge
	}
	return bytes, nil
}

// unitFactor returns what a unit multiplies by.
func unitFactor(unit string) (uint64, error) {
	if unit == "" {
		return 1, nil
	}
	power := strings.IndexByte(unitLetters, unit[0]&^0x20) + 1
	base := uint64(1024)
	switch strings.ToLower(unit[1:]) {
	case "", "ib":
	case "b":
		base = 1000
	default:
		power = 0
	}
	if power == 0 {
		return 0, fmt.Errorf("unknown unit %q", unit)
	}
	factor := uint64(1)
	for range power {
		factor *= base
	}
	return factor, nil
}

// Format returns the shortest text that Parse makes the same number
// of, in powers of 1024.
func Format(bytes uint64) string {
	unit := ""
	for i := range unitLetters {
		if bytes == 0 || bytes%1024 != 0 {
			break
		}
		bytes /= 1024
		unit = unitLetters[i : i+1]
	}
	return strconv.FormatUint(bytes, 10) + unit
}
