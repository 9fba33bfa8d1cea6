package main

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/ublk-loop/ublk-loop/internal/bytesize"
	"github.com/ublk-loop/ublk-loop/loop"
)

// This file has the types of add's flags. Each type refuses the values that the device
// would refuse.

// sizeFlag is a number of bytes, with an optional unit.
type sizeFlag struct{ bytes *uint64 }

var _ pflag.Value = sizeFlag{}

// Set implements pflag.Value.
func (f sizeFlag) Set(text string) error {
	bytes, err := bytesize.Parse(text)
	*f.bytes = bytes
	return err
}

// String implements pflag.Value.
func (f sizeFlag) String() string {
	if f.bytes == nil || *f.bytes == 0 {
		return ""
	}
	return bytesize.Format(*f.bytes)
}

// Type implements pflag.Value.
func (f sizeFlag) Type() string { return "BYTES" }

// limitedSizeFlag is a number of bytes from low to high, a multiple of unit.
type limitedSizeFlag struct {
	bytes           *uint32
	low, high, unit uint64
}

// Set implements pflag.Value.
func (f limitedSizeFlag) Set(text string) error {
	bytes, err := bytesize.Parse(text)
	switch {
	case err != nil:
		return err
	case bytes < f.low || bytes > f.high:
		return fmt.Errorf("not from %s to %s", bytesize.Format(f.low), bytesize.Format(f.high))
	case bytes%f.unit != 0:
		return fmt.Errorf("not a multiple of %s", bytesize.Format(f.unit))
	}
	*f.bytes = uint32(bytes)
	return nil
}

// String implements pflag.Value.
func (f limitedSizeFlag) String() string { return "" }

// Type implements pflag.Value.
func (f limitedSizeFlag) Type() string { return "BYTES" }

// sectorFlag is a logical block size.
type sectorFlag struct{ bytes *uint32 }

// Set implements pflag.Value.
func (f sectorFlag) Set(text string) error {
	bytes, err := bytesize.Parse(text)
	if err != nil {
		return err
	}
	switch bytes {
	case 512, 1024, 2048, 4096:
		*f.bytes = uint32(bytes)
		return nil
	}
	return fmt.Errorf("not 512, 1024, 2048 or 4096")
}

// String implements pflag.Value.
func (f sectorFlag) String() string { return "" }

// Type implements pflag.Value.
func (f sectorFlag) Type() string { return "BYTES" }

// countFlag is a number from 1 to high.
type countFlag struct {
	count *int
	high  int
}

// Set implements pflag.Value.
func (f countFlag) Set(text string) error {
	count, err := parseCount(text, f.high)
	if err != nil || count == 0 {
		return fmt.Errorf("not a number from 1 to %d", f.high)
	}
	*f.count = count
	return nil
}

// String implements pflag.Value.
func (f countFlag) String() string { return "" }

// Type implements pflag.Value.
func (f countFlag) Type() string { return "N" }

// idFlag is the number of a device.
type idFlag struct{ id **uint32 }

// Set implements pflag.Value.
func (f idFlag) Set(text string) error {
	number, err := parseCount(text, maxID)
	if err != nil {
		return fmt.Errorf("not a number from 0 to %d", maxID)
	}
	id := uint32(number)
	*f.id = &id
	return nil
}

// String implements pflag.Value.
func (f idFlag) String() string { return "" }

// Type implements pflag.Value.
func (f idFlag) Type() string { return "N" }

// parseCount parses a decimal number up to high, without a sign.
func parseCount(text string, high int) (int, error) {
	if strings.Trim(text, "0123456789") != "" {
		return 0, strconv.ErrSyntax
	}
	number, err := strconv.ParseUint(text, 10, 64)
	if err == nil && number > min(uint64(high), math.MaxInt32) {
		err = strconv.ErrRange
	}
	return int(number), err
}

// switchFlag is auto, on or off.
type switchFlag struct{ value *loop.Switch }

// Set implements pflag.Value.
func (f switchFlag) Set(text string) error {
	switch v := loop.Switch(text); v {
	case loop.SwitchAuto, loop.SwitchOn, loop.SwitchOff:
		*f.value = v
		return nil
	}
	return fmt.Errorf("not auto, on or off")
}

// String implements pflag.Value.
func (f switchFlag) String() string {
	if f.value == nil {
		return ""
	}
	return string(*f.value)
}

// Type implements pflag.Value.
func (f switchFlag) Type() string { return "auto|on|off" }

// fdFlag is the number of an open file descriptor.
type fdFlag struct{ fd *int }

// Set implements pflag.Value.
func (f fdFlag) Set(text string) error {
	fd, err := parseCount(text, math.MaxInt32)
	if err != nil {
		return fmt.Errorf("not the number of a descriptor")
	}
	*f.fd = fd
	return nil
}

// String implements pflag.Value.
func (f fdFlag) String() string { return "" }

// Type implements pflag.Value.
func (f fdFlag) Type() string { return "N" }

// onCrashFlag is the policy for a device whose server is killed.
type onCrashFlag struct{ value *loop.OnCrash }

var _ pflag.Value = onCrashFlag{}

// Set implements pflag.Value.
func (f onCrashFlag) Set(text string) error {
	switch v := loop.OnCrash(text); v {
	case loop.CrashFail, loop.CrashRequeue, loop.CrashReissue:
		*f.value = v
		return nil
	}
	return fmt.Errorf("not fail, requeue or reissue")
}

// String implements pflag.Value.
func (f onCrashFlag) String() string {
	if f.value == nil {
		return ""
	}
	return string(*f.value)
}

// Type implements pflag.Value.
func (f onCrashFlag) Type() string { return "fail|requeue|reissue" }

// durationFlag is a time.
type durationFlag struct{ time *time.Duration }

var _ pflag.Value = durationFlag{}

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
	if f.time == nil || *f.time == 0 {
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
func (f filledFlag) String() string {
	if f.text == nil {
		return ""
	}
	return *f.text
}

// Type implements pflag.Value.
func (f filledFlag) Type() string { return "string" }
