package daemon

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/ublk-loop/ublk-loop/internal/control"
	"github.com/ublk-loop/ublk-loop/internal/rawname"
	"github.com/ublk-loop/ublk-loop/loop"
)

// manyTask is the task of a server of many devices.
type manyTask struct {
	OnCrash  loop.OnCrash  `json:"on_crash"`
	Watchdog time.Duration `json:"watchdog"` // interval of pings to the service manager, 0 for none
	Socket   string        `json:"socket"`   // path to remove at the end, "" for the service manager's socket
	Program  string        `json:"program"`  // the program to execute at an upgrade
	// SocketBytes and ProgramBytes are there for paths that are not UTF-8.
	SocketBytes  []byte   `json:"socket_bytes,omitempty"`
	ProgramBytes []byte   `json:"program_bytes,omitempty"`
	Warnings     []string `json:"warnings"`
	// Generation counts the earlier servers in this process, which upgrades have
	// replaced.
	Generation int `json:"generation"`
	// Until has the earliest removal time of each of the last server's devices, by id.
	Until map[uint32]time.Time `json:"until"`
}

// These are the names of the descriptors of a server of many devices, beside logFile and
// notifyFile.
const (
	socketFile  = "socket"  // listens
	rootFile    = "root"    // the directory in which paths are looked up
	lockFile    = "lock"    // locked while this server owns the socket
	metricsFile = "metrics" // listens on TCP
	// Descriptors of the last server's devices: the name is a prefix and the device's id.
	leaseFile  = "lease/" // the connection of the device's lease
	deviceFile = "file/"  // the device's file or disk
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
	task.Socket, task.Program = rawname.Name(task.Socket, task.SocketBytes), rawname.Name(task.Program, task.ProgramBytes)
	return task, files, err
}

// predecessor holds the leases and the files of the last server's devices, by id.
type predecessor struct {
	holders map[uint32]control.Holder
	files   map[uint32]*os.File
}

// takePredecessor returns the leases and files that the last server has passed.
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

// deviceOf returns the id of the device that a descriptor belongs to.
func deviceOf(name, prefix string) (uint32, bool) {
	text, found := strings.CutPrefix(name, prefix)
	if !found {
		return 0, false
	}
	id, err := strconv.ParseUint(text, 10, 32)
	return uint32(id), err == nil
}

// passOn adds the leases and files for the next server to its task and descriptors.
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

// close closes the descriptors of devices that this server did not take over. The lease
// holders notice it.
func (p *predecessor) close() {
	for _, h := range p.holders {
		_ = h.Conn.Close() // Close of a nil or closed file only returns an error
	}
	for _, f := range p.files {
		_ = f.Close()
	}
}
