package daemon

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/ublk-loop/ublk-loop/internal/control"
	"github.com/ublk-loop/ublk-loop/loop"
)

// manyTask is what a server of many devices is to do.
type manyTask struct {
	OnCrash  loop.OnCrash  `json:"on_crash"`
	Watchdog time.Duration `json:"watchdog"` // how often the manager wants to hear, 0 for never
	Socket   string        `json:"socket"`   // to be removed at the end, "" for the manager's
	Program  string        `json:"program"`  // what an upgrade executes
	Warnings []string      `json:"warnings"`
	// Generation is how many servers there were in this process before, by upgrades.
	Generation int `json:"generation"`
	// Until is when a device of the last one may go, by its id.
	Until map[uint32]time.Time `json:"until"`
}

// The names of the descriptors of a server of many devices, beside logFile and
// notifyFile.
const (
	socketFile  = "socket"  // listens
	rootFile    = "root"    // the directory that paths are looked up from
	lockFile    = "lock"    // held while the socket is this server's
	metricsFile = "metrics" // listens on TCP
	// What the last server had of a device, with the device's id behind it.
	leaseFile  = "lease/" // the connection of its lease
	deviceFile = "file/"  // its file or disk
)

// receiveMany returns the task of a server of many devices, and its descriptors.
func receiveMany(args []string) (*manyTask, descriptors, error) {
	f, text, err := receiveText(manyRole, args)
	if err != nil {
		return nil, nil, err
	}
	if isOldTask(text) {
		defer func() { _ = f.Close() }()
		return receiveOldTask(text)
	}
	task := &manyTask{}
	files, err := decode(manyRole, f, text, task)
	return task, files, err
}

// predecessor is what the last server had of its devices, by id.
type predecessor struct {
	holders map[uint32]control.Holder
	files   map[uint32]*os.File
}

// takePredecessor takes from the descriptors what the last server had.
func takePredecessor(task *manyTask, files descriptors) predecessor {
	p := predecessor{map[uint32]control.Holder{}, map[uint32]*os.File{}}
	for id, until := range task.Until {
		p.holders[id] = control.Holder{Until: until}
	}
	for name, f := range files {
		if id, found := deviceOf(name, leaseFile); found {
			h := p.holders[id]
			h.Conn = f
			p.holders[id] = h
			delete(files, name)
		}
		if id, found := deviceOf(name, deviceFile); found {
			p.files[id] = f
			delete(files, name)
		}
	}
	return p
}

// deviceOf returns the device that a descriptor is about.
func deviceOf(name, prefix string) (uint32, bool) {
	text, found := strings.CutPrefix(name, prefix)
	if !found {
		return 0, false
	}
	id, err := strconv.ParseUint(text, 10, 32)
	return uint32(id), err == nil
}

// passOn puts into a task, and beside its descriptors, what the next server gets.
func (p *predecessor) passOn(task *manyTask, files descriptors) {
	task.Until = map[uint32]time.Time{}
	for id, h := range p.holders {
		task.Until[id] = h.Until
		files[fmt.Sprint(leaseFile, id)] = h.Conn
	}
	for id, f := range p.files {
		files[fmt.Sprint(deviceFile, id)] = f
	}
}

// close closes the descriptors of devices that nobody has taken over. The holders of
// leases see it.
func (p *predecessor) close() {
	for _, h := range p.holders {
		_ = h.Conn.Close() // of nil, or closed already: an error, and no more
	}
	for _, f := range p.files {
		_ = f.Close()
	}
}
