package daemon

import (
	"encoding/json"
	"fmt"
	"time"

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
	// Apart is the process that served the requests of the program that this one has replaced, 0 for none.
	Apart int `json:"apart,omitempty"`
	// Publisher is the same for the process that answers the clients of --metrics.
	Publisher int `json:"publisher,omitempty"`
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
	// Descriptors of the last server's devices: the name is a prefix and the device's id, for
	// the further files of a device of tables also their number (fileName).
	leaseFile      = "lease/"  // the connection of the device's lease
	openFile       = "open/"   // the device's file or disk, as the last server had it open
	deviceLockFile = "locked/" // the lock of that
	deviceKeyFile  = "keys/"   // a pipe with the device's keys
	deviceFile     = "file/"   // the device's file or disk, of earlier versions: open for its path only
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
	task.decodeNames()
	return task, files, err
}

// decodeNames restores paths that are not UTF-8.
func (t *manyTask) decodeNames() {
	t.Socket, t.Program = rawname.Name(t.Socket, t.SocketBytes), rawname.Name(t.Program, t.ProgramBytes)
}

// oldManyTask is the task of versions whose messages had no table of descriptors. Such a
// server executes this program at an upgrade. The number -1 means no descriptor.
type oldManyTask struct {
	OnCrash    loop.OnCrash         `json:"on_crash"`
	SocketFD   int                  `json:"socket_fd"`
	RootFD     int                  `json:"root_fd"`
	LockFD     int                  `json:"lock_fd"`
	LogFD      int                  `json:"log_fd"`
	NotifyFD   int                  `json:"notify_fd"`
	MetricsFD  int                  `json:"metrics_fd"`
	Watchdog   time.Duration        `json:"watchdog"`
	Socket     string               `json:"socket"`
	Program    string               `json:"program"`
	Warnings   []string             `json:"warnings"`
	Generation int                  `json:"generation"`
	Leases     map[uint32]int       `json:"leases"`
	Until      map[uint32]time.Time `json:"until"`
	Files      map[uint32]int       `json:"files"`
}

// isOldTask reports whether a message is such a task.
func isOldTask(text []byte) bool {
	var keys struct {
		SocketFD *int `json:"socket_fd"`
	}
	return json.Unmarshal(text, &keys) == nil && keys.SocketFD != nil
}

// receiveOldTask decodes such a task.
func receiveOldTask(text []byte) (*manyTask, descriptors, error) {
	old := oldManyTask{MetricsFD: -1} // the oldest versions have no metrics
	if err := json.Unmarshal(text, &old); err != nil {
		return nil, nil, manyRole.notForUsers(err)
	}
	files := descriptors{
		socketFile: received(old.SocketFD, socketFile), rootFile: received(old.RootFD, "/"), lockFile: received(old.LockFD, lockFile),
		logFile: received(old.LogFD, logFile), notifyFile: received(old.NotifyFD, notifyFile), metricsFile: received(old.MetricsFD, metricsFile),
	}
	for id, fd := range old.Leases {
		files[fmt.Sprint(leaseFile, id)] = received(fd, "lease")
	}
	for id, fd := range old.Files {
		files[fmt.Sprint(deviceFile, id)] = received(fd, "file")
	}
	return &manyTask{
		OnCrash: old.OnCrash, Watchdog: old.Watchdog, Socket: old.Socket, Program: old.Program,
		Warnings: old.Warnings, Generation: old.Generation, Until: old.Until,
	}, files, nil
}
