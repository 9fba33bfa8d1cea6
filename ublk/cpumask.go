package ublk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk/uapi"
)

// A cpuMask is a set of CPUs in the driver's form: a bit for each CPU, in words
// of 64 bits. It is a string because it is part of a map's key and its length
// depends on the machine.
type cpuMask string

const (
	cpuMaskWord = 8 // bytes
	// smallestCPUMask is enough for 1024 CPUs. largestCPUMask is the largest
	// power of two that the length of a command's buffer can express.
	smallestCPUMask = 128
	largestCPUMask  = 32 << 10
)

// queueAffinity returns the CPUs that the driver maps to a queue
// (UBLK_U_CMD_GET_QUEUE_AFFINITY). The driver returns EINVAL for a mask with
// fewer bits than the machine has possible CPUs, so masks grow until it succeeds.
func (c *Control) queueAffinity(id uint32, queue uint16) (cpuMask, error) {
	for size := smallestCPUMask; ; size *= 2 {
		buf := make([]byte, size)
		err := c.device("get queue affinity of", id, Command{
			Op: uapi.UBLK_U_CMD_GET_QUEUE_AFFINITY, Data: uint64(queue),
			Buf: buf, Timeout: commandTimeout,
		})
		switch {
		case err == nil:
			return cpuMask(buf), nil
		case size == largestCPUMask || !errors.Is(err, unix.EINVAL):
			return "", err
		}
	}
}

// affinity returns the CPUs that the driver maps to a queue.
func (d *Device) affinity(queue uint16) (cpuMask, error) {
	if d.ctl == nil {
		return d.cpus[queue], nil
	}
	return d.ctl.queueAffinity(d.info.ID, queue)
}

// words calls a function for each word of the mask, with the number of the
// word's first CPU.
func (m cpuMask) words(f func(first int, word uint64)) {
	for at := 0; at < len(m); at += cpuMaskWord {
		f(8*at, binary.NativeEndian.Uint64([]byte(m[at:])))
	}
}

// count returns the number of CPUs.
func (m cpuMask) count() int {
	n := 0
	m.words(func(_ int, word uint64) { n += bits.OnesCount64(word) })
	return n
}

// set returns the mask in the form that sched_setaffinity(2) takes.
func (m cpuMask) set() unix.CPUSetDynamic {
	set := unix.NewCPUSet(8 * len(m))
	m.words(func(first int, word uint64) {
		for ; word != 0; word &= word - 1 {
			set.Set(first + bits.TrailingZeros64(word))
		}
	})
	return set
}

// pin binds the calling thread to the CPUs.
func (m cpuMask) pin() error {
	err := unix.SchedSetaffinityDynamic(0, m.set())
	if errors.Is(err, unix.EINVAL) {
		return nil // no CPU of the set is online and allowed for this process (cpuset)
	}
	if err != nil {
		return fmt.Errorf("set affinity: %w", err)
	}
	return nil
}
