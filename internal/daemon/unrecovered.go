package daemon

import (
	"os"
	"sync"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/internal/rawname"
	"github.com/ublk-loop/ublk-loop/loop"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// unrecovered has the devices that this server was to take over and could not.
type unrecovered struct {
	mu   sync.Mutex // protects byID
	byID map[uint32]error
}

// note records the result of an attempt to take over a device.
func (u *unrecovered) note(id uint32, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if err == nil {
		delete(u.byID, id)
		return
	}
	if u.byID == nil {
		u.byID = map[uint32]error{}
	}
	u.byID[id] = err
}

// among returns those of the devices that still wait for a server. It leaves out a device
// that was removed, or that another process has recovered.
func (u *unrecovered) among(devices []loop.Status) []client.Unrecovered {
	u.mu.Lock()
	defer u.mu.Unlock()
	list := []client.Unrecovered{}
	for i := range devices {
		d := &devices[i]
		// Before Linux 6.16 the driver takes a device of this process for served.
		other := d.State == ublk.StateLive.String() && d.PID != os.Getpid()
		if err := u.byID[d.ID]; err != nil && !other {
			list = append(list, client.Unrecovered{ID: d.ID, Device: d.Device, Error: rawname.Text(err.Error())})
		}
	}
	return list
}
