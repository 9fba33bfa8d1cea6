package report

import (
	"os"

	"github.com/ublk-loop/ublk-loop/loop"
)

// LoopDevice returns a warning if a loop device of the kernel has a file, which is about to be used
// too. There is no danger if both only read.
func LoopDevice(file *os.File, readOnly bool) []string {
	name, alsoReadOnly := loop.LoopDevice(file)
	if name == "" || readOnly && alsoReadOnly {
		return nil
	}
	return []string{"the loop device " + name + " has the file, too: what one of them writes can damage the data of the other"}
}
