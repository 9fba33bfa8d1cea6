package daemon

import (
	"fmt"
	"os"
	"reflect"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/loop"
)

// At an upgrade, a server of an earlier version executes this program with the earlier
// form of a task.
func TestTaskOfEarlierVersion(t *testing.T) {
	files := map[string]*os.File{}
	fd := func(name string) int {
		files[name] = pipeEnd(t)
		return duplicate(t, files[name])
	}
	text := fmt.Sprintf(`{"on_crash":"reissue","socket_fd":%d,"root_fd":%d,"lock_fd":%d,"log_fd":-1,"notify_fd":%d,"metrics_fd":-1,`+
		`"watchdog":15000000000,"socket":"/run/ublk-loop/control.sock","program":"/usr/bin/ublk-loop","warnings":null,"generation":1,`+
		`"leases":{"3":%d,"4":-1},"until":{"3":"0001-01-01T00:00:00Z","4":"2026-11-28T16:00:00Z"},"files":{"3":%d}}`+"\n",
		fd(socketFile), fd(rootFile), fd(lockFile), fd(notifyFile), fd("lease"), fd("file"))
	task, passed, err := receiveMany([]string{fmt.Sprint(messageFD(t, []byte(text)))})
	if err != nil {
		t.Fatal(err)
	}
	last := takePredecessor(task, passed)
	defer last.close()
	defer passed.close()
	four := time.Date(2026, 11, 28, 16, 0, 0, 0, time.UTC)
	want := &manyTask{
		OnCrash: loop.CrashReissue, Watchdog: 15 * time.Second, Socket: "/run/ublk-loop/control.sock", Program: "/usr/bin/ublk-loop", Generation: 1,
		Until: map[uint32]time.Time{3: {}, 4: four},
	}
	if !reflect.DeepEqual(task, want) {
		t.Errorf("the task is %+v, want %+v", task, want)
	}
	for _, name := range []string{socketFile, rootFile, lockFile, notifyFile} {
		if passed[name] == nil || inode(t, passed[name]) != inode(t, files[name]) {
			t.Errorf("%s is %v", name, passed[name])
		}
	}
	if passed[logFile] != nil || passed[metricsFile] != nil {
		t.Errorf("there are a log %v and metrics %v", passed[logFile], passed[metricsFile])
	}
	if inode(t, last[3].holder.Conn) != inode(t, files["lease"]) || last[4].holder.Conn != nil || !last[4].holder.Until.Equal(four) || inode(t, last[3].path) != inode(t, files["file"]) {
		t.Errorf("the last server had %+v", last)
	}
}

// The task of the oldest servers has no metrics.
func TestTaskWithoutMetrics(t *testing.T) {
	const text = `{"socket_fd":-1,"root_fd":-1,"lock_fd":-1,"log_fd":-1,"notify_fd":-1}` + "\n"
	_, files, err := receiveMany([]string{fmt.Sprint(messageFD(t, []byte(text)))})
	if err != nil || files[metricsFile] != nil {
		t.Errorf("metrics at %v, error %v", files[metricsFile], err)
	}
}

// Paths that are not UTF-8 reach the next process as they are.
func TestPathsOfTask(t *testing.T) {
	const socket, program = "/run/caf\xe9.sock", "/opt/\xff/ublk-loop"
	told, err := launchMany(manyRole, &manyTask{Socket: socket, Program: program}, nil).inMemory(nil)
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Dup(int(told.Fd())) // receiveMany closes it
	if err != nil {
		t.Fatal(err)
	}
	defer told.Close()
	task, files, err := receiveMany([]string{strconv.Itoa(fd)})
	if err != nil || task.Socket != socket || task.Program != program || len(files) != 0 {
		t.Errorf("%+v, %v, error %v", task, files, err)
	}
}
