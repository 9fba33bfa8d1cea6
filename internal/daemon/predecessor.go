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

// had holds the last server's leavings of a device.
type had struct {
	holder *control.Holder // the client that holds the device; nil if it has no lease
	passed []loop.Passed   // open files; nil if the last server was killed
	path   *os.File        // the file, opened with O_PATH, from an earlier version
}

// close closes the descriptors. The lease holder notices it.
func (h *had) close() {
	if h.holder != nil && h.holder.Conn != nil {
		_ = h.holder.Conn.Close()
	}
	for _, passed := range h.passed {
		passed.Close()
	}
	if h.path != nil {
		_ = h.path.Close()
	}
}

// predecessor maps devices to what the last server has left of them.
type predecessor map[uint32]had

// takePredecessor returns what the last server has passed.
func takePredecessor(task *manyTask, files descriptors) predecessor {
	p := predecessor{}
	for id, until := range task.Until {
		p[id] = had{holder: &control.Holder{Until: until}}
	}
	for name, f := range files {
		id, number, prefix, found := deviceOf(name)
		if !found {
			continue
		}
		h := p[id]
		h.add(prefix, number, f)
		p[id] = h
		delete(files, name)
	}
	return p
}

// add adds a descriptor, whose name has this prefix. number is that of a file below the
// device's tables.
func (h *had) add(prefix string, number uint8, f *os.File) {
	if prefix == openFile || prefix == deviceLockFile {
		for len(h.passed) <= int(number) {
			h.passed = append(h.passed, loop.Passed{})
		}
	}
	switch prefix {
	case leaseFile:
		if h.holder == nil {
			h.holder = &control.Holder{}
		}
		h.holder.Conn = f
	case openFile:
		h.passed[number].File = f
	case deviceLockFile:
		h.passed[number].Lock = f
	case deviceFile:
		h.path = f
	}
}

// deviceOf returns the id of the device that a descriptor belongs to, the number of the file
// below its tables, and the prefix of the descriptor's name.
func deviceOf(name string) (id uint32, number uint8, prefix string, found bool) {
	for _, prefix := range []string{leaseFile, openFile, deviceLockFile, deviceFile} {
		text, found := strings.CutPrefix(name, prefix)
		if !found {
			continue
		}
		text, rest, hasNumber := strings.Cut(text, "/")
		id, err := strconv.ParseUint(text, 10, 32)
		n := uint64(0)
		if err == nil && hasNumber {
			n, err = strconv.ParseUint(rest, 10, 8)
		}
		return uint32(id), uint8(n), prefix, err == nil
	}
	return 0, 0, "", false
}

// fileName returns the name of a descriptor with a prefix. The first file of a device has the
// name that the file of a device without tables has.
func fileName(prefix string, id uint32, number int) string {
	if number == 0 {
		return fmt.Sprint(prefix, id)
	}
	return fmt.Sprint(prefix, id, "/", number)
}

// passOn adds everything for the next server to its task and descriptors.
func (p predecessor) passOn(task *manyTask, files descriptors) {
	task.Until = map[uint32]time.Time{}
	for id, h := range p {
		if h.holder != nil {
			task.Until[id] = h.holder.Until
			files[fmt.Sprint(leaseFile, id)] = h.holder.Conn
		}
		for i, passed := range h.passed {
			files[fileName(openFile, id, i)] = passed.File
			files[fileName(deviceLockFile, id, i)] = passed.Lock
		}
		files[fmt.Sprint(deviceFile, id)] = h.path
	}
}

// addOwn adds this server's open files and holders.
func (p predecessor) addOwn(passed map[uint32][]loop.Passed, holders map[uint32]control.Holder) {
	for id, own := range passed {
		h := had{passed: own}
		if holder, found := holders[id]; found {
			h.holder = &holder
		}
		p[id] = h
	}
}

// take removes and returns the entry of a device. The caller owns it.
func (p predecessor) take(id uint32) had {
	h := p[id]
	delete(p, id)
	return h
}

// close closes all remaining entries.
func (p predecessor) close() {
	for id, h := range p {
		h.close()
		delete(p, id)
	}
}
