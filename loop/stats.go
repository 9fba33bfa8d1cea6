package loop

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/ublk-loop/ublk-loop/loop/internal/stack"
	"github.com/ublk-loop/ublk-loop/transfer"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// DeviceStats has the counters of a device since this process has served it.
type DeviceStats struct {
	ublk.Stats
	Device Status // at its start
	// InFlight is the number of requests in flight.
	InFlight int
	// CorruptBlocks is the number of wrong blocks that the target verity has found. A block
	// counts each time.
	CorruptBlocks uint64
	// Stores has the use of each store that the device writes to.
	Stores []StoreStats
}

// StoreStats is the use of the store of a snapshot. Sizes are in bytes.
type StoreStats struct {
	File      string // absolute path when it was attached
	Allocated uint64 // all chunks that were given out, with the metadata
	Size      uint64
	Metadata  uint64
	// State is Invalid or Overflow, as dmsetup status has it, for a store that was full or has
	// failed. Otherwise it is empty.
	State string
}

// Stats returns the device's counters. It takes no lock, and sends no command to the
// driver. A process that serves the requests (AttachApart) has a second to answer. After that the
// counters are those of its last answer, or 0.
func (d *Device) Stats() DeviceStats {
	s := d.count()
	s.addInFlight()
	return s
}

// count returns the counters without those of the kernel.
func (d *Device) count() DeviceStats {
	s := DeviceStats{Device: d.startStatus()}
	var usages []stack.StoreUsage
	switch {
	case d.apart != nil:
		a := d.apart.stats()
		s.Stats = *a.Stats
		if d.stack != nil {
			usages = d.stack.WithPaths(a.Usages)
		}
		if d.stack != nil && d.stack.Checks() { // a process that an attacker controls can report wrong blocks of any device
			s.CorruptBlocks = a.Corruptions
		}
	case d.stack != nil:
		s.Stats, s.CorruptBlocks, usages = d.dev.Stats(), d.stack.Corruptions(), d.stack.Usages()
	default:
		s.Stats = d.dev.Stats()
	}
	for _, u := range usages {
		const shift = transfer.SectorShift
		s.Stores = append(s.Stores, StoreStats{u.Path, u.Allocated << shift, u.Total << shift, u.Metadata << shift, u.State})
	}
	return s
}

// addInFlight sets InFlight. The disk counts requests that the kernel completes by itself, but no flushes. The queues count
// flushes.
func (s *DeviceStats) addInFlight() { s.InFlight = max(s.InService, inFlight(s.Device.Device)) }

// Stats returns the counters of each device, by id.
func (s *Server) Stats() []DeviceStats {
	devices := s.all()
	list := make([]DeviceStats, len(devices))
	var asked sync.WaitGroup // so that a process that does not answer delays all of them by one second
	for i, d := range devices {
		asked.Go(func() { list[i] = d.dev.count() })
	}
	asked.Wait()
	for i := range list { // one after another, because each goroutine that reads a file has a thread meanwhile
		list[i].addInFlight()
	}
	return list
}

// inFlight returns the number of reads and writes in flight to a disk
// (Documentation/ABI/stable/sysfs-block), or 0 if it is unknown.
func inFlight(disk string) int {
	text, err := os.ReadFile(filepath.Join("/sys/block", filepath.Base(disk), "inflight"))
	if err != nil {
		return 0 // the disk is being removed
	}
	var reads, writes int
	if _, err := fmt.Sscan(string(text), &reads, &writes); err != nil {
		return 0
	}
	return reads + writes
}
