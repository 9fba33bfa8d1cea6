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
	passed *loop.Passed    // open files; nil if the last server was killed
	path   *os.File        // the file, opened with O_PATH, from an earlier version
}

// close closes the descriptors. The lease holder notices it.
func (h *had) close() {
	if h.holder != nil && h.holder.Conn != nil {
		_ = h.holder.Conn.Close()
	}
	if h.passed != nil {
		h.passed.Close()
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
		id, prefix, found := deviceOf(name)
		if !found {
			continue
		}
		h := p[id]
		h.add(prefix, f)
		p[id] = h
		delete(files, name)
	}
	return p
}

// add adds a descriptor, whose name has this prefix.
func (h *had) add(prefix string, f *os.File) {
	if h.passed == nil && (prefix == openFile || prefix == deviceLockFile) {
		h.passed = &loop.Passed{}
	}
	switch prefix {
	case leaseFile:
		if h.holder == nil {
			h.holder = &control.Holder{}
		}
		h.holder.Conn = f
	case openFile:
		h.passed.File = f
	case deviceLockFile:
		h.passed.Lock = f
	case deviceFile:
		h.path = f
	}
}

// deviceOf returns the id of the device that a descriptor belongs to, and the prefix of
// its name.
func deviceOf(name string) (id uint32, prefix string, found bool) {
	for _, prefix := range []string{leaseFile, openFile, deviceLockFile, deviceFile} {
		text, found := strings.CutPrefix(name, prefix)
		if !found {
			continue
		}
		id, err := strconv.ParseUint(text, 10, 32)
		return uint32(id), prefix, err == nil
	}
	return 0, "", false
}

// passOn adds everything for the next server to its task and descriptors.
func (p predecessor) passOn(task *manyTask, files descriptors) {
	task.Until = map[uint32]time.Time{}
	for id, h := range p {
		if h.holder != nil {
			task.Until[id] = h.holder.Until
			files[fmt.Sprint(leaseFile, id)] = h.holder.Conn
		}
		if h.passed != nil {
			files[fmt.Sprint(openFile, id)] = h.passed.File
			files[fmt.Sprint(deviceLockFile, id)] = h.passed.Lock
		}
		files[fmt.Sprint(deviceFile, id)] = h.path
	}
}

// addOwn adds this server's open files and holders.
func (p predecessor) addOwn(passed map[uint32]loop.Passed, holders map[uint32]control.Holder) {
	for id, own := range passed {
		h := had{passed: &own}
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
