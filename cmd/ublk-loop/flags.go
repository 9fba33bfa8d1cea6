package main

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/ublk-loop/ublk-loop/internal/bytesize"
	"github.com/ublk-loop/ublk-loop/loop"
	"github.com/ublk-loop/ublk-loop/transfer/snapshot"
)

// This file has the types of flags, and the functions that parse their values. They refuse the values
// that a device would refuse.

// parsedFlag is a flag whose value a function parses.
type parsedFlag[T any] struct {
	value *T
	parse func(string) (T, error)
	kind  string
}

// parsed returns a parsedFlag. kind stands for its value in the help.
func parsed[T any](value *T, parse func(string) (T, error), kind string) pflag.Value {
	return parsedFlag[T]{value, parse, kind}
}

// Set implements pflag.Value.
func (f parsedFlag[T]) Set(text string) error {
	v, err := f.parse(text)
	if err == nil {
		*f.value = v
	}
	return err
}

// String implements pflag.Value. The usage of the flag says what its default is.
func (f parsedFlag[T]) String() string { return "" }

// Type implements pflag.Value.
func (f parsedFlag[T]) Type() string { return f.kind }

// choiceFlag is one of several words.
type choiceFlag[T ~string] struct {
	value *T
	words []T
}

func switchFlag(value *loop.Switch) pflag.Value {
	return choiceFlag[loop.Switch]{value, []loop.Switch{loop.SwitchAuto, loop.SwitchOn, loop.SwitchOff}}
}

func onCrashFlag(value *loop.OnCrash) pflag.Value {
	return choiceFlag[loop.OnCrash]{value, []loop.OnCrash{loop.CrashFail, loop.CrashRequeue, loop.CrashReissue}}
}

// Set implements pflag.Value.
func (f choiceFlag[T]) Set(text string) error {
	if !slices.Contains(f.words, T(text)) {
		last := len(f.words) - 1
		return fmt.Errorf("not %s or %s", join(f.words[:last], ", "), f.words[last])
	}
	*f.value = T(text)
	return nil
}

// String implements pflag.Value.
func (f choiceFlag[T]) String() string { return string(*f.value) }

// Type implements pflag.Value.
func (f choiceFlag[T]) Type() string { return join(f.words, "|") }

// join is strings.Join for other types.
func join[T ~string](words []T, separator string) string {
	texts := make([]string, len(words))
	for i, word := range words {
		texts[i] = string(word)
	}
	return strings.Join(texts, separator)
}

// durationFlag is a time.
type durationFlag struct{ time *time.Duration }

// Set implements pflag.Value.
func (f durationFlag) Set(text string) error {
	d, err := time.ParseDuration(text)
	if err != nil {
		return errors.New("not a time, such as 500ms, 10s or 1m")
	}
	*f.time = d
	return nil
}

// String implements pflag.Value.
func (f durationFlag) String() string {
	if *f.time == 0 {
		return ""
	}
	return f.time.String()
}

// Type implements pflag.Value.
func (f durationFlag) Type() string { return "TIME" }

// filledFlag is a text that is not empty. An empty one is usually a variable of a script that is not set.
type filledFlag struct{ text *string }

// filledVar adds a filledFlag, which has the value of text before it is given.
func filledVar(flags *pflag.FlagSet, text *string, name, usage string) {
	flags.Var(filledFlag{text}, name, usage)
}

// Set implements pflag.Value.
func (f filledFlag) Set(text string) error {
	if text == "" {
		return errors.New("it is empty")
	}
	*f.text = text
	return nil
}

// String implements pflag.Value.
func (f filledFlag) String() string { return *f.text }

// Type implements pflag.Value.
func (f filledFlag) Type() string { return "string" }

// sizeFlag is a number of bytes, with an optional unit.
func sizeFlag(bytes *uint64) pflag.Value { return parsed(bytes, bytesize.Parse, "BYTES") }

// optionalSizeFlag is a number of bytes that differs from not given if it is 0.
func optionalSizeFlag(bytes **uint64) pflag.Value {
	return parsed(bytes, func(text string) (*uint64, error) {
		n, err := bytesize.Parse(text)
		return &n, err
	}, "BYTES")
}

// parseSizeWithin parses a number of bytes from low to high, a multiple of unit.
func parseSizeWithin(text string, low, high, unit uint32) (uint32, error) {
	bytes, err := bytesize.Parse(text)
	switch {
	case err != nil:
		return 0, err
	case bytes < uint64(low) || bytes > uint64(high):
		return 0, fmt.Errorf("not from %s to %s", bytesize.Format(uint64(low)), bytesize.Format(uint64(high)))
	case bytes%uint64(unit) != 0:
		return 0, fmt.Errorf("not a multiple of %s", bytesize.Format(uint64(unit)))
	}
	return uint32(bytes), nil
}

// parseChunk parses the size of a chunk of a store.
func parseChunk(text string) (uint32, error) {
	bytes, err := parseSizeWithin(text, snapshot.MinChunkSize, snapshot.MaxChunkSize, 1)
	if err != nil {
		return 0, err
	}
	if _, err := snapshot.NewLayout(bytes); err != nil {
		return 0, errors.New("not a power of 2")
	}
	return bytes, nil
}

// parseSector parses the size of a logical block.
func parseSector(text string) (uint32, error) {
	bytes, err := bytesize.Parse(text)
	if err != nil {
		return 0, err
	}
	switch bytes {
	case 512, 1024, 2048, 4096:
		return uint32(bytes), nil
	}
	return 0, fmt.Errorf("not 512, 1024, 2048 or 4096")
}

// countFlag is a number from 1 to high.
func countFlag(count *int, high int) pflag.Value {
	return parsed(count, func(text string) (int, error) {
		n, err := parseNumber(text, high)
		if err != nil || n == 0 {
			return 0, fmt.Errorf("not a number from 1 to %d", high)
		}
		return n, nil
	}, "N")
}

// parseNewID parses the number for a new device.
func parseNewID(text string) (*uint32, error) {
	number, err := parseNumber(text, maxID)
	if err != nil {
		return nil, fmt.Errorf("not a number from 0 to %d", maxID)
	}
	id := uint32(number)
	return &id, nil
}

// parseFD parses the number of an open file descriptor.
func parseFD(text string) (int, error) {
	fd, err := parseNumber(text, math.MaxInt32)
	if err != nil {
		return 0, fmt.Errorf("not the number of a descriptor")
	}
	return fd, nil
}

// parseNumber parses a decimal number up to high, without a sign.
func parseNumber(text string, high int) (int, error) {
	if strings.Trim(text, "0123456789") != "" {
		return 0, strconv.ErrSyntax
	}
	number, err := strconv.ParseUint(text, 10, 64)
	if err == nil && number > min(uint64(high), math.MaxInt32) {
		err = strconv.ErrRange
	}
	return int(number), err
}
