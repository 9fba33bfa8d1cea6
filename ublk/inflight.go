package ublk

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// InFlight is the kernel's number of requests in flight to a disk, for [ServedQueues.Hold].
type InFlight struct {
	count    *os.File // inflight in sysfs
	counting *os.File // queue/iostats, 0 if the kernel does not count
}

// OpenInFlight opens the number of requests in flight to the device's disk. Another process needs
// no sysfs to read it.
func (d *Device) OpenInFlight() (*InFlight, error) {
	disk := fmt.Sprintf("/sys/block/ublkb%d/", d.info.ID)
	count, err := os.Open(disk + "inflight")
	if err != nil {
		return nil, err
	}
	counting, err := os.Open(disk + "queue/iostats")
	if err != nil {
		return nil, errors.Join(err, count.Close())
	}
	return &InFlight{count, counting}, nil
}

// NewInFlight makes an InFlight of the open Files of another one. It takes them over, unless it
// returns an error that wraps EINVAL, because that is not their number.
func NewInFlight(files []*os.File) (*InFlight, error) {
	if len(files) != 2 {
		return nil, fmt.Errorf("%d files for the number of requests in flight: %w", len(files), unix.EINVAL)
	}
	return &InFlight{files[0], files[1]}, nil
}

// Files returns the open files.
func (f *InFlight) Files() []*os.File { return []*os.File{f.count, f.counting} }

// Close closes the files.
func (f *InFlight) Close() error { return errors.Join(f.count.Close(), f.counting.Close()) }

// isOff reports whether the kernel does not count the requests.
func (f *InFlight) isOff() bool {
	if f == nil {
		return false
	}
	text, err := readAgain(f.counting)
	return err == nil && strings.TrimSpace(text) == "0"
}

// number returns the number of requests. It excludes flushes (blk_mq_check_in_driver in
// block/blk-mq.c).
func (f *InFlight) number() (n int64, known bool) {
	if f == nil {
		return 0, false
	}
	text, err := readAgain(f.count)
	if err != nil {
		return 0, false
	}
	for _, field := range strings.Fields(text) {
		count, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, false
		}
		n += count
	}
	return n, true
}

// readAgain reads an attribute, whose text is that of the time of the read.
func readAgain(attribute *os.File) (string, error) {
	var text [64]byte
	n, err := attribute.ReadAt(text[:], 0)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return string(text[:n]), err
}
