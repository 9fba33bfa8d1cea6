package daemon

import (
	"os"
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
	lease, file, lock, path, second := pipeEnd(t), pipeEnd(t), pipeEnd(t), pipeEnd(t), pipeEnd(t)
	own := predecessor{7: {path: path}}
	own.addOwn(map[uint32][]loop.Passed{3: {{File: file, Lock: lock}}, 4: {{File: file}}, 5: {{File: file, Lock: lock}, {File: path}, {File: second, Lock: second}}},
		map[uint32]control.Holder{3: {Conn: lease, Until: until}, 4: {Until: until}, 6: {Conn: lease}}, nil)
	task, files := &manyTask{OnCrash: loop.CrashReissue, Generation: 2}, descriptors{lockFile: pipeEnd(t), logFile: nil}
	own.passOn(task, files)
	var told manyTask
	passed := pass(t, task, files, &told)
	next := takePredecessor(&told, passed)
	defer next.close()
	if told.OnCrash != loop.CrashReissue || told.Generation != 2 || len(passed) != 1 || passed[lockFile] == nil {
		t.Errorf("task %+v, descriptors %v", told, passed)
	}
	three, four, five, seven := next[3], next[4], next[5], next[7]
	if len(next) != 4 || three.holder == nil || three.passed == nil || four.holder == nil || four.passed == nil || five.passed == nil {
		t.Fatalf("the last server had %+v", next)
	}
	if !three.holder.Until.Equal(until) || !four.holder.Until.Equal(until) || four.holder.Conn != nil || five.holder != nil || four.passed[0].Lock != nil ||
		len(three.passed) != 1 || len(five.passed) != 3 || five.passed[1].Lock != nil {
		t.Errorf("the last server had %+v", next)
	}
	for _, f := range []struct{ is, want *os.File }{
		{three.holder.Conn, lease},
		{three.passed[0].File, file},
		{three.passed[0].Lock, lock},
		{five.passed[0].Lock, lock},
		{seven.path, path},
		{five.passed[1].File, path},
		{five.passed[2].File, second},
		{five.passed[2].Lock, second},
	} {
		if inode(t, f.is) != inode(t, f.want) {
			t.Errorf("%s is another file", f.is.Name())
		}
	}
}
