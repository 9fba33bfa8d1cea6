package loop

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/ublk-loop/ublk-loop/ublk"
)

// DeviceStats are what a device has done since this process serves it.
type DeviceStats struct {
	ublk.Stats
	Device Status // as of its start
	// InFlight is how many requests somebody waits for.
	InFlight int
}

// Stats returns what the device has done so far. It takes no lock, and sends no
// command to the driver.
func (d *Device) Stats() DeviceStats {
	s := DeviceStats{Stats: d.dev.Stats(), Device: d.status}
	// The disk knows of requests that the kernel completes by itself, the queues
	// of flushes.
	s.InFlight = max(s.InService, inFlight(d.Path()))
	return s
}

// Stats returns what each device has done, by id.
func (s *Server) Stats() []DeviceStats {
	list := []DeviceStats{}
	for _, d := range s.all() {
		list = append(list, d.dev.Stats())
	}
	return list
}

// inFlight returns how many reads and writes a disk has under way
// (Documentation/ABI/stable/sysfs-block), 0 where that is not known.
func inFlight(disk string) int {
	text, err := os.ReadFile(filepath.Join("/sys/block", filepath.Base(disk), "inflight"))
	if err != nil {
		return 0 // it is on its way out
	}
	var reads, writes int
	if _, err := fmt.Sscan(string(text), &reads, &writes); err != nil {
		return 0
	}
	return reads + writes
}
