package daemon

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/ublk-loop/ublk-loop/internal/control"
	"github.com/ublk-loop/ublk-loop/internal/keysource"
	"github.com/ublk-loop/ublk-loop/loop"
	"github.com/ublk-loop/ublk-loop/transfer"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// had holds the last server's leavings of a device.
type had struct {
	holder *control.Holder  // the client that holds the device; nil if it has no lease
	passed []loop.Passed    // open files; nil if the last server was killed
	path   *os.File         // the file, opened with O_PATH, from an earlier version
	key    *os.File         // a pipe with the device's keys, to be read once; nil for none
	secret *transfer.Secret // what was read from key
}

// close closes the descriptors. The lease holder notices it.
func (h *had) close() {
	if h.holder != nil && h.holder.Conn != nil {
		_ = h.holder.Conn.Close()
	}
	for _, passed := range h.passed {
		passed.Close()
	}
	for _, f := range []*os.File{h.path, h.key} {
		if f != nil {
			_ = f.Close()
		}
	}
	if h.secret != nil {
		h.secret.Close()
	}
}

// readKey reads the device's keys from their pipe, if that has not been done.
func (h *had) readKey() error {
	if h.key == nil {
		return nil
	}
	var err error
	h.secret, err = keysource.Read(h.key, loop.MaxTableKeyBytes)
	_ = h.key.Close()
	h.key = nil
	return err
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
	case deviceKeyFile:
		h.key = f
	}
}

// deviceOf returns the id of the device that a descriptor belongs to, the number of the file
// below its tables, and the prefix of the descriptor's name.
func deviceOf(name string) (id uint32, number uint8, prefix string, found bool) {
	for _, prefix := range []string{leaseFile, openFile, deviceLockFile, deviceFile, deviceKeyFile} {
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
		files[fmt.Sprint(deviceKeyFile, id)] = h.key
	}
}

// addOwn adds this server's open files, holders and keys.
func (p predecessor) addOwn(passed map[uint32][]loop.Passed, holders map[uint32]control.Holder, keys map[uint32]*transfer.Secret) {
	for id, own := range passed {
		h := had{passed: own, secret: keys[id]}
		if holder, found := holders[id]; found {
			h.holder = &holder
		}
		p[id] = h
	}
}

// pipeKeys writes the keys to pipes. Unlike a file in memory, a pipe is never in swap, and what
// has been read from it is gone. done closes the pipes.
func (p predecessor) pipeKeys() (done func(), err error) {
	var pipes []*os.File
	done = func() {
		for _, f := range pipes {
			_ = f.Close()
		}
	}
	for id, h := range p {
		if h.secret == nil {
			continue
		}
		if h.key, err = keysource.PipeOf(h.secret); err != nil {
			done()
			return nil, fmt.Errorf("pass on the key of %s: %w", ublk.BlockPath(id), err)
		}
		pipes = append(pipes, h.key)
		p[id] = h
	}
	return done, nil
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
