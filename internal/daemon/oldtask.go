package daemon

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/ublk-loop/ublk-loop/loop"
)

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
