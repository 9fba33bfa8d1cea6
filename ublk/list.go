package ublk

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// classDir lists the character devices of all ublk devices.
const classDir = "/sys/class/ublk-char"

// List returns the driver's description of every ublk device, whichever program serves it,
// in the order of ids.
func (c *Control) List() ([]Info, error) {
	ids, err := deviceIDs()
	if err != nil {
		return nil, err
	}
	var infos []Info
	for _, id := range ids {
		info, err := c.Info(id)
		if errors.Is(err, unix.ENODEV) {
			continue // another process has deleted it
		}
		if err != nil {
			return nil, err
		}
		infos = append(infos, info)
	}
	return infos, nil
}

func deviceIDs() ([]uint32, error) {
	entries, err := os.ReadDir(classDir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list ublk devices: %w", err)
	}
	var ids []uint32
	for _, e := range entries {
		id, err := strconv.ParseUint(strings.TrimPrefix(e.Name(), "ublkc"), 10, 32)
		if err == nil {
			ids = append(ids, uint32(id))
		}
	}
	slices.Sort(ids)
	return ids, nil
}
