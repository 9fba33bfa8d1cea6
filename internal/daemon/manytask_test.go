package daemon

import (
	"fmt"
	"os"
	"reflect"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/control"
	"github.com/ublk-loop/ublk-loop/loop"
)

// pipeEnd returns a new descriptor.
func pipeEnd(t *testing.T) *os.File {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = r.Close(), w.Close() })
	return r
}

// inode returns the inode number of an open file.
func inode(t *testing.T, f *os.File) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

// The next server gets the leases and files of the last one, by device.
func TestPredecessor(t *testing.T) {
	until := time.Now().Add(time.Hour).Round(0)
	lease, file := pipeEnd(t), pipeEnd(t)
	own := predecessor{
		holders: map[uint32]control.Holder{3: {Conn: lease, Until: until}, 4: {Until: until}},
		files:   map[uint32]*os.File{3: file},
	}
	task, files := &manyTask{OnCrash: loop.CrashReissue, Generation: 2}, descriptors{lockFile: pipeEnd(t), logFile: nil}
	own.passOn(task, files)
	var told manyTask
	passed := pass(t, task, files, &told)
	next := takePredecessor(&told, passed)
	defer next.close()
	if told.OnCrash != loop.CrashReissue || told.Generation != 2 || len(passed) != 1 || passed[lockFile] == nil {
		t.Errorf("task %+v, descriptors %v", told, passed)
	}
	if len(next.holders) != 2 || len(next.files) != 1 || next.holders[4].Conn != nil || !next.holders[4].Until.Equal(until) || !next.holders[3].Until.Equal(until) {
		t.Fatalf("holders %+v, files %+v", next.holders, next.files)
	}
	if inode(t, next.holders[3].Conn) != inode(t, lease) || inode(t, next.files[3]) != inode(t, file) {
		t.Error("the descriptors are other files")
	}
}

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
	if inode(t, last.holders[3].Conn) != inode(t, files["lease"]) || last.holders[4].Conn != nil || !last.holders[4].Until.Equal(four) || inode(t, last.files[3]) != inode(t, files["file"]) {
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
	told, err := launchMany(&manyTask{Socket: socket, Program: program}, nil).inMemory(nil)
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
