package oci

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ioLimit limits a container's reads from its device or its writes to it: io.max of
// cgroups v2, blkio.throttle of v1. Only this program can set it, because engines do not
// know the device's number.
type ioLimit struct {
	list string // name of a list in linux.resources.blockIO of the configuration
	rate uint64 // bytes or operations in a second
}

// unlimited is the value of an annotation that sets no limit, as in io.max.
const unlimited = "max"

// limitBytes returns the parser of a limit in bytes.
func (r *rootfs) limitBytes(list string) func(string) error {
	return func(value string) error { return r.addLimit(list, value, parseBytes) }
}

// limitOperations returns the parser of a limit in operations.
func (r *rootfs) limitOperations(list string) func(string) error {
	return func(value string) error { return r.addLimit(list, value, parseOperations) }
}

func (r *rootfs) addLimit(list, value string, parse func(string) (uint64, error)) error {
	if value == unlimited {
		return nil
	}
	rate, err := parse(value)
	r.limits = append(r.limits, ioLimit{list, rate})
	return err
}

// parseOperations parses a number of operations. The kernel takes 0 for an error, and
// everything above 32 bits for no limit.
func parseOperations(text string) (uint64, error) {
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil || n == 0 || n == math.MaxUint32 {
		return 0, fmt.Errorf("not a number from 1 to %d: %w", uint32(math.MaxUint32-1), unix.EINVAL)
	}
	return n, nil
}

// throttle is an entry of a list in linux.resources.blockIO. Runtimes ignore members that they do not know.
type throttle struct {
	Major uint32 `json:"major"`
	Minor uint32 `json:"minor"`
	Rate  uint64 `json:"rate"`
	Ours  bool   `json:"dev.ublk-loop"`
}

// limitIO adds limits for the device with a number to the container's resources. Limits
// of the engine stay. Those of an earlier container of the bundle go, because a runtime fails if their device has gone.
func (o object) limitIO(device uint64, limits []ioLimit) error {
	if len(limits) == 0 {
		return nil
	}
	return o.editMember("linux", func(linux object) error {
		return linux.editMember("resources", func(resources object) error {
			return resources.editMember("blockIO", func(blockIO object) error {
				for list := range blockIO {
					if err := blockIO.dropOurs(list); err != nil {
						return err
					}
				}
				for _, l := range limits {
					if err := blockIO.appendTo(l.list, throttle{unix.Major(device), unix.Minor(device), l.rate, true}); err != nil {
						return err
					}
				}
				return nil
			})
		})
	})
}

// dropOurs removes the entries of this program from a member that is a list of limits.
func (o object) dropOurs(list string) error {
	var entries []json.RawMessage
	if !strings.HasPrefix(list, "throttle") || json.Unmarshal(o[list], &entries) != nil {
		return nil
	}
	all := len(entries)
	entries = slices.DeleteFunc(entries, func(text json.RawMessage) bool {
		var t throttle
		return json.Unmarshal(text, &t) == nil && t.Ours
	})
	if len(entries) == all {
		return nil
	}
	var err error
	o[list], err = plainJSON(entries)
	return err
}

// numberOf returns the number of an open device.
func numberOf(disk *os.File) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(disk.Fd()), &st); err != nil {
		return 0, &os.PathError{Op: "stat", Path: disk.Name(), Err: err}
	}
	return st.Rdev, nil
}
