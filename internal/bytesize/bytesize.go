// Package bytesize parses and formats numbers of bytes as losetup(8) does.
package bytesize

import (
	"errors"
	"fmt"
	"math"
	"math/bits"
	"strconv"
	"strings"
)

// unitLetters are the units of sizes. Each unit is 1000 or 1024 times the one before it.
// The next unit would exceed the maximum size.
const unitLetters = "KMGTPE"

// These errors say why a text is not a size.
var (
	errEmpty    = errors.New("empty")
	errNegative = errors.New("negative")
	errNumber   = errors.New("not a number of bytes")
	errFraction = errors.New("not a whole number: take a smaller unit")
	errTooLarge = errors.New("2^63 bytes or more")
)

// Parse parses a number of bytes: a decimal number, with an optional unit. K, M, G, T, P,
// E and KiB, MiB, … are powers of 1024, and KB, MB, … are powers of 1000, as in
// losetup(8).
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
		return 0, errTooLarge // the number has only digits, so that it must be too large
	}
	high, bytes := bits.Mul64(number, factor)
	if high != 0 || bytes > math.MaxInt64 {
		return 0, errTooLarge
	}
	return bytes, nil
}

// unitFactor returns the number of bytes of a unit.
func unitFactor(unit string) (uint64, error) {
	switch {
	case unit == "":
		return 1, nil
	case unit[0] == '.' || unit[0] == ',':
		return 0, errFraction
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

// Format returns the shortest text in powers of 1024 that Parse turns into the same
// number.
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
